"""Verdicts of a trained model of normal samples, and the whole run of a table, a series and of rows without labels."""

from __future__ import annotations

import math
import re

import numpy as np
import pyarrow.parquet
import pytest

import dlframe
from dlframe.cli import main
from dlframe.config import load
from dlframe.contracts.samples import labeled_steps, measurements
from dlframe.jobs.evaluate import evaluate_run
from dlframe.jobs.train import run
from dlframe.types import ConfigError


def trained(tmp_path, *overrides):
    return run(load([*overrides, "epochs=1", "tracking=none", "figures=none", f"runs={tmp_path}"]))


def test_rows_of_a_table_have_verdicts_with_score_and_threshold(tmp_path, capsys):
    table = ["data=table", f"data.path={measurements()}", "data.target=grower", "data.drop=[row]"]
    result = trained(tmp_path, "task=anomaly_detection", *table, "task.anomalies=[class_2]", "model=nearest_neighbors")
    said = capsys.readouterr().out
    assert "normal ones of" in said
    assert "test samples are anomalies: class_2" in said
    assert result.folder
    predictions = pyarrow.parquet.read_table(result.folder / "predictions.parquet").to_pydict()
    assert set(predictions["target"]) == {"normal", "anomaly"}
    assert {c for c, t in zip(predictions["class"], predictions["target"], strict=True) if t == "anomaly"} == {"class_2"}
    found = dlframe.load(str(result.folder)).predict(str(measurements()))
    assert found["prediction"].tolist() == np.where(found["score"] > found["threshold"], "anomaly", "normal").tolist()
    assert len(set(found["threshold"].tolist())) == 1
    rows = [int(i) - 1 for i in predictions["id"]]
    assert found["score"][rows] == pytest.approx(predictions["score"], rel=1e-9)
    assert main(["predict", str(result.folder), str(measurements())]) == 0
    assert "prediction" in capsys.readouterr().out
    again = evaluate_run(result.folder)
    assert again.metrics == result.metrics


def test_rows_without_labels_have_scores_and_no_metric(tmp_path, capsys):
    result = trained(tmp_path, "data=unlabeled_table", f"data.path={measurements()}", "model=isolation_forest")
    assert math.isnan(result.metrics["f1"])
    assert math.isnan(result.metrics["auroc"])
    assert "test f1 undefined" in capsys.readouterr().out
    assert "the test split has no anomaly" in " ".join(result.notes)
    assert result.folder
    found = dlframe.load(str(result.folder)).predict(str(measurements()))
    assert len(found["score"]) == 178
    assert np.isfinite(found["score"]).all()


def test_a_series_is_scored_step_by_step(tmp_path, capsys):
    result = trained(tmp_path, "data=anomaly_series", f"data.path={labeled_steps()}", "data.window=12", "model.width=4")
    assert result.headline == "event_f1"
    assert result.folder
    model = dlframe.load(str(result.folder))
    found = model.predict(str(labeled_steps()), every=True)
    predictions = pyarrow.parquet.read_table(result.folder / "predictions.parquet").to_pydict()
    assert found["score"][-len(predictions["score"]) :] == pytest.approx(predictions["score"], rel=1e-5)


def test_a_classifier_is_refused_before_training(tmp_path):
    with pytest.raises(ConfigError, match=r"must return one anomaly score per sample. Received: shape \(2, 10\)"):
        trained(tmp_path, "task=anomaly_detection", "model=mlp")
    with pytest.raises(ConfigError, match=r"task.anomalies: data=digits must have the class 'zero'"):
        trained(tmp_path, "task=anomaly_detection", "task.anomalies=[zero]")


def test_scores_by_event_are_compared_and_the_base_rate_with_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = ["data=planted_events", "data.steps=1500", "data.window=8", "figures=none", "tracking=none", "epochs=1"]
    options = ["task=series_anomaly_detection", "model=isolation_forest,nearest_neighbors", *data]
    assert main(["compare", *options, "seeds=1", "metrics=event_f1,event_recall"]) == 0
    said = capsys.readouterr().out
    assert "event_f1, higher is better" in said
    assert re.search(r"^base rate +\d+\.\d\d % \(", said, re.MULTILINE)
