"""Two tasks of foreign kinds, as plugins: boxes on images, and a tag for each letter of a word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from tests.conftest import dlframe

from dlframe.config import load
from dlframe.jobs.evaluate import evaluate_run
from dlframe.jobs.train import load_data, run
from dlframe.jobs.verify_resume import verify
from dlframe.runs.exported_model import Predictor
from dlframe.runs.recorder import states
from dlframe.storage import checkpoint
from dlframe.types import ConfigError, DataError, Ragged, Result

HERE = Path(__file__).parent
BOXES = [f"plugin_paths={HERE / 'boxes'}", "task=boxes", "data=canvas", "model=grid_detector"]
TOKENS = [f"plugin_paths={HERE / 'tokens'}", "task=tagging", "data=words", "model=tagger"]


def train(tmp_path: Path, *overrides: str) -> Result:
    return run(load([*overrides, "tracking=none", f"runs={tmp_path / 'runs'}"]))


def predictions(result: Result) -> dict[str, Any]:
    assert result.folder
    return pyarrow.parquet.read_table(result.folder / "predictions.parquet").to_pydict()


def test_boxes_on_images(tmp_path):
    result = train(tmp_path, *BOXES, "epochs=40", "data.images=400", "optimizer.lr=0.005", "batch_size=32")
    name, baseline = result.baseline
    assert name == "mean box"
    assert result.metrics["ap50"] > 0.3 > 0.05 > baseline["ap50"]
    assert result.interval.low < result.metrics["ap50"] < result.interval.high
    assert np.isnan(result.metrics["ap_of_nothing"]), "one undefined metric is no failure of the others"
    plugin = str(HERE / "boxes")
    again = evaluate_run(result.folder, plugin_paths=[plugin])
    assert {**again.metrics, "ap_of_nothing": 0} == {**result.metrics, "ap_of_nothing": 0}
    config = load([*BOXES, "data.images=400", "tracking=none"])
    test, table = load_data(config).test, predictions(result)
    assert any(not target for target in table["target"]), "an image without objects is data"
    outputs = Predictor(result.folder / "model", (plugin,)).predict(test["image"])
    assert [digits.tolist() for digits in outputs["digit"]] == [[str(i) for i in row] for row in table["prediction"]]
    assert all(box.shape == (len(row), 4) for box, row in zip(outputs["box"], table["prediction"], strict=True))
    assert json.loads((result.folder / "model" / "spec.json").read_text())["plugins"] == {
        "task=boxes": "boxes",
        "data=canvas": "boxes",
        "model=grid_detector": "boxes",
    }


@pytest.mark.parametrize("lazy", [False, True])
def test_tags_of_letters(tmp_path, lazy):
    own = [f"data.path={tmp_path / 'words'}", "trainer.num_workers=2"] if lazy else []
    result = train(tmp_path, *TOKENS, *own, "epochs=12", "optimizer.lr=0.01", "batch_size=32", "batch_elements=400")
    assert result.metrics["accuracy"] > 0.93 > 0.8 > result.baseline[1]["accuracy"]
    assert evaluate_run(result.folder, plugin_paths=[str(HERE / "tokens")]).metrics == result.metrics
    test, table = load_data(load([*TOKENS, "tracking=none"])).test, predictions(result)
    outputs = Predictor(result.folder / "model", (str(HERE / "tokens"),)).predict(test["letters"])
    names = np.array(["consonant", "vowel", "last vowel"])
    assert [tags.tolist() for tags in outputs["tag"]] == [names[row].tolist() for row in table["prediction"]]


def test_samples_read_when_needed_are_those_in_memory(tmp_path):
    one, other = (
        train(tmp_path / kind, *TOKENS, "epochs=2", *own)
        for kind, own in (("memory", []), ("files", [f"data.path={tmp_path / 'words'}", "trainer.num_workers=2"]))
    )
    assert predictions(one) == predictions(other)


def test_a_memory_that_grows(tmp_path):
    """State of unknown size is in checkpoints, in the best weights, in `test` and in the exported model."""
    result = train(tmp_path, *TOKENS, "model=letter_counts", "epochs=1")
    assert result.metrics["accuracy"] > result.baseline[1]["accuracy"] + 0.1
    assert evaluate_run(result.folder, plugin_paths=[str(HERE / "tokens")]).metrics == result.metrics
    (state, *_) = states(result.folder)
    assert len(checkpoint.load(state)[0]["task"]["model._extra_state"]["letters"]) > 20
    test, table = load_data(load([*TOKENS, "tracking=none"])).test, predictions(result)
    outputs = Predictor(result.folder / "model", (str(HERE / "tokens"),)).predict(test["letters"])
    assert np.allclose(np.concatenate(outputs["probability"]).max(1), np.concatenate(table["score"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        [*BOXES, "epochs=4", "accumulate_grad_batches=3"],
        [*TOKENS, "epochs=6", "batch_elements=300", "accumulate_grad_batches=2"],
        [*TOKENS, "epochs=6", "data.path=words", "trainer.num_workers=2"],
        [*TOKENS, "model=letter_counts", "epochs=6"],
    ],
    ids=["boxes", "tokens", "lazy", "memory"],
)
def test_a_killed_training_ends_as_one_that_is_left_alone(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert verify(command, kills=2, seed=0) == 0


@pytest.mark.parametrize("kind", [BOXES, TOKENS], ids=["boxes", "tokens"])
def test_two_processes_score_every_sample_once(kind, tmp_path):
    options = [*kind, "epochs=1", "tracking=none", "seed=3"]
    done = dlframe(*options, "trainer=ddp", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    table = pyarrow.parquet.read_table(folder / "predictions.parquet").to_pydict()
    test = load_data(load(options)).test
    assert table["id"] == test.ids.tolist()
    target = test["digit" if kind is BOXES else "tags"]
    assert table["target"] == [row.tolist() for row in target]


def test_what_does_not_fit_is_refused():
    cropped = r"^augmentation=crop: takes class or value targets, but data=canvas has box and class targets\."
    with pytest.raises(ConfigError, match=cropped):
        load([*BOXES, "augmentation=[crop]"])
    with pytest.raises(ConfigError, match=r"^model=cnn: takes class targets, but data=canvas has box and class targets\."):
        load([*BOXES, "model=cnn"])
    with pytest.raises(ConfigError, match=r"^metric.auroc: needs the scores probability, target\. task=boxes gives: found"):
        load([*BOXES, "metric=[auroc]"])
    with pytest.raises(ConfigError, match=r"^task=boxes: takes box or class targets, but data=digits has class targets\."):
        load([*BOXES, "data=digits", "model=grid_detector"])
    assert load([*BOXES, "augmentation=[color_jitter,flip]"])


def test_data_that_are_not_as_declared_are_refused(monkeypatch):
    config = load([*TOKENS, "tracking=none"])
    own = load_data(config)
    longer = Ragged.of([np.append(tags, 0) for tags in own.train["tags"]])

    class Broken:
        """The config, whose data have another column."""

        def __getattr__(self, name: str) -> Any:
            return getattr(config, name)

        def build(self, group: str) -> Any:
            own.train.columns["tags"] = longer
            return own

    with pytest.raises(DataError, match=r"^data=words: 'tags' must have the lengths of 'letters', sample "):
        load_data(Broken())  # type: ignore[arg-type]
