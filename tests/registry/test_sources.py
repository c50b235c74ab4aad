"""Registrations in every form that Python allows: each is found, or refused with its line."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests import forked

from dlframe.registry import models, read_source
from dlframe.registry.plugins import FOLDERS, PACKAGE
from dlframe.types import RegistrationError

HEAD = """from __future__ import annotations
import dataclasses, enum, typing
import dlframe.registry
import dlframe.registry as registry
from dataclasses import dataclass, field
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, List, Literal, Optional, Tuple, Union
from annotated_types import Ge, Gt, Interval, Le, Lt
from dlframe.registry import Count, models, models as networks
"""

NET = """
def net(spec, *, width: int = 3):
    '''A net.'''
"""


@pytest.fixture
def read(tmp_path):
    """Reads the entries of a text as name -> option -> (rule, default)."""

    def read(text: str, **files: str) -> dict[str, dict[str, Any]]:
        for name, content in files.items():
            (tmp_path / f"{name}.py").write_text(content)
        read.path.write_text(HEAD + text)
        return {e.name: {p.name: (p.rule, p.default) for p in e.parameters.values()} for _, e in read_source(read.path)}

    read.path = tmp_path / "plugin.py"
    return read


@pytest.mark.parametrize(
    "text",
    [
        f'@models.register("net"){NET}',
        f'@models.register(name="net"){NET}',
        f'@networks.register("net"){NET}',
        f'@registry.models.register("net"){NET}',
        f'@dlframe.registry.models.register("net"){NET}',
        f'mine = models\n@mine.register("net"){NET}',
        f'mine = registry.models\nother = mine\n@other.register("net"){NET}',
        f'{NET}models.register("net")(net)',
        f'{NET}built = models.register("net")(net)',
        f'if True:\n    @models.register("net"){NET.replace(chr(10), chr(10) + "    ")}',
        f'try:\n    import nothing\nexcept ImportError:\n    @models.register("net"){NET.replace(chr(10), chr(10) + "    ")}',
    ],
    ids=range(11),
)
def test_a_registration_is_found(text, read):
    assert read(text) == {"net": {"width": ("int", 3)}}


WAY = (
    'a registration must be a decorator of a class or function, or a statement {}("name")(function), '
    "at the top level of the file"
)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (f"@models.register{NET}", 2, 'a registration has a name: write @models.register("net")'),
        (f"@models.register(NAME){NET}", 2, "name and metadata of a registration must be literals"),
        (f'@models.register("net", **FACTS){NET}', 2, "name and metadata of a registration must be literals"),
        (f'{NET}for name in "ab":\n    models.register(name)(net)', 5, WAY.format("models.register")),
        (f"{NET}add = models.register", 4, WAY.format("models.register")),
        (
            f'def setup():\n    @models.register("net"){NET.replace(chr(10), chr(10) + "    ")}',
            2,
            WAY.format("models.register"),
        ),
        (f'{NET}models.register("net")(lambda spec: 0)', 4, WAY.format("models.register")),
        (f'@model.register("net"){NET}', 1, "'model' is not a registry of dlframe. Did you mean 'models'?"),
    ],
    ids=range(8),
)
def test_any_other_registration_is_refused_with_its_line(text, line, message, read):
    with pytest.raises(RegistrationError) as error:
        read(text)
    assert str(error.value) == f"{read.path}:{len(HEAD.splitlines()) + line}: {message}"


def test_a_variable_of_the_file_is_no_registry(read):
    """`model`, of which `models` is near, may be an object with a method of that name."""
    other = "import abc\nmodel = object()\n@model.register('x')\ndef f(): ...\nclass A(abc.ABC): ...\nA.register(int)\n"
    assert read(f'{other}@models.register("net"){NET}') == {"net": {"width": ("int", 3)}}


def test_all_faults_of_a_file_are_named(read):
    with pytest.raises(RegistrationError) as error:
        read(
            '@models.register("a")\ndef a(spec, *, width): ...\n@models.register("b")\ndef b(spec, *, depth: int = None): ...\n'
        )
    first = len(HEAD.splitlines()) + 2
    assert str(error.value) == (
        f"model 'a': parameter 'width' has no type; write for example 'width: int = 32' ({read.path}:{first}); "
        f"model 'b': parameter 'depth' must be int. Received: None ({read.path}:{first + 2})"
    )


# --- what types and defaults may be

CONSTANTS = """
WIDTH: int = 64
RATES = (0.1, 2 * WIDTH)
Kind = Literal["a", "b"]
Small = Annotated[int, Ge(1)]
class Color(enum.Enum):
    RED = "red"
    BLUE = 2
