"""The registry: what it reads from a signature, what it refuses, and in which words."""

from __future__ import annotations

import importlib.util
import math
import re
from dataclasses import replace
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Interval
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dlframe.registry import Entry, Registry, models, read_source
from dlframe.registry.parameters import (
    REQUIRED,
    Count,
    Fraction,
    Natural,
    NonNegative,
    Parameter,
    Positive,
    Probability,
    describe_type,
    validate,
)
from dlframe.types import ConfigError, RegistrationError

HEAD = """
from __future__ import annotations
from typing import Annotated, Literal
from annotated_types import Interval
from dlframe.registry import Count, Fraction, data, models
"""


@pytest.fixture
def read(tmp_path):
    """Reads the entries of a source text; `read.path` is its file."""

    def read(text: str, head: str = HEAD) -> list[tuple[Registry, Entry]]:
        read.path.write_text(head + text, encoding="utf-8")
        return read_source(read.path)

    read.path = tmp_path / "plugin.py"
    return read


def model(signature: str) -> str:
    return f'@models.register("net")\ndef net(spec, *, {signature}):\n    """A net."""\n'


settings.register_profile("dlframe", deadline=None, derandomize=True)
settings.load_profile("dlframe")

# --- reading

NET = '''
Rate = Annotated[float, Interval(gt=0, lt=0.5)]
SIZES = (3, 5)

class Base:
    def __init__(self, spec, *, rate: Rate = 0.1) -> None:
        raise RuntimeError("never built")

@models.register("net", inputs=("image", "series"))
class Net:
    """A net. In one line.

    More of it.

    Args:
        spec: What the data is like.
        width: Channels, of which
            norm: there is one.
        sizes (tuple, optional): Kernel sizes.
        words: Some words.

    Returns:
        nothing: to be read.
    """

    def __init__(
        self,
        spec,
        *,
        width: Count,
        depth: "int" = -3,
        share: Fraction | None = None,
        rate: Rate = 0.25,
        norm: Literal["batch", "none", 3] = "none",
        sizes: tuple[int, int] = SIZES,
        words: list[str] = ("a", "b"),
        rates: tuple[Rate, ...] = (),
        fast: bool = True,
    ) -> None: ...

@models.register("heir")
class Heir(Base):
    """An heir."""

@data.register("first")
@data.register("second")
def numbers(*, count: int = 3):
    """Numbers."""
'''


def test_a_signature_is_read(read):
    (registry, net), (_, heir), *numbers = read(NET)
    assert registry is models
    assert (net.group, net.name, net.summary) == ("model", "net", "A net. In one line.")
    assert net.facts == {"inputs": ("image", "series")}
    assert net.where == f"{read.path}:{1 + (HEAD + NET).splitlines().index('class Net:')}"
    assert {p.name: (p.rule, p.default) for p in net.parameters.values()} == {
        "width": ("int >= 1", REQUIRED),
        "depth": ("int", -3),
        "share": ("float >= 0 and <= 1 or null", None),
        "rate": ("float > 0 and < 0.5", 0.25),
        "norm": ("one of batch, none, 3", "none"),
        "sizes": ("[int, int]", (3, 5)),
        "words": ("list of str", ["a", "b"]),
        "rates": ("list of float > 0 and < 0.5", ()),
        "fast": ("bool", True),
    }
    arg_descriptions = {p.name: p.doc for p in net.parameters.values() if p.doc}
    assert arg_descriptions == {
        "width": "Channels, of which norm: there is one.",
        "sizes": "Kernel sizes.",
        "words": "Some words.",
    }
    assert [p.rule for p in heir.parameters.values()] == ["float > 0 and < 0.5"]
    assert sorted(entry.name for _, entry in numbers) == ["first", "second"]


def test_the_meaning_of_an_only_option_may_hold_a_colon(read):
    text = model("width: Count = 1").replace("A net.", "A net.\n\n    Args:\n        width: One of\n            two: this.\n")
    ((_, entry),) = read(text)
    assert entry.parameters["width"].doc == "One of two: this."


