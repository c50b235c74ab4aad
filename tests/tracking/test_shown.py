"""What MLflow's users look for: names, parameters, data, intervals, a description, measurements of the machine."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.conftest import until

from dlframe.config import load
from dlframe.runs import journal
from dlframe.runs.journal import Journal
from dlframe.runs.run_directory import label
from dlframe.tracking import Tracker, UploadState, upload
from dlframe.tracking.content.descriptions import chosen
from dlframe.tracking.store import quiet
from dlframe.tracking.uploader import use_store

os.environ.update(quiet(os.environ))


@pytest.fixture(scope="module")
def run(default_run: tuple[subprocess.CompletedProcess, Path]) -> Any:
    """The README's first run, found by `mlflow.search_runs`."""
    import mlflow

    state = UploadState.load(default_run[1])
    use_store(state.uri)
    query = "metrics.`test/accuracy/low` > 0.9 and params.`model.name` = 'cnn' and tags.`dlframe.group` = 'cnn · digits'"
    (found,) = mlflow.search_runs(experiment_names=["classification"], filter_string=query, output_format="list")
    return found


def test_a_run_is_named_and_tagged(run: Any, default_run: tuple[subprocess.CompletedProcess, Path]) -> None:
    assert run.info.run_name == "cnn · digits"
    assert run.data.tags["dlframe.command"] == "python -m dlframe model=cnn"
    assert run.data.tags["run.folder"] == str(default_run[1])
    assert {name.split(".")[0] for name in run.data.params} == {
        *("seed", "epochs", "batch_size"),
        *("task", "model", "data", "optimizer", "scheduler"),
    }
    assert run.data.params["optimizer.lr"]


def test_the_data_are_an_input(run: Any) -> None:
    (found,) = run.inputs.dataset_inputs
    assert {tag.key: tag.value for tag in found.tags} == {"mlflow.data.context": "training"}
    assert (found.dataset.name, found.dataset.digest) == ("digits", run.data.tags["data.fingerprint"])
    assert json.loads(found.dataset.source) == {"source": "scikit-learn, offline"}
    assert json.loads(found.dataset.profile) == {"train": 1078, "validation": 360, "test": 359}


def test_interval_and_baseline_are_metrics(run: Any, default_run: tuple[subprocess.CompletedProcess, Path]) -> None:
    result, metrics = json.loads((default_run[1] / "result.json").read_text()), run.data.metrics
    ends = ("test/accuracy", "test/accuracy/low", "test/accuracy/high")
    assert [metrics[name] for name in ends] == [result["interval"][name] for name in ("value", "low", "high")]
    assert metrics["test/samples"] == 359
    assert metrics["test/accuracy/baseline"] == result["baseline"]["majority class"]["accuracy"]


def test_the_description_has_table_and_figures(run: Any, default_run: tuple[subprocess.CompletedProcess, Path]) -> None:
    text = run.data.tags["mlflow.note.content"]
    assert text.startswith("**cnn** on **digits**: test accuracy **9")
    assert "| test metric | model | majority class |\n| --- | --- | --- |\n| accuracy | 9" in text
    for figure in (default_run[1] / "figures").iterdir():
        with Image.open(figure) as picture:
            title, width = figure.stem.replace("_", " "), picture.width
        link = f"[{title}](get-artifact?path=figures/{figure.name}&run_uuid={run.info.run_id})"
        assert (f"\n\n!{link}" in text) == (width <= 900)
        assert link in text


@pytest.mark.parametrize(
    ("typed", "name", "group"),
    [
        ("seed=2 optimizer.lr=0.01", "cnn · digits · lr=0.01 · seed=2", "cnn · digits · lr=0.01"),
        ("model=mlp model.width=8 tracking=none runs=here figures=none", *["mlp · digits · width=8"] * 2),
        ("augmentation=[crop] augmentation.crop.padding=1", *["cnn · digits · augmentation=[crop] · padding=1"] * 2),
        ("run_name=mine seed=1", "mine", "mine"),
    ],
)
def test_a_name_tells_what_was_typed(typed: str, name: str, group: str) -> None:
    config = load(typed.split())
    assert (label(config), label(config, without=("seed",))) == (name, group)


