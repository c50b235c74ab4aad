"""YAML is read as the command line is; files in sub-folders, by their path, and whole configs."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from dlframe.config import load, names
from dlframe.config.overrides import value_of
from dlframe.config.yaml_files import read, written
from dlframe.registry import plugins
from dlframe.registry.parameters import Parameter
from dlframe.types import ConfigError

plugins.discover()
SEEN = st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Zl", "Zp"])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63)
VALUES = st.text(SEEN, max_size=8) | NUMBERS | st.booleans() | st.none()
NUMBER = Parameter("x", float | int | bool | None, None)


@pytest.fixture(autouse=True)
def an_empty_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def conf(path: str, text: str) -> Path:
    """A file below ./conf."""
    file = Path("conf", path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("plain", "value"),
    [
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("010", "010"),
        ("0x1F", "0x1F"),
        ("0b1", "0b1"),
        ("yes", "yes"),
        ("Off", "Off"),
        ("y", "y"),
        ("2020-01-02", "2020-01-02"),
        ("1_000", 1000),
        ("1e-5", 1e-5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("True", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("-0", 0),
        ("'1'", "1"),
    ],
)
def test_a_plain_value_is_no_surprise(plain, value):
    found = read(conf("x.yaml", f"x: {plain}\n"))["x"]
    assert (found, type(found)) == (value, type(value))


@hypothesis.given(st.text("0123456789_.eE+-:xinfaNtruyso", min_size=1, max_size=6))
@hypothesis.settings(deadline=None, max_examples=200)
def test_a_plain_value_is_read_as_on_the_command_line(plain):
    file = conf("x.yaml", f"x: {plain}\n")
    try:
        found = read(file)["x"]
        typed = value_of("x", plain, [NUMBER])
    except ConfigError:
        return  # not plain: "-", "x: y:"
    assert repr(found) == repr(typed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run_name: 2020_01\n", "run_name: must be str. Received: 202001. To have it as text in a file, quote it."),
        ("compile: yes\n", "compile: must be bool or auto. Received: 'yes'. Did you mean true?"),
        ("dry_run: yes\n", "dry_run: must be bool. Received: 'yes'. Did you mean true?"),
        ("compile: atuo\n", "compile: must be bool or auto. Received: 'atuo'. Did you mean 'auto'?"),
        ("on_nan: 3\n", "on_nan: must be one of raise, skip. Received: 3. To have it as text in a file, quote it."),
    ],
)
def test_a_value_of_another_type_says_what_is_meant(text, message):
    conf("experiment/x.yaml", text)
    with pytest.raises(ConfigError) as error:
        load(["experiment=x"])
    assert str(error.value) == f"conf/experiment/x.yaml:1: {message}"


def test_a_key_that_is_given_twice_is_refused():
    conf("experiment/x.yaml", "epochs: 1\nepochs: 2\n")
    with pytest.raises(ConfigError, match=r"^conf/experiment/x\.yaml:2: cannot be read as YAML: found duplicate key epochs\.$"):
        load(["experiment=x"])


def test_files_may_end_in_yml_and_be_in_folders():
    conf("experiment/ablation/narrow.yaml", "model:\n  width: 8\n")
    conf("experiment/other.yml", "epochs: 3\n")
    conf("model/big/wide.yaml", "defaults: [cnn]\nwidth: 96\n")
    assert {"ablation/narrow", "other"} <= names("experiment").keys()
    assert load(["experiment=ablation/narrow"]).values["model"]["width"] == 8
    assert load(["experiment=other"]).run.epochs == 3
    assert load(["experiment=null"]).values == load([]).values
    assert load(["model=big/wide"]).values["model"] == load(["model=cnn", "model.width=96"]).values["model"]
    conf("experiment/other.yaml", "epochs: 4\n")
    with pytest.raises(ConfigError, match=r"^conf/experiment/other\.yml: other\.yaml has the same name\. Rename one\.$"):
        load(["experiment=other"])


def test_an_experiment_may_be_the_path_of_a_file():
    Path("mine").mkdir()
    Path("mine/x.yml").write_text("defaults:\n  - override /model: rnn\nepochs: 3\n")
    config = load(["experiment=mine/x.yml", "seed=1"])
    assert (config.run.epochs, config.run.seed, config.values["model"]["name"]) == (3, 1, "rnn")
    Path("mine/x.yml").write_text("\nepochs: 0\n")
    with pytest.raises(ConfigError, match=r"^mine/x\.yml:2: epochs: must be int >= 1\."):
        load(["experiment=mine/x.yml"])
    with pytest.raises(ConfigError, match=r"^experiment=mine/y\.yml: no such experiment\."):
        load(["experiment=mine/y.yml"])


def test_a_config_that_a_run_saved_is_an_experiment():
    before = load(["model=rnn", "augmentation=[flip]", "augmentation.flip.p=0.25", "trainer=debug", "run_name=2020_01"])
    plain = yaml.safe_load(yaml.safe_dump({**before.values, "resume": "auto", "plugin_paths": []}))
    file = conf("experiment/again.yaml", yaml.safe_dump(plain))
    for experiment in ("again", str(file)):
        assert load([f"experiment={experiment}"]).values == before.values
    changed = load(["experiment=again", "model=cnn", "augmentation=[]", "epochs=2"])
    assert changed.values["model"] == load(["model=cnn"]).values["model"]
    assert (changed.run.epochs, changed.values["augmentation"], changed.trainer) == (2, {}, before.trainer)
    file.write_text(yaml.safe_dump({**plain, "plugin_paths": ["mine.py"]}))
    with pytest.raises(ConfigError, match=r"plugin_paths: code is named on the command line only, never in a file\.$"):
        load(["experiment=again"])


def test_a_list_of_components_is_no_part_of_a_defaults_list():
    conf("experiment/x.yaml", "defaults:\n  - override /augmentation: [flip]\n")
    with pytest.raises(ConfigError, match=r"override /augmentation: .* Write: augmentation: \[NAME\]$"):
        load(["experiment=x"])


@hypothesis.given(VALUES)
@hypothesis.example("1e3")
@hypothesis.example("010")
@hypothesis.example("1:30")
@hypothesis.example("yes")
@hypothesis.settings(deadline=None, max_examples=100)
def test_what_is_written_is_read_again(value):
    if isinstance(value, str) and "${" in value:
        return
    found = read(conf("x.yaml", written({"x": (value, {"y": value})})))["x"]
    assert (found, type(found[0])) == ([value, {"y": value}], type(value))
