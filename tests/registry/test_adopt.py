"""A class of another package in one statement: what is read from its source, what is refused, and how it is built."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dlframe.cli import main
from dlframe.config import load
from dlframe.registry import Entry, Option, Positive, Registry, optimizers, read_source
from dlframe.registry import plugins as discovery
from dlframe.types import ConfigError, RegistrationError

PACKAGE = {
    "__init__.py": """
        from .public import *
        from .public import Descent as Renamed
        raise SystemExit("imported")
        """,
    "public/__init__.py": """
        if True:
            from ..inner.descent import Descent
        try:
            from .absent import Nothing
        except ImportError:
            Nothing = None
        Alias = Descent
        """,
    "inner/__init__.py": "",
    "inner/base.py": '''
        from typing import List, Optional, Union
        import numpy as np

        FLOOR = 1e-3

        class Base:
            """Steps down.

            Parameters
            ----------
            weights : iterable of Tensor
                What is moved.
            lr, rate : float
                Size of a step.
            sizes : list of int, default=None
                How many, each. See the notes.

            Notes
            -----
            floor : none
            """

            def __init__(
                self,
                weights,
                lr: float = 0.1,
                floor: Optional[float] = FLOOR,
                mode: str = "plain",
                sizes: List[int] = (1, 2),
                seed: Union[int, None] = None,
                untyped=3,
                dtype: np.dtype = np.float32,
                call: object = print,
                *rest,
                flag: bool = bool(0),
                **more,
            ) -> None:
                self.given = {name: value for name, value in locals().items() if name not in ("self", "rest", "more")}
                if mode == "broken":
                    raise ValueError("mode:\\n  broken")
        ''',
    "inner/descent.py": '''
        from . import base

        def step(): ...

        class Other(base.Base):
            def __init__(self, nothing): ...

        class Descent(base.Base):
            """Descends.

            In many lines of which
        class Descent: none is code.
            """
        ''',
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package `walks`, which must not be imported to be read; `package.run()` lets it be."""
    root = tmp_path / "site" / "walks"
    for name, text in PACKAGE.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(inspect.cleandoc(text) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    class Package:
        path = root

        @staticmethod
        def run() -> None:
            initial = root / "__init__.py"
            initial.write_text(initial.read_text().replace('raise SystemExit("imported")\n', ""))

    yield Package
    for name in [name for name in sys.modules if name.partition(".")[0] == "walks"]:
        del sys.modules[name]


@pytest.fixture
def registry():
    """A registry as that of the optimizers, empty."""
    return Registry("optimizer", injected=("params",), required=("lr",), facts={"inputs": ("image",)})


@pytest.fixture
def read(tmp_path):
    """Reads the one entry of a source text."""

    def read(text: str) -> Entry:
        read.path.write_text(f"from dlframe.registry import Option, Positive, callbacks, optimizers, schedulers\n{text}\n")
        ((_, entry),) = read_source(read.path)
        return entry

    read.path = tmp_path / "entries.py"
    return read


WALK = 'optimizers.adopt("walk", "walks:Descent", given={"weights": "params"}'


def told(entry: Entry) -> dict[str, tuple[str, Any, str]]:
    return {p.name: (p.rule, p.default, p.doc) for p in entry.parameters.values()}


# --- reading


@pytest.mark.parametrize("target", ["walks:Descent", "walks:Renamed", "walks.public:Alias", "walks.inner.descent:Descent"])
def test_a_class_is_found_through_all_that_re_exports_it(package, read, target):
    entry = read(WALK.replace("walks:Descent", target) + ")")
    assert (entry.group, entry.name, entry.summary, entry.target) == ("optimizer", "walk", "Descends.", target)
    assert entry.where == f"{read.path}:2"
    assert told(entry) == {
        "lr": ("float", 0.1, ""),
        "floor": ("float or null", 0.001, ""),
        "mode": ("str", "plain", ""),
        "sizes": ("list of int", [1, 2], "How many, each."),
        "seed": ("int or null", None, ""),
    }
    assert entry.left_out == ("untyped", "dtype", "call", "flag")
    assert "walks" not in sys.modules


def test_the_meanings_of_numpydoc_are_taken_over(package, read):
    entry = read(WALK.replace("walks:Descent", "walks.inner.base:Base") + ")")
    assert entry.summary == "Steps down."
    arg_descriptions = {name: parameter.doc for name, parameter in entry.parameters.items() if parameter.doc}
    assert arg_descriptions == {"sizes": "How many, each."}


def test_what_the_signature_lacks_is_said_in_the_statement(package, read):
    entry = read(
        "LR = Option(Positive, 'Rate.')\n"
        + WALK
        + ', omit=("floor", "seed"), fixed={"mode": "fast"}, lr=LR, untyped=Option(int, default=4),'
        + ' exact=Option(meaning="Whether it is.", of="flag", values={"no": False, "yes": True}, default="yes"))'
    )
    assert told(entry) == {
        "lr": ("float > 0", 0.1, "Rate."),
        "untyped": ("int", 4, ""),
        "exact": ("one of no, yes", "yes", "Whether it is."),
        "sizes": ("list of int", [1, 2], "How many, each."),
    }
    assert entry.left_out == ("floor", "seed", "dtype", "call", "mode=fast")


def test_others_are_omitted(package, read):
    entry = read(WALK.replace('"walks:Descent"', '"walks:Descent", "A walk.\\n\\nOf old."') + ', omit="others", lr=Positive)')
    assert (entry.summary, list(entry.parameters)) == ("A walk.", ["lr"])


def test_facts_are_those_of_a_registration(package, read):
    assert read(WALK + ', facts={"exempt": {"resumes": "It does not."}})').facts == {"exempt": {"resumes": "It does not."}}


def test_lion_of_timm(read):
    entry = read('optimizers.adopt("mine", "timm.optim:Lion", lr=Positive, omit=("foreach", "maximize"))')
    assert entry.summary == "Implements Lion algorithm."
    assert told(entry) == {
        "lr": ("float > 0", 1e-4, "Learning rate."),
        "betas": (
            "[float, float]",
            (0.9, 0.99),
            "Coefficients used for computing running averages of gradient and its square.",
        ),
        "weight_decay": ("float", 0.0, "Weight decay coefficient."),
        "caution": ("bool", False, "Apply caution."),
        "corrected_weight_decay": ("bool", False, "Apply corrected weight decay (lr**2 / max_lr)."),
    }


def test_the_example_of_the_contributing_page(read):
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (statement,) = re.findall(r"```python\n(optimizers\.adopt\(.*?)```", page, re.DOTALL)
    entry = read("from dlframe.registry import Probability\n" + statement)
    assert told(entry)["lr"] == ("float > 0", 3e-4, "Learning rate: the size of every step.")
    assert told(entry)["betas"][:2] == ("[float >= 0 and < 1, float >= 0 and < 1]", (0.9, 0.99))
    assert entry.left_out == ("maximize", "foreach")


@pytest.mark.parametrize(
    "text", ["class Descent(Descent): ...", "from typing import NamedTuple\nclass Descent(NamedTuple): ..."]
)
def test_a_base_that_is_no_class_of_a_file_is_refused(package, read, text):
    (package.path / "inner" / "descent.py").write_text(text + "\n")
    with pytest.raises(RegistrationError, match=r"^optimizer 'walk': the base '\w+' of Descent is not a class definition"):
        read(WALK + ")")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            'optimizers.adopt("lion", "timm.optim:Lyon")',
            "optimizer 'lion': timm.optim has no class or function 'Lyon' in its source. Did you mean 'Lion'? ({where})",
        ),
        (
            'optimizers.adopt("lion", "tim.optim:Lion")',
            "optimizer 'lion': package 'tim' is not installed. Did you mean 'timm.optim:Lion'? ({where})",
        ),
        (
            'optimizers.adopt("lion", "timm.optm:Lion")',
            "optimizer 'lion': timm has no Python module 'optm'. Did you mean 'optim'? ({where})",
        ),
        (
            'optimizers.adopt("lion", "timm.optim.Lion")',
            "optimizer 'lion': the class must be 'package.module:Class'. Received: 'timm.optim.Lion'. "
            "Did you mean 'timm.optim:Lion'? ({where})",
        ),
        ('optimizers.adopt("lion")', '{where}: write variable.adopt("name", "package.module:Class", option=type)'),
        (
            'optimizers.adopt("lion", "timm.optim:Lion", lr=1e-3)',
            "{where}: 'lr' must be a type, or Option(type, meaning, default=...): '0.001' is not int, float, str, bool, "
            "Path, Literal, Enum, Annotated or a list of these",
        ),
        (
            'optimizers.adopt("lion", "timm.optim:Lion", lr=Option(Positive, default=0))',
            "optimizer 'lion': parameter 'lr' must be float > 0. Received: 0 ({where})",
        ),
        (
            'optimizers.adopt("lion", "timm.optim:Lion", lrr=Positive)',
            "optimizer 'lion': parameter 'lrr' is not in the signature of timm.optim:Lion. Did you mean 'lr'? ({where})",
        ),
        (
            'optimizers.adopt("lion", "timm.optim:Lion", fixed={"lr": 1}, lr=Positive)',
            "optimizer 'lion': parameter 'lr' is stated twice: fixed={'lr': ...} and lr=... ({where})",
        ),
        ('optimizers.adopt("lion", "timm.optim:Lion", lr=int, lr=float)', "{where}: 'lr' must be given once"),
        (
            'optimizers.adopt("lion", "timm.optim:Lion", **options)',
            "{where}: '**' cannot be read from the source. Write out the options",
        ),
        (
            'optimizers.adopt("lion", "timm.optim:Lion", omit="foreach")',
            "optimizer 'lion': 'omit' must be a tuple of names, or 'others'. Received: 'foreach'. ({where})",
        ),
        (
            'optimizers.adopt("lion", "timm.optim:Lion", omit="others")',
            "optimizer 'lion': parameter 'lr' is missing: every optimizer has this option ({where})",
        ),
        (
            'optimizers.adopt("walk", "walks:Descent", lr=Positive)',
            "optimizer 'walk': parameter 'params' is not in the signature of walks:Descent; "
            "say which parameter takes it: given={'PARAMETER': 'params'} ({where})",
        ),
        (
            'optimizers.adopt("walk", "walks:Descent", given={"weights": "parms"})',
            "optimizer 'walk': 'given' must name an injected argument. Received: 'parms'. Did you mean 'params'? ({where})",
        ),
        (
            WALK + ", untyped=Option())",
            "optimizer 'walk': parameter 'untyped' has no type in walks:Descent that a config can hold; "
            "write untyped=Option(float) ({where})",
        ),
        (
            WALK + ", flag=bool)",
            "optimizer 'walk': parameter 'flag' has no literal as default in walks:Descent; "
            "write Option(..., default=...) ({where})",
        ),
        (
            'callbacks.adopt("walk", "walks:Descent")',
            "callback 'walk': parameter 'weights' has no default in walks:Descent; state its type, weights=Option(...), "
            "or its value, fixed={'weights': ...} ({where})",
        ),
        (
            'if True:\n    optimizers.adopt("lion", "timm.optim:Lion", lr=Positive)',
            "{path}:3: 'adopt' must be a top-level statement of the file",
        ),
        (
            'optimisers.adopt("lion", "timm.optim:Lion")',
            "{where}: 'optimisers' is not a registry of dlframe. Did you mean 'optimizers'?",
        ),
        ('optimizers.adopt("sqrt", "math:sqrt")', "optimizer 'sqrt': math has no Python source ({where})"),
        (
            'optimizers.adopt("info", "timm.optim:OptimInfo")',
            "optimizer 'info': parameter 'params' is not in the signature of timm.optim:OptimInfo; say which parameter takes "
            "it: given={'PARAMETER': 'params'} ({where})",
        ),
    ],
    ids=lambda text: text[:70],
)
def test_what_does_not_fit_is_refused_when_the_file_is_read(package, read, statement, message):
    with pytest.raises(RegistrationError) as error:
        read(statement)
    assert str(error.value) == message.replace("{where}", f"{read.path}:2").replace("{path}", str(read.path))


