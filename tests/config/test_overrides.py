"""Text of the command line: what is split, what arrives, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from dlframe.config import load
from dlframe.config.overrides import Sweep, assignments_of, is_text, quoted, split, sweep_of, typed, unquoted, value_of
from dlframe.config.settings import settings
from dlframe.registry import GROUPS, plugins
from dlframe.registry.parameters import Parameter
from dlframe.types import ConfigError

plugins.discover()


@pytest.fixture(autouse=True)
def an_empty_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("raw", "texts"),
    [
        ("été,hiver", ["été", "hiver"]),
        ("李明,王芳", ["李明", "王芳"]),
        ("a#1,b&2,~c,d=e,f;g,!h", ["a#1", "b&2", "~c", "d=e", "f;g", "!h"]),
        ("2020_01,1e3,1.50,my run,NULL,C:\\a", ["2020_01", "1e3", "1.50", "my run", "NULL", "C:\\a"]),
        ("[a,b],[c]", ["[a,b]", "[c]"]),
        ("(a,b),{c,[d,e]}", ["(a,b)", "{c,[d,e]}"]),
        ("'a,b',\"c,d\"", ["'a,b'", '"c,d"']),
        ("it's,rock 'n' roll", ["it's", "rock 'n' roll"]),
        ("'it's',b", ["'it's'", "b"]),
        ("a(b,c", ["a(b", "c"]),
        ("a),b]", ["a)", "b]"]),
        ("([a),b]", ["([a)", "b]"]),
        ("${a},b", ["${a}", "b"]),
        ("a,,b,", ["a", "", "b", ""]),
        (" a, b ", ["a", "b"]),
        (" a ", [" a "]),
        ("", [""]),
    ],
)
def test_a_text_is_split_at_commas_outside_quotes_and_brackets(raw, texts):
    assert split(raw) == texts


@hypothesis.given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters=",'\"()[]{}"), min_size=1), min_size=2))
def test_what_has_no_sign_of_the_grammar_is_split_as_it_stands(texts):
    assert split(",".join(texts)) == [text.strip() for text in texts]


@hypothesis.given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])))
def test_a_text_can_be_typed_as_one_value(text):
    way = quoted(text)
    if "'" not in text or '"' not in text:
        assert unquoted(way) == text
        assert sweep_of("run_name", way) is None


@pytest.mark.parametrize(
    ("raw", "sweep"),
    [
        ("choice(a#1,'b,c')", Sweep(("a#1", "'b,c'"))),
        ("choice(été)", Sweep(("été",))),
        ("tag(log,choice(1,2))", Sweep(("1", "2"), frozenset({"log"}))),
        ("range(3)", Sweep(("0", "1", "2"), step=1.0)),
        ("range(0,10,5)", Sweep(("0", "5"), step=5.0)),
        ("sort(3,1,2)", Sweep(("1", "2", "3"))),
        ("interval(0.1,1)", Sweep(low=0.1, high=1.0)),
        ("tag(log,interval(1,10))", Sweep(tags=frozenset({"log"}), low=1.0, high=10.0)),
        ("sort([2,1])", None),
        ("choices(1,2)", None),
        ("f(a,b)", None),
        ("3", None),
    ],
)
def test_the_functions_of_a_sweep(raw, sweep):
    assert sweep_of("seed", raw) == sweep


@pytest.mark.parametrize(
    "raw", ["range(x)", "interval(1)", "sort(été,b)", "shuffle(", "range()", "glob()", "tag(log,1)", "range(1,9,0)"]
)
def test_no_exception_of_the_grammar_reaches_the_user(raw):
    if raw == "shuffle(":
        assert sweep_of("run_name", raw) is None
        return
    for key in ("seed", "run_name", "model"):
        with pytest.raises(ConfigError, match=rf"^{key}: "):
            sweep_of(key, raw)


def test_a_pattern_chooses_among_entries_and_experiments():
    conf = Path("conf/experiment")
    conf.mkdir(parents=True)
    for name in ("mine_a", "mine_b"):
        (conf / f"{name}.yaml").write_text("epochs: 3\n")
    assert sweep_of("experiment", "glob(mine*)") == Sweep(("mine_a", "mine_b"), pattern="glob(mine*)")
    assert {"cnn", "mlp"} <= {*(sweep_of("model", "glob(*)") or Sweep()).texts}
    assert (sweep_of("model", "glob([c*,m*],exclude=m*)") or Sweep()).texts[0].startswith("c")
    with pytest.raises(
        ConfigError, match=r"^model: no model matches\. Received: glob\(zz\*\)\. See: python -m dlframe list model$"
    ):
        sweep_of("model", "glob(zz*)")
    with pytest.raises(ConfigError, match=r"^optimizer\.lr: glob\(\) chooses among the names of a group\."):
        sweep_of("optimizer.lr", "glob(*)")


@pytest.mark.parametrize(
    ("override", "command"),
    [
        ("seed=0,1", "-m seed=0,1"),
        ("model=cnn,mlp", "-m model=cnn,mlp"),
        ("model=glob(*)", "-m 'model=glob(*)'"),
        ("optimizer.lr=interval(0.1,1)", "sweep 'optimizer.lr=interval(0.1,1)'"),
    ],
)
def test_several_values_need_a_command_that_takes_them(override, command):
    with pytest.raises(ConfigError) as error:
        load([override])
    assert str(error.value).endswith(f"Try: python -m dlframe {command}")


@pytest.mark.parametrize("text", ["2020_01", "1e3", "my run", "010", "yes", "a,b", "choice(a,b)", "'a','b'", "1:30", "ü=#&~"])
def test_a_text_arrives_as_it_was_typed(text):
    assert load([f"run_name={text}"]).run.run_name == text


def test_a_list_of_texts_arrives_as_it_was_typed():
    parameter = Parameter("columns", tuple[str, ...], ())
    assert value_of("x", "[2020_01,1e3, my column,'a,b',null]", [parameter]) == ["2020_01", "1e3", "my column", "a,b", None]
    assert value_of("x", "[]", [parameter]) == []
    assert value_of("x", "[1,2.5,[a]]", []) == "[1,2.5,[a]]"
    assert value_of("x", "[1,2.5]", [Parameter("x", tuple[float, ...])]) == [1, 2.5]


def test_the_type_is_that_of_what_is_chosen():
    """An option is text for one data set, and a number for another."""
    kinds = {is_text(entry.parameters["images"].annotation) for entry in GROUPS["data"] if "images" in entry.parameters}
    assert kinds == {True, False}
    for name, value in (("detection_folder", "2020_01"), ("composed_digits", 202001)):
        given = {"data.images": "2020_01"}
        assert [*assignments_of(given, {"data": {"name": name}})] == [("data.images", value)]
    assert load(["networks.model.lr=1e-3"]).values["networks"] == {"model": {"lr": 0.001}}


@pytest.mark.parametrize("entry", [settings.get(name) for name in ("run", "trainer", "checkpoint")], ids=lambda e: e.name)
def test_a_default_is_typed_and_read_again(entry):
    for name, parameter in entry.parameters.items():
        assert parameter.check(value_of(name, typed(parameter.default), [parameter]), name) == parameter.default