def test_reading_runs_nothing(read):
    (_, entry), *_ = read('raise SystemExit("was run")\n' + model("width: Count = 1"))
    assert entry.name == "net"


def test_an_imported_object_reads_as_its_source(read):
    ((_, static),) = read(model('width: Count = 1, norm: Literal["a", "b"] | None = None, sizes: tuple[int, ...] = (1,)'))
    spec = importlib.util.spec_from_file_location("plugin", read.path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    registry = models
    try:
        spec.loader.exec_module(module)
        assert registry.get("net").parameters == static.parameters
        assert registry.get("net").summary == static.summary
        assert registry.get("net").factory is module.net
    finally:
        del registry.entries["net"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (model("width = 1"), "model 'net': parameter 'width' has no type; write for example 'width: int = 32' ({where})"),
        (
            model("width: Count = 0"),
            "model 'net': parameter 'width' must be int >= 1. Received: 0 ({where})",
        ),
        (
            model("width: float = None"),
            "model 'net': parameter 'width' must be float. Received: None ({where})",
        ),
        (
            model("width: int = 1").replace("*,", "*widths,"),
            "model 'net': parameter 'widths' is variable; every option must have a name and a type ({where})",
        ),
        (
            model("width: int = 1, **widths: int"),
            "model 'net': parameter 'widths' is variable; every option must have a name and a type ({where})",
        ),
        (
            '@models.register("net")\ndef net(*, width: int = 1):\n    """A net."""\n',
            "model 'net': parameter 'spec' is missing: every model receives it when built ({where})",
        ),
        (
            model("width: int | dict = 1"),
            "model 'net': parameter 'width' cannot be read from the source: 'dict' is not int, float, str, bool, "
            "Path, Literal, Enum, Annotated or a list of these ({where})",
        ),
        (
            model("width: dict = 1"),
            "model 'net': parameter 'width' cannot be read from the source: "
            "'dict' is not int, float, str, bool, Path, Literal, Enum, Annotated or a list of these ({where})",
        ),
        (
            model("width: int = max(1, 2)"),
            "model 'net': parameter 'width' cannot be read from the source: 'max(1, 2)' is not a literal ({where})",
        ),
        (
            model("width: Annotated[int, Interval(0)] = 1"),
            "model 'net': parameter 'width' cannot be read from the source: 'Interval(0)' is not an Interval(...) ({where})",
        ),
        (
            model("width: Annotated[int, Interval(ge='a')] = 1"),
            "model 'net': parameter 'width' cannot be read from the source: "
            "'Interval(ge='a')' is not an Interval(...) ({where})",
        ),
        (
            model("width: Annotated[int, Interval(above=0)] = 1"),
            "model 'net': parameter 'width' cannot be read from the source: "
            "Interval.__init__() got an unexpected keyword argument 'above' ({where})",
        ),
        (
            model("words: Annotated[str, Interval(ge=0)] = 'a'"),
            "model 'net': parameter 'words' must be a number where it has an Interval; not <class 'str'>. "
            "Received: 'a' ({where})",
        ),
        (
            model("width: 'int(' = 1"),
            "model 'net': parameter 'width' cannot be read from the source: '(' was never closed (<unknown>, line 1) ({where})",
        ),
        (
            model("sizes: tuple[()] = ()"),
            "model 'net': parameter 'sizes' cannot be read from the source: "
            "'tuple[()]' is not int, float, str, bool, Path, Literal, Enum, Annotated or a list of these ({where})",
        ),
        (
            'NAME = "net"\n@models.register(NAME)\ndef net(spec):\n    """A net."""\n',
            "{where}: name and metadata of a registration must be literals",
        ),
        (
            '@models.register("net", inputs=tuple("a"))\ndef net(spec):\n    """A net."""\n',
            "{where}: name and metadata of a registration must be literals",
        ),
        ("def net(:\n", "{path}:7: cannot be read: invalid syntax"),
        ("\0", "{path}: cannot be read: source code string cannot contain null bytes"),
    ],
    ids=lambda text: re.sub(r"\W+", " ", text)[:60],
)
def test_what_cannot_be_an_option_is_refused(read, text, message):
    with pytest.raises(RegistrationError) as error:
        read(text, HEAD + "\n")
    line = 1 + next((i for i, line in enumerate((HEAD + "\n" + text).split("\n")) if line.startswith("def net")), 0)
    assert str(error.value) == message.replace("{where}", f"{read.path}:{line}").replace("{path}", str(read.path))


