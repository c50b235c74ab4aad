"""What a config is composed of, which place beats which, and that it comes back from its file as it was."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from dlframe.config import load, load_options, load_saved
from dlframe.config.settings import settings
from dlframe.config.yaml_files import written
from dlframe.jobs.evaluate import Options
from dlframe.registry import GROUPS, plugins
from dlframe.types import ConfigError

plugins.discover()


@pytest.fixture(autouse=True)
def an_empty_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def conf(path: str, text: str) -> None:
    """A file below ./conf."""
    file = Path("conf", path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


# --- which beats which


def test_a_default_is_the_signature_s():
    values = load([]).values
    entry = GROUPS["model"].get(values["model"]["name"])
    assert values["model"] == {"name": "cnn"} | {name: p.default for name, p in entry.parameters.items()}
    assert values["epochs"] == settings.get("run").parameters["epochs"].default


def test_a_recipe_beats_the_default_and_an_experiment_the_recipe_and_the_command_line_both():
    conf(
        "task/thing.yaml",
        "defaults:\n  - /task/class@task: classification\n  - /data: digits\n  - /model: mlp\nepochs: 3\nseed: 3\n",
    )
    conf("experiment/x.yaml", "defaults:\n  - override /model: rnn\nepochs: 4\n")
    assert load(["task=thing"]).run.epochs == 3
    config = load(["task=thing", "experiment=x"])
    assert (config.run.epochs, config.run.seed, config.values["model"]["name"]) == (4, 3, "rnn")
    config = load(["experiment=x", "epochs=5", "model=cnn", "task=thing"])
    assert (config.run.epochs, config.run.seed, config.values["model"]["name"]) == (5, 3, "cnn")


def test_the_user_s_conf_beats_the_packaged_one():
    packaged = load(["trainer=debug"])
    assert packaged.trainer.limit_batches == 3
    conf("trainer/debug.yaml", "limit_batches: 7\n")
    config = load(["trainer=debug"])
    assert (config.trainer.limit_batches, config.trainer.deterministic) == (7, False)


def test_the_user_s_conf_may_hold_the_primary_config():
    conf(
        "config.yaml", "defaults:\n  - _self_\n  - task: forecasting\n  - optimizer: sgd\n  - scheduler: constant\nepochs: 9\n"
    )
    config = load([])
    assert config.values["optimizer"]["name"] == "sgd"
    assert config.values["data"]["name"] == "sp500"
    assert config.run.epochs == 9


def test_what_the_user_s_primary_config_leaves_out_is_told():
    conf("config.yaml", "epochs: 3\n")
    with pytest.raises(ConfigError, match=r"^task: none is chosen\. Try: task=classification$"):
        load([])
    with pytest.raises(ConfigError, match=r"^conf/config\.yaml: its defaults list has no 'task'\. Add: - task: null$"):
        load(["task=forecasting"])


def test_a_variant_is_an_entry_with_other_values():
    conf("model/wide.yaml", "defaults:\n  - cnn\nwidth: 96\n")
    config = load(["model=wide"])
    assert (config.values["model"]["name"], config.values["model"]["width"]) == ("cnn", 96)
    assert load(["model=wide", "model.width=5"]).values["model"]["width"] == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cnn", "would hide model=cnn, which is registered. Give the file another name."),
        ("wide", "must say of which model it is a variant. Begin with: defaults: [airbench]"),
    ],
)
def test_a_variant_says_of_what_and_hides_nothing(name, message):
    conf(f"model/{name}.yaml", "width: 3\n")
    with pytest.raises(ConfigError) as error:
        load([f"model={name}"])
    assert str(error.value) == f"conf/model/{name}.yaml: {message}"


def test_what_files_set_for_one_component_is_not_for_another():
    assert load(["task=object_detection"]).values["optimizer"]["lr"] == 0.003
    other = load(["task=object_detection", "optimizer=sgd"])
    assert other.values["optimizer"] == load(["optimizer=sgd"]).values["optimizer"]
    (note,) = other.notes
    assert note.startswith("optimizer=sgd has defaults of its own; left out, as set for adamw: optimizer.lr=0.003 (")
    assert "object_detection.yaml:" in note
    assert load(["task=object_detection", "optimizer=adamw"]).values["optimizer"]["lr"] == 0.003
    typed = load(["task=object_detection", "optimizer=sgd", "optimizer.lr=0.2"])
    assert (typed.values["optimizer"]["lr"], typed.notes) == (0.2, ())
    conf("experiment/x.yaml", "defaults:\n  - override /model: rnn\nmodel:\n  bidirectional: true\noptimizer:\n  lr: 0.5\n")
    assert load(["experiment=x"]).values["model"]["bidirectional"]
    found = load(["experiment=x", "model=cnn"])
    assert (found.values["model"]["name"], found.values["optimizer"]["lr"]) == ("cnn", 0.5)
    assert "model.bidirectional=True (conf/experiment/x.yaml:4)" in found.notes[0]
    conf("optimizer/quick.yaml", "name: sgd\nlr: 0.7\n")
    assert load(["experiment=x", "optimizer=quick"]).values["optimizer"]["lr"] == 0.5


def test_a_model_without_networks_has_one_epoch():
    assert load(["model=lda"]).run.epochs == 1
    assert load(["task=fraud_detection", "model=boosting"]).run.epochs == 1
    assert load(["model=lda", "epochs=3"]).run.epochs == 3
    conf("experiment/x.yaml", "defaults:\n  - override /model: lda\nepochs: 2\n")
    assert load(["experiment=x"]).run.epochs == 2
    assert load(["experiment=x", "model=cnn"]).run.epochs == 2
    assert load([]).run.epochs == settings.get("run").parameters["epochs"].default


def test_a_run_that_goes_on_keeps_its_epochs_and_options_whatever_the_presets_say():
    for name, typed in {
        "a": ["model=lda", "epochs=3"],
        "b": ["task=object_detection", "optimizer=sgd", "optimizer.lr=0.2"],
    }.items():
        saved = load(typed)
        Path(name).mkdir()
        Path(name, "config.yaml").write_text(written(saved.values))
        again = load([f"resume={name}"])
        assert again.values == {**saved.values, "resume": name}
        assert again.notes == ()


def test_the_folder_in_which_files_lie_is_not_taken_for_a_group(tmp_path):
    plugin = tmp_path / "task" / "optimizer"
    (plugin / "conf" / "experiment").mkdir(parents=True)
    (plugin / "own.py").write_text("")
    text = "defaults:\n  - override /model: lda\nepochs: 2\noptimizer:\n  lr: 0.5\n"
    (plugin / "conf" / "experiment" / "fitted.yaml").write_text(text)
    config = load(["experiment=fitted", "optimizer=sgd", f"plugin_paths=[{plugin}]"])
    assert config.run.epochs == 2
    assert config.values["optimizer"] == load(["optimizer=sgd"]).values["optimizer"]
    assert len(config.notes) == 1


def test_an_experiment_needs_no_package_line():
    for name, head in (("a", ""), ("b", "# @package _global_\n")):
        conf(f"experiment/{name}.yaml", f"{head}epochs: 3\nmodel:\n  width: 8\n")
    left, right = (load([f"experiment={name}"]) for name in "ab")
    assert left.values == right.values
    assert (left.run.epochs, left.values["model"]["width"]) == (3, 8)


def test_of_two_values_for_one_key_the_last_counts():
    config = load(["seed=1", "model=rnn", "+seed=2", "model=cnn"])
    assert (config.run.seed, config.values["model"]["name"]) == (2, "cnn")
    assert config.overrides == ("seed=2", "model=cnn")


def test_the_place_named_is_in_the_file_that_was_read():
    conf("experiment/a.yaml", "epochs: 0\n")
    conf("experiment/b.yaml", "\nepochs: 0\n")
    with pytest.raises(ConfigError, match=r"^conf/experiment/b\.yaml:2: epochs: must be int >= 1\. Received: 0\.$"):
        load(["experiment=b"])
    with pytest.raises(ConfigError, match=r"^epochs: must be int >= 1\. Received: -1\.$"):
        load(["experiment=b", "epochs=-1"])


# --- lists, null, references


def test_lists_keep_their_order_and_their_options():
    config = load(["augmentation=[flip,crop]", "augmentation.crop.padding=2"])
    assert list(config.values["augmentation"]) == ["flip", "crop"]
    assert list(load(["augmentation=[crop,flip]"]).values["augmentation"]) == ["crop", "flip"]
    assert config.values["augmentation"]["crop"]["padding"] == 2


@pytest.mark.parametrize("text", ["augmentation: [crop, flip]\n", "augmentation:\n  crop: {padding: 2}\n  flip:\n"])
def test_a_yaml_may_choose_a_list(text):
    conf("experiment/x.yaml", text)
    assert list(load(["experiment=x"]).values["augmentation"]) == ["crop", "flip"]
    config = load(["experiment=x", "augmentation=[flip,crop]"])
    assert list(config.values["augmentation"]) == ["flip", "crop"]
    assert config.values["augmentation"]["crop"]["padding"] == (2 if "padding" in text else None)
    assert load(["experiment=x", "augmentation=[]"]).values["augmentation"] == {}


@pytest.mark.parametrize("value", ["[]", "null"])
def test_a_list_may_be_empty(value):
    assert load([f"augmentation={value}"]).values["augmentation"] == {}


def test_null_is_a_value_where_the_signature_has_it():
    conf("experiment/x.yaml", "gradient_clip_val: 1.0\nlabels_per_class: 3\n")
    config = load(["experiment=x", "gradient_clip_val=null"])
    assert (config.run.gradient_clip_val, config.run.labels_per_class) == (None, 3)


def test_a_reference_names_another_option_be_it_a_default():
    config = load(["epochs=7", "seed=${epochs}", "model.width=${model.depth}", "run_name=${model.name}-${data.name}"])
    assert config.run.seed == 7
    assert (
        config.values["model"]["width"]
        == config.values["model"]["depth"]
        == GROUPS["model"].get("cnn").parameters["depth"].default
    )
    assert config.run.run_name == "cnn-digits"


def test_a_reference_in_a_yaml_sees_the_command_line():
    conf("experiment/x.yaml", "seed: ${epochs}\n")
    assert load(["experiment=x", "epochs=11"]).run.seed == 11


@pytest.mark.parametrize(
    "text", ["a b", "a=b", "it's", '"quoted" inside', "a,b", "[a", "größe/ü", "a\\b", "${", "#x", "~", "-1", "1e3", "true"]
)
def test_text_is_taken_as_it_stands(text):
    if text == "${":
        with pytest.raises(ConfigError, match=r"^run_name: .* Received: '\$\{'\.$"):
            load([f"run_name={text}"])
    else:
        assert load([f"run_name={text}"]).run.run_name == text
        assert text == "~" or load([f"run_name={text}", f"runs={text}"]).run.runs == text


def test_quotes_around_a_text_are_taken_off():
    assert load(["run_name='a,b'"]).run.run_name == load(['run_name="a,b"']).run.run_name == "a,b"


# --- paths


def test_a_path_has_one_form(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    conf("experiment/x.yaml", "runs: runs/\n")
    assert load(["experiment=x"]).run.runs == "runs"
    config = load(["runs=~/here/", "data=series", "data.path=~/a.csv/", "plugin_paths=[]", "resume=./auto"])
    assert (config.run.runs, config.values["data"]["path"], config.run.resume) == ("/home/me/here", "/home/me/a.csv", "./auto")
    assert load_options("test", Options, ["checkpoint=~/x"]).checkpoint == "/home/me/x"
    assert load(["runs=./~x"]).run.runs == "./~x"


@pytest.mark.parametrize(
    ("path", "rule"), [("x" * 256, "a path of at most"), ("a/" * 3000, "a path"), ("~nobody_here/x", "there is no user")]
)
@pytest.mark.parametrize("key", ["runs", "data.path", "resume"])
def test_a_path_that_no_system_has_is_refused(path, rule, key):
    with pytest.raises(ConfigError, match=rf"^{key}: must be .*{rule}"):
        load(["data=series", f"{key}={path}"])


# --- what is saved, and what is asked of a verb


def test_a_saved_config_comes_back_as_it_was():
    config = load(
        [
            "model=rnn",
            "augmentation=[flip,crop]",
            "augmentation.crop.padding=2",
            "gradient_clip_val=0.5",
            "run_name=it's ü=1",
            "networks.model.lr=1e-4",
        ]
    )

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    Path("config.yaml").write_text(yaml.safe_dump(plain(config.values), sort_keys=False, allow_unicode=True), encoding="utf-8")
    again = load_saved(Path("config.yaml"))
    assert again.values == config.values
    assert list(again.values["augmentation"]) == ["flip", "crop"]
    assert (again.run, again.trainer, again.tracking) == (config.run, config.trainer, config.tracking)


def test_a_saved_config_of_an_older_version_gets_the_defaults_of_what_is_new():
    Path("config.yaml").write_text(
        "task: {name: classification}\nmodel: {name: cnn}\ndata: {name: digits}\n"
        "optimizer: {name: sgd}\nscheduler: {name: constant}\n"
    )
    config = load_saved(Path("config.yaml"))
    assert config.run == type(config.run)()
    assert config.values["augmentation"] == {}


def test_an_entry_that_is_gone_is_told():
    Path("config.yaml").write_text("task: {name: classification}\nmodel: {name: cnnn}\n")
    with pytest.raises(ConfigError, match=r"^config\.yaml: model=cnnn: no such model\. Did you mean 'cnn'\?"):
        load_saved(Path("config.yaml"))


def test_a_saved_config_may_call_an_augmentation_anything():
    saved = "task: {name: classification}\nmodel: {name: cnn}\ndata: {name: digits}\noptimizer: {name: adamw}\n"
    Path("config.yaml").write_text(
        f"{saved}scheduler: {{name: constant}}\naugmentation: {{true: {{name: flip}}, false: {{}}}}\n"
    )
    with pytest.raises(ConfigError, match=r"^config\.yaml: augmentation\.False: 'False' is not among the chosen: \[True\]"):
        load_saved(Path("config.yaml"))


@pytest.mark.parametrize("path", ["it's a=b, ü.st", "'quoted'"])
def test_the_path_of_a_checkpoint_may_hold_anything(path):
    assert load_options("test", Options, [f"checkpoint={path}"]).checkpoint == path.strip("'")
    assert load_options("test", Options, []).checkpoint == "best"


# --- anything at all

KEYS = st.sampled_from(
    ["model", "model.width", "seed", "augmentation", "data.path", "networks.model.lr", "monitor", "plugin_paths", "x"]
)


@hypothesis.given(key=KEYS, value=st.text(st.characters(codec="utf-8"), max_size=12))
@hypothesis.settings(deadline=None, max_examples=50)
def test_any_text_is_a_config_or_a_config_error(key, value):
    with contextlib.suppress(ConfigError):
        load([f"{key}={value}"])


NAMES = st.sampled_from(["model", "name", "width", "flip", "_x", "3", ""])
YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)


@hypothesis.given(
    values=st.dictionaries(st.sampled_from(["model", "trainer", "augmentation", "networks", "seed", "name", "y"]), YAML)
)
@hypothesis.settings(deadline=None, max_examples=50)
def test_any_yaml_is_a_config_or_a_config_error(values):
    conf("experiment/x.yaml", yaml.safe_dump(values, allow_unicode=True))
    with contextlib.suppress(ConfigError):
        load(["experiment=x"])


def test_threads_load_their_own_configs(tmp_path, monkeypatch):
    """Each gets its own values, or its own message with the file and the line of its own experiment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    for i in range(8):
        lines = "\n" * i + ("epochs: -1\n" if i % 2 else f"epochs: {i + 1}\n")
        (tmp_path / "conf" / "experiment" / f"e{i}.yaml").write_text(lines)

    def outcome(i: int) -> int | str:
        try:
            return load([f"experiment=e{i}"]).run.epochs
        except ConfigError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for i, found in enumerate(pool.map(outcome, range(8))):
                wrong = f"conf/experiment/e{i}.yaml:{i + 1}: epochs: must be int >= 1. Received: -1."
                assert found == (wrong if i % 2 else i + 1)


def test_a_typed_task_that_the_model_replaces_is_said():
    config = load(["task=classification", "model=isolation_forest", "data=shuttle"])
    assert config.notes == ("model=isolation_forest brings its own task: anomaly, instead of task=classification",)
    assert load(["model=isolation_forest"]).notes == ()
    assert load(["task=classification", "model=cnn", "data=digits"]).notes == ()


def test_a_preset_leaves_room_for_the_task_of_the_model():
    """A score of anomalies is a model of frauds too; what is set for a classification is left out, and said unless typed."""
    config = load(["task=fraud_detection", "model=autoencoder"])
    assert config.values["task"] == {"name": "anomaly", "anomalies": (), "quantile": 0.99, "headline": "average_precision"}
    (note,) = config.notes
    assert "instead of task=fraud_detection; left out: task.average=positive, task.threshold=f1 (" in note
    assert "left out: task.average=positive" in load(["data=creditcard", "model=vae"]).notes[0]
    with pytest.raises(ConfigError, match=r"^task\.threshold: 'anomaly' has no such option"):
        load(["task=fraud_detection", "model=autoencoder", "task.threshold=cost"])