def test_options_of_one_last_word_are_named_whole() -> None:
    both = ["augmentation=[flip,erasing]", "augmentation.flip.p=0.2", "augmentation.erasing.p=0.3"]
    assert label(load(both)).endswith(" · augmentation.flip.p=0.2 · augmentation.erasing.p=0.3")
    assert len(label(replace(load([]), overrides=(f"model.x={'é' * 300}",))).encode()) <= 250


def test_what_is_unset_or_usual_is_no_parameter() -> None:
    given = {"seed": 0, "epochs": 30, "gradient_clip_val": "null", "compile": False, "on_nan": "skip", "runs": "r"}
    given |= {"trainer.devices": 2, "trainer.num_nodes": 1, "tracking.uri": "sqlite", "model.name": "cnn", "model.dropout": 0.0}
    assert chosen(given) == {
        "seed": 0,
        "epochs": 30,
        "on_nan": "skip",
        "trainer.devices": 2,
        "model.name": "cnn",
        "model.dropout": 0.0,
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs, with one store for all of them."""
    return tmp_path_factory.mktemp("shown") / "runs"


def begin(folder: Path, **fields: Any) -> Journal:
    folder.mkdir(parents=True)
    found = Journal(folder)
    start = {"run_name": folder.name, "experiment": "shown", "parameters": {"seed": 0}, "tags": {}, "uri": "sqlite"}
    found.write("start", **start, **fields)
    return found


def tags_of(folder: Path) -> dict[str, str]:
    from mlflow import MlflowClient

    state = UploadState.load(folder)
    return MlflowClient(state.uri).get_run(state.run_id).data.tags


def test_a_description_that_the_user_has_written_stays(runs: Path) -> None:
    from mlflow import MlflowClient

    folder = runs / "described"
    book = begin(folder)
    book.write("description", text="first")
    assert upload(folder) == ""
    book.write("description", text="second")
    assert upload(folder) == ""
    assert tags_of(folder)["mlflow.note.content"] == "second"
    state = UploadState.load(folder)
    MlflowClient(state.uri).set_tag(state.run_id, "mlflow.note.content", "mine")
    book.write("description", text="third " * 3000)
    assert upload(folder) == ""
    assert tags_of(folder)["mlflow.note.content"] == "mine"
    MlflowClient(state.uri).delete_tag(state.run_id, "mlflow.note.content")
    book.write("description", text="third\n" * 3000)
    book.write("end", status="FINISHED", message="")
    book.close()
    assert upload(folder) == ""
    assert tags_of(folder)["mlflow.note.content"].endswith("third\n\n(cut)")


@pytest.mark.parametrize("data", [3, {}, {"name": "", "digest": "0", "source": "x"}, {"name": "d", "digest": 3, "source": "x"}])
def test_data_and_a_description_of_another_shape_are_refused_alone(data: Any, runs: Path) -> None:
    from mlflow import MlflowClient

    folder = runs / f"odd {len(str(data))}"
    book = begin(folder, data=data)
    book.metrics(1, {"loss": 0.5})
    book.write("description", text=["no text"])
    book.write("end", status="FINISHED", message="")
    book.close()
    assert "MLflow rejected 2 records" in upload(folder)
    state = UploadState.load(folder)
    assert state.status == "FINISHED"
    assert MlflowClient(state.uri).get_run(state.run_id).data.metrics == {"loss": 0.5}, "nothing else is measured"


def test_the_machine_is_measured_by_choice(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    folder = runs / "measured"
    book = begin(folder, system_metrics=True)
    tracker = Tracker.start(folder)
    identifier = until(lambda: UploadState.load(folder).run_id)
    client = MlflowClient(UploadState.load(folder).uri)
    until(lambda: len(client.get_metric_history(identifier, "system/cpu_utilization_percentage")) > 1)
    book.write("end", status="FINISHED", message="")
    book.close()
    assert tracker.wait(60) == ""
    assert journal.history(folder) == {}
    measured = client.get_run(identifier).data.metrics
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(measured)
    assert measured["system/system_memory_usage_megabytes"] > 100
    first = client.get_metric_history(identifier, "system/cpu_utilization_percentage")[0]
    assert first.value > 0, "the upload process itself is at work"
