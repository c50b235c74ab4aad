"""What holds for any input: readers of configs and of a run's files give a value or a `DlframeError`, and what was written."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlframe.config import check, load, load_saved
from dlframe.config.settings import settings as options
from dlframe.config.yaml_files import read
from dlframe.data.digits import digits
from dlframe.registry import GROUPS, Entry, Registry, plugins, read_source
from dlframe.runs import journal
from dlframe.runs.exported_model import read_spec
from dlframe.runs.run_directory import check_data, read_result, write_result
from dlframe.storage.decoded import decoded
from dlframe.studies.space import space_of
from dlframe.tracking import UploadState
from dlframe.types import DlframeError, Estimate, Result, nearest

plugins.discover()
DIGITS = digits()
VALUES = yaml.safe_load(json.dumps(load(["model=mlp"]).values))
"""A config as it is saved."""

anything = settings(derandomize=True, deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
often = settings(anything, max_examples=400)
seldom = settings(anything, max_examples=25)
"""Of what Hydra takes a tenth of a second for."""

numbers = st.integers() | st.floats() | st.sampled_from([2**63, -(2**63), 10**400, 0x7FFFFFFF])
leaves = st.none() | st.booleans() | numbers | st.text(max_size=20)
trees = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
keys = st.sampled_from(
    ["seed", "epochs", "name", "model.width", "optimizer.lr", "data.path", "clip", "tracking.uri", "callback"]
)
texts = st.text(st.characters(codec="utf-8"), max_size=30)
"""What a command line and a file can hold."""


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder without plugins and configs of one's own, to stand in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("folder"))
        patch.setenv("DLFRAME_DATA", str(Path.cwd() / "cache"))
        yield


def reads(call: Callable[[], Any]) -> Any:
    """The value, or None after a `DlframeError` of one line; any other error goes on."""
    try:
        return call()
    except DlframeError as error:
        said = str(error)
    assert said.splitlines() == [said]
    return None


def write(name: str, content: str | bytes) -> Path:
    """A file in a folder of its own."""
    file = Path(tempfile.mkdtemp(dir=".")) / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return file


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


# --- configs


@seldom
@given(st.lists(texts, max_size=3))
def test_any_command_line(arguments: list[str]) -> None:
    reads(lambda: load(arguments))
    reads(lambda: space_of(arguments, default=False))


@seldom
@given(keys, texts)
def test_any_value_of_an_option(key: str, value: str) -> None:
    reads(lambda: load(["model=mlp", f"{key}={value}"]))


@anything
@given(keys, trees)
def test_any_value_in_a_config(key: str, value: Any) -> None:
    values = deepcopy(VALUES)
    *path, last = key.split(".")
    (values[path[0]] if path else values)[last] = value
    reads(lambda: check(values))


@often
@given(st.binary(max_size=200) | texts)
def test_any_yaml_file(content: bytes | str) -> None:
    found = reads(lambda: read(write("x.yaml", content)))
    assert found is None or isinstance(found, dict)


@often
@given(trees)
def test_any_content_of_a_yaml_file(content: Any) -> None:
    try:
        text = yaml.safe_dump(content, allow_unicode=True)
    except (yaml.YAMLError, UnicodeError, ValueError):
        return
    reads(lambda: load_saved(write("config.yaml", text)))


def entries(group: str) -> list[Entry]:
    return [entry for entry in GROUPS[group] if entry.origin == "dlframe"]


@seldom
@given(st.data())
def test_what_a_run_saves_is_read_back(data: st.DataObject) -> None:
    """Any values that the options take, of any model and optimizer."""
    overrides: dict[str, Any] = {}
    models = [entry for entry in entries("model") if "class" in entry.facts["targets"] and "image" in entry.facts["inputs"]]
    for group, among in (("model", models), ("optimizer", entries("optimizer")), ("run", [options.get("run")])):
        entry = data.draw(st.sampled_from(among))
        prefix = "" if group == "run" else f"{group}."
        overrides |= {} if group == "run" else {group: entry.name}
        for name, parameter in entry.parameters.items():
            if parameter.rule.startswith(("int", "float")) and data.draw(st.booleans()):
                bare = data.draw(st.integers(-3, 10**6) if parameter.rule.startswith("int") else st.floats(-1, 2))
                overrides[prefix + name] = bare
    config = reads(lambda: load([f"{key}={value}" for key, value in overrides.items()]))
    if config is None:
        return
    saved = load_saved(write("config.yaml", yaml.safe_dump(plain(config.values), sort_keys=False, allow_unicode=True)))
    assert saved.values == config.values


@seldom
@given(texts.filter(lambda text: text.isprintable()))
def test_a_text_is_what_was_typed(text: str) -> None:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    config = reads(lambda: load(["model=mlp", f"run_name={text}"]))
    if config is None:
        assert "${" in text or text in ("null", "???")
        return
    assert config.run.run_name == (text[1:-1] if quoted else text)
    saved = yaml.safe_dump({**VALUES, "run_name": config.run.run_name}, allow_unicode=True)
    assert load_saved(write("config.yaml", saved)).run.run_name == config.run.run_name


@anything
@given(texts, st.lists(texts, max_size=20))
def test_a_hint_names_what_there_is(name: str, names: list[str]) -> None:
    hint = nearest(name, names)
    assert not hint or any(known in hint for known in names)


# --- plugins

words = st.sampled_from(
    ["@models.register('x')\n", "class X:\n", "def x(*, a: int = 1, b: Literal[", "Annotated[", "    ", ")"]
)


@anything
@given(st.lists(words | texts, max_size=12).map("".join) | st.binary(max_size=80))
def test_any_plugin(content: str | bytes) -> None:
    found = reads(lambda: read_source(write("x.py", content)))
    assert found is None or all(isinstance(registry, Registry) for registry, _ in found)


# --- what lies in a run's folder


def a_file(name: str) -> st.SearchStrategy[Path]:
    """A file with bytes of any kind, JSON of any kind, or JSON that is cut."""
    texts_of_json = trees.map(lambda tree: json.dumps(tree).encode())
    cut = st.tuples(texts_of_json, st.integers(0, 40)).map(lambda pair: pair[0][: pair[1]])
    return (st.binary(max_size=80) | texts_of_json | cut).map(lambda content: write(name, content))


@anything
@given(a_file("result.json"))
def test_any_result(file: Path) -> None:
    assert reads(lambda: read_result(file.parent)) is None


@anything
@given(a_file("data.json"))
def test_any_facts_of_data(file: Path) -> None:
    with pytest.raises(DlframeError):
        check_data(file.parent, DIGITS)


@anything
@given(a_file("tracking.json"))
def test_any_position(file: Path) -> None:
    found = reads(lambda: UploadState.load(file.parent))
    if found:
        found.save(file.parent)
        assert UploadState.load(file.parent) == found


@anything
@given(a_file("spec.json"))
def test_any_spec(file: Path) -> None:
    reads(lambda: read_spec(file))


finite = st.floats(allow_nan=False)


@anything
@given(
    st.dictionaries(st.text("abc/_", min_size=1), finite, min_size=1),
    finite,
    st.integers(1),
    st.lists(texts.filter(str.isprintable)),
)
def test_a_result_is_read_back(metrics: dict[str, float], seconds: float, samples: int, overrides: list[str]) -> None:
    folder = Path(tempfile.mkdtemp(dir="."))
    headline = min(metrics)
    interval, notes = Estimate(0.5, 0.1, 0.9, 13, 500), ["a note"]
    result = Result(folder, headline, metrics, interval, ("mean", metrics), samples, {}, seconds, tuple(overrides), notes=notes)
    with_journal = journal.Journal(folder)
    write_result(result, folder, with_journal)
    with_journal.close()
    again = read_result(folder)
    again.overrides = tuple(again.overrides)
    assert again == result


record = st.fixed_dictionaries(
    {"kind": st.sampled_from(["start", "metrics", "artifact", "end"]) | leaves, "time": leaves, "step": leaves},
    optional={"values": trees, "status": trees, "uri": trees},
)


@often
@given(st.lists(record.map(lambda r: json.dumps(r).encode()) | st.binary(max_size=40), max_size=6), st.integers(0, 300))
def test_any_journal(lines: list[bytes], offset: int) -> None:
    folder = write(journal.FILE, b"\n".join(lines) + b"\n").parent
    records = journal.read(folder)
    assert all(isinstance(r["kind"], str) and isinstance(r["time"], int) for r in records)
    assert all(isinstance(value, float) for r in records if r["kind"] == "metrics" for value in r["values"].values())
    assert all(math.isfinite(step) for points in journal.history(folder).values() for step, _ in points)
    assert isinstance(journal.ended(folder), str)
    ends = [end for _, end in journal.follow(folder)]
    assert ends == sorted(ends)
    for end in ends:  # a reader can go on from where another stopped
        assert [e for _, e in journal.follow(folder, end)] == [e for e in ends if e > end]
    list(journal.follow(folder, offset))


@anything
@given(st.lists(st.tuples(st.integers(0, 2**62), st.dictionaries(st.text(max_size=5), st.floats(), max_size=3)), max_size=6))
def test_a_journal_is_read_back(rows: list[tuple[int, dict[str, float]]]) -> None:
    folder = Path(tempfile.mkdtemp(dir="."))
    written = journal.Journal(folder)
    for step, values in rows:
        written.metrics(step, values)
    written.close()
    again = [(r["step"], r["values"]) for r in journal.read(folder)]
    assert repr(again) == repr(rows)  # NaN is not equal to itself


# --- what was decoded


@anything
@given(st.binary(max_size=60) | trees.map(lambda tree: json.dumps(tree).encode()))
def test_any_facts_of_the_cache(content: bytes) -> None:
    """What was decoded comes back, from the cache or anew."""

    def build(folder: Path) -> dict[str, Any]:
        np.save(folder / "a.npy", np.arange(3))
        return {"b": 1}

    (Path("cache") / "decoded" / "toy").mkdir(parents=True, exist_ok=True)
    (Path("cache") / "decoded" / "toy" / "facts.json").write_bytes(content)
    arrays, facts = decoded("toy", "key", build, lambda arrays, facts: (arrays["a"], facts["b"]))
    assert (arrays.tolist(), facts) == ([0, 1, 2], 1)