def test_an_alias_of_itself_is_refused(read):
    with pytest.raises(RegistrationError, match=r"^model 'net': parameter 'width' cannot be read from the source: "):
        read("Odd = Odd\n" + model("width: Odd = 1"))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RegistrationError, match=rf"^{re.escape(str(tmp_path / 'no.py'))}: cannot be read: "):
        read_source(tmp_path / "no.py")


# --- registering


@pytest.fixture
def registry():
    """A registry of models with one entry, of a class."""
    registry = Registry("model", injected=("spec",), facts={"inputs": ("image",)})

    @registry.register("net")
    class Net:
        """A net.

        Args:
            width: Channels.
            norm: Normalisation.
        """

        def __init__(self, spec: str, *, width: Count = 32, norm: Literal["batch", "none"] = "batch") -> None:
            self.given = (spec, width, norm)

    return registry


def test_an_entry_is_built_from_its_config_and_what_is_injected(registry):
    assert registry.build({"name": "net", "width": 3}, spec="digits").given == ("digits", 3, "batch")


def test_a_name_is_taken_once(registry):
    with pytest.raises(RegistrationError) as error:
        registry.add(replace(registry.get("net"), where="other.py:7"))
    where = registry.get("net").where
    assert str(error.value) == (f"model 'net' is already registered by dlframe ({where}); choose another name in other.py:7")


def test_a_fact_has_to_be_known(registry):
    with pytest.raises(RegistrationError) as error:
        registry.add(replace(registry.get("net"), name="other", facts={"input": ("image",)}, where="other.py:7"))
    assert str(error.value) == "model 'other' states unknown metadata 'input' (other.py:7). Did you mean 'inputs'?"


@pytest.mark.parametrize("name", ["a,b", "A", "", "é", "two words", "x=1", "3d", 3])
def test_a_name_can_be_typed_on_the_command_line(registry, name):
    with pytest.raises(RegistrationError) as error:
        registry.add(replace(registry.get("net"), name=name, where="other.py:7"))
    assert str(error.value) == (
        f"model {name!r}: a name must be a lowercase letter, then letters, digits and underscores (other.py:7)"
    )


def test_facts_that_are_not_stated_have_their_defaults(registry):
    assert registry.get("net").facts == {"exempt": {}, "search": {}, "inputs": ("image",)}


def test_a_class_typed_at_a_prompt_is_registered(registry):
    text = '@registry.register("typed")\ndef typed(spec, *, width: int = 1):\n    """Typed."""\n    return width\n'
    exec(text, {"registry": registry, "__name__": "prompt"})
    assert registry.get("typed").where == "prompt"
    assert registry.build({"name": "typed", "width": 4}, spec=None) == 4


def test_a_class_without_a_constructor_has_no_options():
    registry = Registry("callback")

    @registry.register("idle")
    class Idle:
        """Does nothing."""

    assert registry.get("idle").parameters == {}
    assert isinstance(registry.build({"name": "idle"}), Idle)