def test_another_adopt_is_left_alone(read):
    read.path.write_text("class Dog: ...\nDog().adopt('rex', 3, **{})\n")
    assert read_source(read.path) == []


def test_a_parameter_with_the_name_of_what_is_injected_elsewhere_is_no_option(package, read):
    entry = read('schedulers.adopt("walk", "walks:Descent", given={"weights": "optimizer", "mode": "steps"})')
    assert "mode" not in entry.parameters
    with pytest.raises(RegistrationError, match=r"^scheduler 'walk': parameter 'steps' is reserved\. "):
        read('schedulers.adopt("walk", "walks:Descent", given={"weights": "optimizer"}, steps=Option(of="mode"))')


# --- building


def adopt(registry: Registry, **said: Any) -> None:
    registry.adopt("walk", "walks:Descent", given={"weights": "params"}, **said)


def test_the_class_is_called_with_its_own_names_and_types(package, registry):
    package.run()
    adopt(
        registry, lr=Positive, fixed={"mode": "fast"}, exact=Option(of="flag", values={"no": False, "yes": True}, default="yes")
    )
    assert "walks" not in sys.modules
    built = registry.build({"name": "walk", "lr": 2, "sizes": [3], "exact": "no"}, params="weights")
    assert built.given == {
        "weights": "weights", "lr": 2.0, "floor": 1e-3, "mode": "fast", "sizes": [3], "seed": None, "untyped": 3,
        "dtype": sys.modules["numpy"].float32, "call": print, "flag": False,
    }  # fmt: skip
    assert type(built).__name__ == "Descent"


