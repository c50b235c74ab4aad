"""A stranger's run folder: scored again, delivered to MLflow, loaded as a model. And what a run keeps of one's own secrets."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from tests.attacks.conftest import BOMB, SECRET, shown
from tests.forked import dlframe

from dlframe.cli import main
from dlframe.runs.exported_model import Predictor, _load_pyfunc
from dlframe.runs.run_directory import read_result
from dlframe.tracking import UploadState, upload
from dlframe.types import DataError, DlframeError, TrackingError

PAINT = "\x1b]0;owned\x07"
DEEP = "[" * 100_000

# --- scored again


def test_plugins_of_the_stranger_are_not_loaded(guarded: Callable[..., Any], stranger: Path, capsys: Any) -> None:
    """Neither those that the config names nor those that lie in the folder; the run is scored without."""
    config = stranger / "config.yaml"
    config.write_text(config.read_text().replace("plugin_paths: []", f"plugin_paths: ['{stranger}/plugins/evil.py']"))
    for file in (stranger / "plugins" / "evil.py", stranger / "sitecustomize.py", stranger / "conf" / "config.yaml"):
        file.parent.mkdir(exist_ok=True)
        file.write_text("open('ran', 'w')")
    with guarded():
        assert main(["test", str(stranger)]) == 0
    assert "test accuracy" in shown(capsys.readouterr().out)


FILES = {
    "data_of_a_painted_fingerprint": ("data.json", json.dumps({"fingerprint": PAINT})),
    "data_of_no_text": ("data.json", '{"fingerprint": {"a": 1}}'),
    "data_that_is_a_list": ("data.json", "[1]"),
    "data_deep": ("data.json", DEEP),
    "data_of_a_huge_number": ("data.json", '{"fingerprint": ' + "9" * 5000 + "}"),
    "data_latin": ("data.json", b"\xff"),
    "data_pickled": ("data.json", BOMB),
    "overrides_that_paint": ("overrides.txt", f"model=mlp\nname={PAINT}"),
    "overrides_of_no_key": ("overrides.txt", "rm -rf /"),
    "overrides_latin": ("overrides.txt", b"\xff"),
    "overrides_pickled": ("overrides.txt", BOMB),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_lies_beside_the_config(kind: str, refused: Callable[..., str], stranger: Path) -> None:
    name, content = FILES[kind]
    (stranger / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert refused("test", str(stranger)).startswith("theirs: is damaged: ")


OVERRIDES = ["epochs=range(0,1000000000)", "model.width=choice(1,2)", "run_name=$(touch ran)"]


@pytest.mark.parametrize("override", OVERRIDES)
def test_overrides_are_only_shown(override: str, guarded: Callable[..., Any], stranger: Path, capsys: Any) -> None:
    """They end in the commands that one would type next: quoted, not tried."""
    Path("evil.py").write_text("open('ran', 'w')")
    (stranger / "overrides.txt").write_text(override)
    with guarded():
        assert main(["test", str(stranger)]) == 0
    (line,) = (line for line in shown(capsys.readouterr().out).splitlines() if " -m dlframe -m " in line)
    (typed,) = (word for word in shlex.split(line) if word.startswith(override.split("=")[0]))
    assert typed.replace("'", "") == override


@pytest.mark.parametrize("override", ["plugin_paths=evil.py", "tracking.uri=http://evil", "runs=/elsewhere", "data.path=../x"])
def test_no_command_has_code_or_an_address_of_a_run(override: str, guarded: Any, stranger: Path, capsys: Any) -> None:
    (stranger / "overrides.txt").write_text(f"model=mlp\n{override}")
    with guarded():
        assert main(["test", str(stranger)]) == 0
    said = shown(capsys.readouterr().out)
    assert override.partition("=")[2] not in said
    assert f"without {override.partition('=')[0]}: " in said


@pytest.mark.parametrize("arguments", [["list", "model"], ["model=evil"]])
def test_plugins_can_be_left_out(arguments: list[str], victim: Path, stranger: Path, tmp_path: Path) -> None:
    (victim / "plugins").mkdir()
    (victim / "plugins" / "evil.py").write_text(
        "open('ran', 'w')\nfrom dlframe.registry import models\nfrom dlframe.types import DataSpec\n\n\n"
        '@models.register("evil")\nclass Evil:\n    """Evil."""\n\n    def __init__(self, spec: DataSpec) -> None: ...\n'
    )
    without = {"DLFRAME_PLUGINS": "none"}
    done = dlframe(*arguments, cwd=victim, environment=without)
    assert "'evil'" not in done.out
    assert not list(tmp_path.rglob("ran"))
    if arguments == ["model=evil"]:
        assert done.error.startswith("error: model=evil: no such model.")
    done = dlframe(*arguments, "plugin_paths=plugins/evil.py", cwd=victim, environment=without)
    refusal = "error: plugin_paths: must be empty with DLFRAME_PLUGINS=none.\n"
    assert (done.code, done.out, done.error) == (2, "", refusal)


RESULTS: dict[str, Any] = {
    "metric_that_paints": {"metrics": {"accuracy": 1, PAINT: 1}},
    "metric_of_text": {"metrics": {"accuracy": PAINT}},
    "metrics_a_list": {"metrics": [1]},
    "headline_missing": {"metrics": {}},
    "headline_a_list": {"headline": []},
    "baseline_that_paints": {"baseline": {PAINT: {"accuracy": 0.1}}},
    "baseline_of_nothing": {"baseline": {}},
    "baseline_of_another": {"baseline": {"x": {"f1": 0.1}}},
    "baseline_a_number": {"baseline": 1},
    "interval_of_text": {"interval": {"value": PAINT, "low": 1, "high": 1}},
    "interval_of_more": {"interval": {"value": 1, "low": 1, "high": 1, "_target_": "os.system"}},
    "interval_of_half_a_resample": {"interval": {"value": 1, "low": 1, "high": 1, "undefined": 0.5}},
    "interval_of_a_text_of_resamples": {"interval": {"value": 1, "low": 1, "high": 1, "undefined": 1, "resamples": PAINT}},
    "notes_that_paint": {"notes": [PAINT]},
    "notes_of_numbers": {"notes": [1]},
    "notes_a_text": {"notes": "abc"},
    "overrides_that_paint": {"overrides": [PAINT]},
    "overrides_a_number": {"overrides": 3},
    "samples_of_text": {"samples": "many"},
    "an_unknown_key": {"_target_": "os.system"},
    "a_folder": {"folder": "/etc"},
}


@pytest.mark.parametrize("kind", [*RESULTS, "deep", "pickle", "huge_number", "list"])
def test_a_result(kind: str, stranger: Path) -> None:
    file = stranger / "result.json"
    other = {"deep": DEEP.encode(), "pickle": BOMB, "huge_number": b'{"samples": ' + b"9" * 5000 + b"}", "list": b"[]"}
    file.write_bytes(other.get(kind) or json.dumps(json.loads(file.read_text()) | RESULTS[kind]).encode())
    with pytest.raises(DataError) as caught:
        read_result(stranger)
    assert shown(str(caught.value)).startswith("theirs: no result of a run: ")


# --- delivered


def start(runs: Path, **changes: Any) -> dict[str, Any]:
    beginning = {
        "kind": "start",
        "time": 1,
        "run_name": "x",
        "experiment": "theirs",
        "parameters": {},
        "tags": {},
        "uri": f"sqlite:///{runs / 'mlflow.db'}",
        "artifact_root": str(runs / "artifacts"),
    }
    return beginning | changes


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs with a store in it, which takes seconds to make."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def delivered(store: Path, tmp_path: Path, victim: Path) -> Callable[..., tuple[str, list[str]]]:
    """Deliver a folder with these records: what was said, and the artifacts that MLflow has."""
    folder = store / tmp_path.name
    folder.mkdir()
    (folder / "figures").mkdir()
    (folder / "figures" / "good.png").write_text("good")
    (folder / "pipe").mkdir()
    os.mkfifo(folder / "pipe" / "x")
    for name, target in {
        "link": tmp_path / "outside" / "secret.txt",
        "linked": tmp_path / "outside",
        "figures2/secret.txt": tmp_path / "outside" / "secret.txt",
        "figures3/deeper": tmp_path / "outside",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(target)

    def deliver_them(*records: dict[str, Any], **changes: Any) -> tuple[str, list[str]]:
        lines = [start(store, **changes), *({"time": 2, **record} for record in records)]
        good = {"kind": "artifact", "time": 3, "path": "figures/good.png", "to": "figures"}
        lines += [good, {"kind": "end", "time": 4, "status": "FINISHED", "message": ""}]
        (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        said = upload(folder)
        run = UploadState.load(folder).run_id
        client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
        found, todo = [], [""]
        while todo:
            for artifact in client.list_artifacts(run, todo.pop() or None):
                (todo if artifact.is_dir else found).append(artifact.path)
        return said, sorted(found)

    return deliver_them


PATHS = {
    "dots": {"path": "../../outside/secret.txt"},
    "dots_within": {"path": "figures/../../../outside/secret.txt"},
    "absolute": {"path": "/etc/passwd"},
    "a_link": {"path": "link"},
    "a_linked_folder": {"path": "linked"},
    "below_a_linked_folder": {"path": "linked/secret.txt"},
    "a_folder_with_a_link": {"path": "figures2"},
    "a_folder_with_a_linked_folder": {"path": "figures3"},
    "a_folder_with_a_pipe": {"path": "pipe"},
    "a_device": {"path": "/dev/zero"},
    "the_parent": {"path": ".."},
    "nul": {"path": "a\0b"},
    "a_list": {"path": ["figures"]},
    "nothing": {},
    "gone": {"path": "gone.png"},
    "to_dots": {"path": "figures/good.png", "to": "../../../x"},
    "to_dots_within": {"path": "figures/good.png", "to": "a/../../b"},
    "to_absolute": {"path": "figures/good.png", "to": "/tmp/x"},
    "to_backslashes": {"path": "figures/good.png", "to": "..\\x"},
    "to_a_list": {"path": "figures/good.png", "to": ["x"]},
    "a_model_outside": {"kind": "model", "path": "../../outside"},
    "a_model_behind_a_link": {"kind": "model", "path": "linked"},
    "a_model_with_a_link": {"kind": "model", "path": "figures2"},
    "a_model_of_nothing": {"kind": "model"},
    "an_unknown_kind": {"kind": "__init__"},
}


@pytest.mark.parametrize("kind", PATHS)
def test_a_path_in_a_journal(kind: str, delivered: Callable[..., Any], store: Path) -> None:
    """It is refused, counted and said; what follows arrives."""
    said, artifacts = delivered({"kind": "artifact", **PATHS[kind]})
    assert artifacts == ["figures/good.png"]
    if kind != "an_unknown_kind":
        assert shown(said).startswith("MLflow rejected 1 record of ")
    sent = [file for file in (store / "artifacts").rglob("*") if file.is_file()]
    assert {file.read_text() for file in sent} == {"good"}


BEGINNINGS: dict[str, Any] = {
    "tags_a_list": {"tags": [1]},
    "no_parameters": {"parameters": None},
    "time_of_text": {"time": "now"},
    "name_a_list": {"run_name": []},
    "experiment_a_list": {"experiment": []},
    "uri_a_list": {"uri": ["x"]},
    "uri_elsewhere": {"uri": "sqlite:///{}/theirs.db"},
    "uri_of_files": {"uri": "file://{}"},
    "uri_by_dots": {"uri": "sqlite:///../theirs.db"},
    "artifacts_elsewhere": {"experiment": "elsewhere", "artifact_root": "{}/artifacts"},
    "artifacts_by_dots": {"experiment": "dots", "artifact_root": "../../x"},
    "artifacts_a_list": {"experiment": "list", "artifact_root": [1]},
}


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_the_beginning_of_a_journal(kind: str, store: Path, tmp_path: Path, victim: Path) -> None:
    """Nothing is made anywhere but in the folder of runs."""
    folder, elsewhere = store / tmp_path.name, tmp_path / "elsewhere"
    folder.mkdir()
    changes = {key: x.format(elsewhere) if isinstance(x, str) else x for key, x in BEGINNINGS[kind].items()}
    (folder / "journal.jsonl").write_text(json.dumps(start(store, **changes)) + "\n")
    try:
        said = upload(folder)
    except TrackingError as error:
        said = str(error)
    shown(said)
    assert list(victim.iterdir()) == []
    assert not elsewhere.exists()
    assert not list(store.parent.glob("*.db"))


# --- loaded as a model


@pytest.fixture
def model(stranger: Path) -> Path:
    return stranger / "model"


def test_a_model_as_it_came(model: Path, guarded: Callable[..., Any]) -> None:
    with guarded():
        predictor = _load_pyfunc(str(model))
        assert predictor.predict(np.zeros((3, 1, 8, 8), np.uint8))["probabilities"].shape == (3, 10)
    for inputs in (
        np.zeros((3, 64)),
        np.zeros((3, 1, 8, 8), object),
        [[1], [2, 3]],
        "text",
        None,
        np.zeros((3, 1, 8, 8), "U5"),
    ):
        with pytest.raises(DataError, match=r"^inputs: must be "):
            predictor.predict(inputs)


FIELDS: dict[str, tuple[str, dict[str, Any]]] = {
    "shape_huge": ("image", {"shape": [1, 2**40, 8]}),
    "shape_large": ("image", {"shape": [1, 2**19, 2**19]}),
    "shape_negative": ("image", {"shape": [1, -8, 8]}),
    "shape_of_text": ("image", {"shape": ["1", "8", "8"]}),
    "shape_of_truth": ("image", {"shape": [True, 8, 8]}),
    "shape_empty": ("image", {"shape": []}),
    "shape_a_number": ("image", {"shape": 64}),
    "shape_varies": ("image", {"shape": [None, None, None]}),
    "dtype_of_objects": ("image", {"dtype": "O"}),
    "dtype_a_language": ("image", {"dtype": "f4,f4"}),
    "dtype_a_list": ("image", {"dtype": ["f4"]}),
    "kind_a_list": ("image", {"kind": []}),
    "mean_of_text": ("image", {"mean": ["a"]}),
    "mean_missing": ("image", {"mean": []}),
    "mean_nested": ("image", {"mean": [[0.5]]}),
    "key_unknown": ("image", {"_target_": "os.system"}),
    "names_null": ("label", {"names": None}),
    "names_of_numbers": ("label", {"names": [1, 2]}),
    "names_none": ("label", {"names": []}),
}
"""Changes of a column that a model's spec declares."""
SPECS: dict[str, Any] = {
    "name_a_list": {"name": []},
    "format_of_another": {"format": 1},
    "format_a_list": {"format": []},
    "fitted_a_list": {"fitted": []},
    "inputs_none": {"inputs": {}},
    "inputs_a_list": {"inputs": []},
    "targets_null": {"targets": None},
    "plugins_of_numbers": {"plugins": {"model=cnn": 1}},
    "a_target": {"_target_": "os.system"},
}
MODELS = {
    "config_target": ("config.yaml", "_target_: os.system\n"),
    "config_plugins": ("config.yaml", "plugin_paths: [evil.py]\nmodel: {name: evil}\n"),
    "config_environment": ("config.yaml", "name: ${oc.env:SECRET}\n"),
    "config_pickled": ("config.yaml", BOMB),
    "spec_pickled": ("spec.json", BOMB),
    "spec_deep": ("spec.json", DEEP),
    "spec_a_list": ("spec.json", "[]"),
    "spec_null": ("spec.json", "null"),
    "weights_pickled": ("weights.safetensors", BOMB),
    "weights_empty": ("weights.safetensors", b""),
    **{f"spec_{kind}": ("spec.json", change) for kind, change in SPECS.items()},
    **{f"field_{kind}": ("spec.json", change) for kind, change in FIELDS.items()},
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model(kind: str, model: Path, guarded: Callable[..., Any]) -> None:
    name, content = MODELS[kind]
    Path("evil.py").write_text("open('ran', 'w')")
    if isinstance(content, (dict, tuple)):
        spec = json.loads((model / name).read_text())
        if isinstance(content, dict):
            spec |= content
        else:
            column, change = content
            next(spec[role] for role in ("inputs", "targets") if column in spec[role])[column] |= change
        content = json.dumps(spec)
    (model / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with guarded(), pytest.raises(DlframeError) as caught:
        Predictor(model)
    assert str(model) in shown(str(caught.value))


# --- what a run keeps of its surroundings


def test_a_run_keeps_no_secret(strangers_run: Path) -> None:
    """Neither its folder nor MLflow's holds a variable of the environment, with git and a writer at work."""
    files = [file for file in strangers_run.parent.rglob("*") if file.is_file()]
    assert {"changes.diff", "environment.json", "tracking.log", "mlflow.db", "MLmodel"} <= {file.name for file in files}
    assert [file for file in files if SECRET.encode() in file.read_bytes()] == []


@pytest.mark.parametrize("dtype", [",", "f4,f4", "(2,)f4", "", 3, None, ["f4"]])
def test_a_signature_names_a_type_and_no_more(tmp_path, dtype):
    """NumPy reads a small language where the name of a type stands."""
    from dlframe.tracking.content.models import read_signature

    file = tmp_path / "signature.json"
    sides = {
        "inputs": [{"name": "x", "dtype": dtype, "shape": [-1, 3]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": [-1, 3]}],
    }
    file.write_text(json.dumps(sides))
    with pytest.raises((ValueError, TypeError)):
        read_signature(file)