"""


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("x: Optional[int] = None", ("int or null", None)),
        ("x: typing.Optional[int] = 1", ("int or null", 1)),
        ("x: Union[int, str] = 1", ("int or str", 1)),
        ("x: List[int] = (1, 2)", ("list of int", [1, 2])),
        ("x: list[int] = [1]", ("list of int", [1])),
        ("x: Sequence[float] = ()", ("list of float", [])),
        ("x: Tuple[int, ...] = (1,)", ("list of int", (1,))),
        ("x: registry.Count = 2", ("int >= 1", 2)),
        ("x: Annotated[int, Ge(1)] = 1", ("int >= 1", 1)),
        ("x: Annotated[float, Gt(0), Le(TOP)] = 1", ("float > 0 and <= 10", 1.0)),
        ("x: int = 4 * 64", ("int", 256)),
        ("x: int = -(2**5 - 1) // 2", ("int", -16)),
        ("x: float = 1 / 4", ("float", 0.25)),
        ("x: int = TOP", ("int", 10)),
        ("x: int = WIDTH + 1", ("int", 65)),
        ("x: Tuple[float, ...] = RATES", ("list of float", (0.1, 128.0))),
        ("x: Kind = 'a'", ("one of a, b", "a")),
        ("x: Small = 1", ("int >= 1", 1)),
        ("x: 'Small | None' = None", ("int >= 1 or null", None)),
        ("x: Path = Path('a/b/')", ("path", "a/b")),
        ("x: Path | None = None", ("path or null", None)),
        ("x: list[Path] = ()", ("list of path", [])),
        ("x: Color = Color.RED", ("one of RED, BLUE", "RED")),
        ("x: Optional[Color] = None", ("one of RED, BLUE or null", None)),
    ],
    ids=lambda text: text if isinstance(text, str) else "",
)
def test_an_option_is_read(option, expected, read):
    head = "TOP: float = 10\nfrom .constants import Color, Kind, RATES, Small, WIDTH\n"
    found = read(f'{head}@models.register("net")\ndef net(spec, *, {option}):\n    """A net."""', constants=CONSTANTS)
    assert found == {"net": {"x": expected}}
    assert type(found["net"]["x"][1]) is type(expected[1])


@pytest.mark.parametrize(
    ("text", "option", "message"),
    [
        (
            "WIDTH = 1\nWIDTH = 2",
            "x: int = WIDTH",
            "cannot be read from the source: 'WIDTH' is not assigned once, to an expression",
        ),
        (
            "WIDTH = 1\nWIDTH += 2",
            "x: int = WIDTH",
            "cannot be read from the source: 'WIDTH' is not assigned once, to an expression",
        ),
        (
            "for WIDTH in (1, 2): ...",
            "x: int = WIDTH",
            "cannot be read from the source: 'WIDTH' is not assigned once, to an expression",
        ),
        ("", "x: int = 1 / 0", "cannot be read from the source: '1 / 0': division by zero"),
        ("", "x: int = 9 ** 9 ** 9", "cannot be read from the source: '9 ** 9 ** 9' is not a literal"),
        ("", "x: str = 'a' * 10**9", "cannot be read from the source: ''a' * 10 ** 9' is not a literal"),
        ("from .nowhere import A", "x: int = A", "cannot be read from the source: 'A' is not a literal"),
        (
            "A = [1, 1]\n" + "\n".join(f"{b} = [{a}, {a}]" for a, b in zip("ABCDEFGHIJ", "BCDEFGHIJK", strict=True)),
            "x: list[int] = K",
            "cannot be read from the source: it has more than 1,000 parts",
        ),
        (
            "",
            "x: PurePath = 'a'",
            "cannot be read from the source: 'PurePath' is not int, float, str, bool, Path, Literal, Enum, Annotated or a list "
            "of these",
        ),
        ("", "name: str = 'a'", "cannot be an option; choose another name"),
        ("", "_x: str = 'a'", "cannot be an option; choose another name"),
    ],
    ids=range(11),
)
def test_what_is_not_understood_is_said(text, option, message, read):
    with pytest.raises(RegistrationError) as error:
        read(f'{text}\n@models.register("net")\ndef net(spec, *, {option}):\n    """A net."""')
    assert f"model 'net': parameter '{option.partition(chr(58))[0]}' {message} ({read.path}:" in str(error.value)


# --- constructors elsewhere

BASE = """
RATE = 0.5
class Base:
    '''A base.

    Args:
        rate: A rate.
    '''
    def __init__(self, spec, *, rate: float = RATE) -> None: ...
class Between(Base): ...
"""


@pytest.mark.parametrize(
    "text",
    [
        "from .base import Base",
        "from .base import Between as Base",
        "from . import base\nBase = base.Base",
        "from .again import Base",
    ],
)
def test_a_base_in_another_file(text, read):
    base = "base.Base" if "Base =" in text else "Base"
    found = read(
        f'{text}\n@models.register("net")\nclass Net({base}):\n    """A net."""', base=BASE, again="from .base import *"
    )
    assert found == {"net": {"rate": ("float", 0.5)}}
    ((_, entry),) = read_source(read.path)
    assert entry.parameters["rate"].doc == "A rate."


def test_a_base_of_another_package(read):
    found = read('from timm.optim import Lion\n@registry.optimizers.register("net")\nclass Net(Lion):\n    """A net."""')
    assert found["net"]["lr"] == ("float", 0.0001)


def test_a_base_that_cannot_be_read_is_refused(read):
    with pytest.raises(
        RegistrationError, match=r"^model 'net': parameter '__init__' cannot be read from the source: the base 'Gone' "
    ):
        read('from .gone import Gone\n@models.register("net")\nclass Net(Gone):\n    """A net."""')


def test_a_dataclass_is_read(read):
    text = """