def test_what_is_injected_may_be_an_attribute(package):
    package.run()
    registry = Registry("scheduler", injected=("optimizer", "steps"))
    registry.adopt("walk", "walks:Descent", given={"weights": "optimizer.real", "seed": "steps"})
    given = registry.build({"name": "walk"}, optimizer=3, steps=5).given
    assert (given["weights"], given["seed"]) == (3, 5)


def test_an_adopted_entry_reads_as_the_function_that_builds_it(package, registry):
    package.run()
    adopt(registry, lr=Option(Positive, "Rate."))
    entry = registry.get("walk")
    assert entry.load
    entry.load()
    again = registry.read_object("walk", entry.facts, registry.get("walk").factory)
    assert (again.parameters, again.summary) == (entry.parameters, entry.summary)


@pytest.mark.parametrize(
    ("before", "after", "difference"),
    [
        ("lr: float = 0.1", "lr: float = 0.2", "'lr' {}: default 0.1 in the source, default 0.2 when imported"),
        ("weights,", "weights=(),", "'weights' {}: no default in the source, default () when imported"),
        (
            'mode: str = "plain"',
            'kind: str = "plain"',
            "'mode' {}: default 'plain' in the source, no such parameter when imported",
        ),
        ("untyped=3,", "untyped=3, fresh=1,", "'fresh' {}: no such parameter in the source, default 1 when imported"),
    ],
)
def test_a_package_that_changed_since_it_was_read_is_refused(package, registry, before, after, difference):
    package.run()
    adopt(registry)
    base = package.path / "inner" / "base.py"
    base.write_text(base.read_text().replace(before, after))
    with pytest.raises(RegistrationError) as error:
        registry.build({"name": "walk"}, params=[])
    told = difference.format("of walks:Descent differs from its source")
    assert str(error.value) == f"optimizer 'walk': {told} ({registry.get('walk').where})"