def test_a_registered_object_is_held_to_the_same_rules(registry):
    with pytest.raises(RegistrationError, match=r"^model 'untyped': parameter 'width' has no type; "):

        @registry.register("untyped")
        def untyped(spec, *, width=1): ...

    with pytest.raises(RegistrationError, match=r"^model 'starred': parameter 'options' is variable; "):

        @registry.register("starred")
        def starred(spec, **options: int): ...

    with pytest.raises(RegistrationError, match=r"^model 'zero': parameter 'width' must be int >= 1\. Received: 0 "):

        @registry.register("zero")
        def zero(spec, *, width: Count = 0): ...

    with pytest.raises(RegistrationError, match=r"^model 'alone': parameter 'spec' is missing: "):

        @registry.register("alone")
        def alone(*, width: Count = 1): ...


def test_an_entry_found_by_parsing_is_imported_when_it_is_built(read):
    ((_, entry),) = read(model("width: Count = 2").replace('"""A net."""', '"""A net."""\n    return spec * width'))
    imported = []

    def load():
        imported.append(entry.name)
        spec = importlib.util.spec_from_file_location("plugin", read.path)
        assert spec
        assert spec.loader
        spec.loader.exec_module(importlib.util.module_from_spec(spec))

    models.add(replace(entry, load=load))
    try:
        assert [models.build({"name": "net"}, spec=n) for n in (3, 4)] == [6, 8]
        assert imported == ["net"]
    finally:
        del models.entries["net"]


def test_a_module_that_does_not_register_what_was_read_is_named(registry):
    registry.add(replace(registry.get("net"), name="lazy", where="lazy.py:1", factory=None, load=lambda: None))
    with pytest.raises(RegistrationError) as error:
        registry.build({"name": "lazy"}, spec="digits")
    assert str(error.value) == "model 'lazy' was not registered when lazy.py:1 was imported"


# --- checking


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": "abc"}, "model.width: must be int >= 1. Received: 'abc'."),
        ({"width": "3"}, "model.width: must be int >= 1. Received: '3'."),
        ({"width": -1}, "model.width: must be int >= 1. Received: -1."),
        ({"width": True}, "model.width: must be int >= 1. Received: True."),
        ({"width": 2.0}, "model.width: must be int >= 1. Received: 2.0."),
        ({"width": None}, "model.width: must be int >= 1. Received: None."),
        ({"width": "???"}, "model.width: must be given: int >= 1. Try: model.width=..."),
        ({"norm": "bach"}, "model.norm: must be one of batch, none. Received: 'bach'. Did you mean 'batch'?"),
        ({"norm": "x"}, "model.norm: must be one of batch, none. Received: 'x'. Choose from: batch, none."),
        ({"norm": ["batch"]}, "model.norm: must be one of batch, none. Received: ['batch']."),
        (
            {"widht": 3},
            "model.widht: 'net' has no such option. Did you mean 'width'? See: python -m dlframe show model=net",
        ),
        ({"_target_": "os.system"}, "model._target_: is not supported: choose a registered entry, model=NAME."),
    ],
)
def test_an_option_that_breaks_a_rule_is_refused(registry, options, message):
    with pytest.raises(ConfigError) as error:
        registry.get("net").check(options)
    assert str(error.value) == message


def test_defaults_are_filled_in_and_the_name_is_no_option(registry):
    assert registry.get("net").check({"name": "net", "width": 3}) == {"width": 3, "norm": "batch"}


def test_an_option_without_a_default_must_be_given(registry):
    @registry.register("needy")
    def needy(spec, *, path: str): ...

    with pytest.raises(ConfigError) as error:
        registry.get("needy").check({})
    assert str(error.value) == "model.path: must be given: str. Try: model.path=..."


def test_a_name_that_is_not_registered_gets_the_nearest(registry):
    with pytest.raises(ConfigError) as error:
        registry.get("nett")
    assert str(error.value) == "model=nett: no such model. Did you mean 'net'? See: python -m dlframe list model"