@dataclass
class Base:
    spec: Any
    limit: ClassVar[int] = 3
    width: int = 8

@models.register("net")
@dataclasses.dataclass(kw_only=True)
class Net(Base):
    '''A net.'''
    sizes: list[int] = field(default_factory=lambda: [1, 2])
    words: list[str] = field(default_factory=list)
    rate: float = field(default=0.1)
    hidden: int = field(init=False, default=1)
"""
    assert read(text) == {
        "net": {
            "width": ("int", 8),
            "sizes": ("list of int", [1, 2]),
            "words": ("list of str", []),
            "rate": ("float", 0.1),
        }
    }


# --- what is imported is what was read


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("spec, *, depth: int = 1", "parameter 'depth' is not in the source, and in the signature when imported"),
        ("spec, *, width: int = 4", "the default of 'width' is 3 in the source and 4 when imported"),
        ("spec", "parameter 'width' is in the source, and not in the signature when imported"),
    ],
)
def test_a_decorator_that_changes_the_signature_is_refused(signature, message, tmp_path):
    (tmp_path / "plugins").mkdir()
    change = f"def change(function):\n    def changed({signature}): ...\n    return changed\n"
    text = f"from dlframe.registry import models\n{change}\n@models.register('net')\n@change{NET}"
    (tmp_path / "plugins" / "mine.py").write_text(text)
    done = forked.dlframe("model=net", "tracking=none", cwd=tmp_path)
    assert done.code == 2
    assert message in done.error
    assert len(done.error.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


CELL = """
@models.register("mine")
class Mine:
    '''Mine.'''

    def __init__(self, spec, *, {name}: int = {value}):
        self.got = {name}
"""


def test_a_class_that_is_typed_again_replaces_the_one_before(tmp_path):
    cells = [CELL.format(name=name, value=value) for name, value in (("width", 1), ("depth", 2))]
    code = "from dlframe.registry import models\n"
    code += "".join(f"exec(compile({cell!r}, '<cell {number}>', 'exec'))\n" for number, cell in enumerate(cells))
    code += "print(list(models.get('mine').parameters), models.build({'name': 'mine'}, spec=0).got)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "['depth'] 2\n"


LISTED = """
@models.register("listed")
def listed(spec, *, a: list[int] = (1, 2), b: Tuple[int, ...] = (3,)):
    '''A list and a tuple.'''
    return a, b
"""


def test_a_list_arrives_as_a_list(read):
    read(LISTED)
    spec = importlib.util.spec_from_file_location("listed_plugin", read.path)
    assert spec
    assert spec.loader
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        first = models.build({"name": "listed"}, spec=0)
        assert first == ([1, 2], (3,))
        first[0].append(9)
        assert models.build({"name": "listed", "b": [4]}, spec=0) == ([1, 2], (4,))
    finally:
        models.entries.pop("listed", None)


@pytest.mark.parametrize(
    "file", [f for folder in FOLDERS for f in sorted((PACKAGE / folder).glob("[!_]*.py"))], ids=lambda f: f.stem
)
def test_files_of_dlframe_are_read_alike_in_brief(file):
    def read(brief: bool) -> list[str]:
        return [f"{registry.group} {entry!r}" for registry, entry in read_source(file, brief=brief)]

    assert read(brief=True) == read(brief=False)


CONVERTED = """
class Color(enum.Enum):
    RED = "red"
    BLUE = 2

@models.register("converted")
def converted(spec, *, path: Path = Path("~/a"), also: list[Path] = (), color: Color = Color.RED, other: Color | None = None):
    '''A path and a member.'''
    return path, also, color, other
"""


def test_a_path_and_a_member_of_an_enum_arrive_as_such(read, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    read(CONVERTED)
    spec = importlib.util.spec_from_file_location("converted_plugin", read.path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        red, blue = module.Color
        assert models.build({"name": "converted"}, spec=0) == (Path("/home/me/a"), [], red, None)
        chosen = {"name": "converted", "path": "b/", "also": ["~/c"], "other": "BLUE"}
        assert models.get("converted").check(chosen) == {"path": "b", "also": ["/home/me/c"], "color": "RED", "other": "BLUE"}
        assert models.build(chosen, spec=0) == (Path("b"), [Path("/home/me/c")], red, blue)
    finally:
        models.entries.pop("converted", None)