def test_a_package_that_cannot_be_imported_is_told_in_a_line(package, registry):
    adopt(registry)
    with pytest.raises(
        RegistrationError, match=r"^optimizer 'walk': walks:Descent cannot be imported: SystemExit: imported \("
    ):
        registry.build({"name": "walk"}, params=[])


def test_what_the_class_refuses_is_told_in_its_words(package, registry):
    package.run()
    adopt(registry)
    with pytest.raises(ConfigError) as error:
        registry.build({"name": "walk", "mode": "broken"}, params=[])
    assert str(error.value) == "optimizer=walk: walks:Descent: mode: broken"


def test_a_package_that_is_not_installed_is_told_when_its_entry_is_chosen(registry):
    registry.adopt("walk", "nowhere_at_all.optim:Walk", "Walks.", lr=Positive)
    entry = registry.get("walk")
    assert (entry.summary, entry.parameters) == ("Walks.", {})
    with pytest.raises(ConfigError) as error:
        registry.build({"name": "walk", "lr": 3}, params=[])
    assert str(error.value) == (
        "optimizer=walk: requires the package 'nowhere_at_all', which is not installed. "
        "Try: python -m pip install nowhere_at_all"
    )


def test_a_name_is_taken_once_and_a_statement_may_be_run_twice(registry):
    for _ in range(2):
        registry.adopt("lion", "timm.optim:Lion", lr=Positive)
    with pytest.raises(RegistrationError, match=r"^optimizer 'lion' is already registered by dlframe \("):
        registry.adopt("lion", "timm.optim:Lion", lr=Positive)