# --- types


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (Count, "int >= 1"),
        (Natural, "int >= 0"),
        (Positive, "float > 0"),
        (NonNegative, "float >= 0"),
        (Fraction, "float >= 0 and <= 1"),
        (Probability, "float >= 0 and < 1"),
        (Annotated[int, Interval(lt=16777217)], "int < 16777217"),
        (Annotated[float, Interval(gt=1e-7)], "float > 1e-07"),
        (Positive | None, "float > 0 or null"),
        (str, "str"),
        (bool | None, "bool or null"),
        (Literal[1, 2], "one of 1, 2"),
        (tuple[Positive, int], "[float > 0, int]"),
        (tuple[str, ...], "list of str"),
        (list[tuple[int, int]], "list of [int, int]"),
    ],
)
def test_a_rule_in_words(annotation, words):
    assert describe_type(annotation) == words


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
finite = st.floats(allow_nan=False, allow_infinity=False)


def fits(annotation: Any, value: Any) -> bool:
    try:
        validate(annotation, value)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("kind", [int, str, bool])
@given(value=anything)
def test_an_int_a_str_and_a_bool_take_their_own_and_nothing_else(kind, value):
    assert fits(kind, value) == (type(value) is kind)
    assert not fits(kind, value) or validate(kind, value) is value


@given(value=anything | st.just(10**400) | st.sampled_from([math.inf, -math.inf, math.nan]))
def test_a_float_takes_finite_numbers_and_makes_them_floats(value):
    number = type(value) in (int, float) and abs(value) < 2**1023 and math.isfinite(value)
    assume(type(value) is not float or not 2**1023 <= abs(value) < math.inf)
    assert fits(float, value) == number
    if number:
        assert type(validate(float, value)) is float
        assert validate(float, value) == float(value)


@given(value=finite, low=finite, high=finite)
def test_each_bound_is_held(value, low, high):
    assert fits(Annotated[float, Interval(gt=low)], value) == (value > low)
    assert fits(Annotated[float, Interval(ge=low)], value) == (value >= low)
    assert fits(Annotated[float, Interval(lt=high)], value) == (value < high)
    assert fits(Annotated[float, Interval(le=high)], value) == (value <= high)
    assert fits(Annotated[float, Interval(ge=low, lt=high)], value) == (low <= value < high)


@given(value=anything)
def test_null_is_taken_where_it_is_allowed(value):
    assert fits(Count | None, value) == (value is None or fits(Count, value))
    assert not fits(Count, None)


@given(value=anything | st.sampled_from(["a", "b", 1, True, 1.0]))
def test_a_literal_takes_its_words_in_their_own_type(value):
    assert fits(Literal["a", "b", 1], value) == ((type(value), value) in ((str, "a"), (str, "b"), (int, 1)))


@given(value=anything | st.lists(st.integers()) | st.tuples(st.integers(), st.floats()))
def test_a_list_takes_lists_of_its_items_and_arrives_as_its_type(value):
    is_list = type(value) in (list, tuple)
    assert fits(tuple[Natural, ...], value) == (is_list and all(fits(Natural, item) for item in value))
    assert fits(list[Natural], value) == fits(tuple[Natural, ...], value)
    assert fits(tuple[int, float], value) == (is_list and len(value) == 2 and fits(int, value[0]) and fits(float, value[1]))
    if fits(list[Natural], value):
        assert validate(list[Natural], value) == list(value)
        assert validate(tuple[Natural, ...], value) == tuple(value)


@given(value=anything)
def test_what_conforms_conforms_again(value):
    for annotation in (int, float, str, bool, Fraction, Count | None, Literal["a", 1], tuple[float, ...], list[str]):
        if fits(annotation, value):
            once = validate(annotation, value)
            assert validate(annotation, once) == once


@given(value=anything)
def test_a_parameter_that_refuses_says_its_key_its_rule_and_the_value(value):
    parameter = Parameter("lr", Positive, 0.1)
    assume(not fits(Positive, value) and value != "???")
    with pytest.raises(ConfigError) as error:
        parameter.check(value, "optimizer.lr")
    assert str(error.value) == f"optimizer.lr: must be float > 0. Received: {value!r}."
    assert error.value.key == "optimizer.lr"
