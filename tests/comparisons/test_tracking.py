"""A comparison in MLflow: a run with those of its seeds below it, and one for each model that can be sorted by."""

from __future__ import annotations

import csv

import pytest

from dlframe.cli import main


def test_each_model_is_a_run_with_its_mean_and_interval(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    assert main(["compare", "model=mlp,lda", "epochs=1", "seeds=2", "name=c", "out=c.csv"]) == 0
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (study,) = client.search_runs(experiments, "attributes.run_name = 'c'")
    found = client.search_runs(experiments, "metrics.seeds > 0", order_by=["metrics.`mean/accuracy` DESC"])
    with open("c.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["seeds"]]
    assert [run.data.params["model"] for run in found] == [row["model"] for row in rows]
    for run, row in zip(found, rows, strict=True):
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == study.info.run_id
        told = [run.data.metrics[f"mean/accuracy{end}"] for end in ("", "/low", "/high")]
        assert told == pytest.approx([float(row[name]) for name in ("mean", "low", "high")])
        assert run.data.metrics["seeds"] == 2
        seeds = client.search_runs(experiments, f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
        assert {seed.data.params["seed"] for seed in seeds} == {"0", "1"}
        assert {seed.data.params["model.name"] for seed in seeds} == {run.data.params["model"]}
        values = [seed.data.metrics["test/accuracy"] for seed in seeds]
        assert sum(values) / 2 == pytest.approx(run.data.metrics["mean/accuracy"])
    sure = client.search_runs(experiments, "metrics.`mean/accuracy/low` > 0.5 and metrics.seeds = 2")
    assert {run.info.run_id for run in sure} == {
        run.info.run_id for run in found if run.data.metrics["mean/accuracy/low"] > 0.5
    }
    files = {item.path for item in client.list_artifacts(study.info.run_id)}
    assert {"report.html", "figures"} <= files