# --- a plugin


def test_a_plugin_adopts_in_one_statement(tmp_path, monkeypatch, capsys):
    plugin = tmp_path / "plugins" / "mine.py"
    plugin.parent.mkdir()
    plugin.write_text(
        "from dlframe.registry import Positive, optimizers\n"
        'optimizers.adopt("lion_of_mine", "timm.optim:Lion", lr=Positive, omit=("foreach",))\n'
    )
    monkeypatch.chdir(tmp_path)
    try:
        assert main(["show", "optimizer=lion_of_mine"]) == 0
        shown = capsys.readouterr().out
        assert "optimizer=lion_of_mine: Implements Lion algorithm.\nfrom mine, mine.py:2, timm.optim:Lion\n" in shown
        assert "  optimizer.lr: float > 0; default 0.0001\n      Learning rate.\n" in shown
        assert shown.endswith("\n\n  Parameters of timm.optim:Lion without an option: foreach.\n")
        discovery.preload([("optimizer", "lion_of_mine")])
        built = optimizers.build({"name": "lion_of_mine"}, params=[{"params": [torch.nn.Parameter(torch.ones(2))]}])
        assert type(built).__name__ == "Lion"
        assert built.defaults["lr"] == 1e-4
    finally:
        optimizers.entries.pop("lion_of_mine", None)


MIXER = """
from dlframe.registry import Count, models

models.adopt(
    "mixer",
    "timm.models.mlp_mixer:MlpMixer",
    "MLP-Mixer (Tolstikhin et al. 2021, arXiv:2105.01601) of timm.",
    given={"num_classes": "spec.num_classes", "in_chans": "spec.in_channels", "img_size": "spec.image_size"},
    omit="others",
    patch_size=Option(Count, "Side of a patch, in pixels.", default=4),
    num_blocks=Option(Count, "Blocks.", default=2),
    embed_dim=Option(Count, "Features of a patch.", default=32),
)
""".replace("Count, models", "Count, Option, models")


def test_a_model_of_another_package_takes_numbers_of_the_data(tmp_path):
    (tmp_path / "mixer.py").write_text(MIXER)
    config = load([f"plugin_paths={tmp_path / 'mixer.py'}", "model=mixer", "model.num_blocks=1"])
    model = config.build_model(config.build("data").spec)
    assert model(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    assert len(model.blocks) == 1
