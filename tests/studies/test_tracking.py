"""A study in MLflow: a run with its trials below it, whoever is killed."""

from __future__ import annotations

import csv
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.conftest import dlframe, until
from tests.services import MlflowServer, free_port

from dlframe.cli import main
from dlframe.runs.journal import Journal, history
from dlframe.runs.study_journal import write_trial
from dlframe.storage.known import remember
from dlframe.studies.study import Study, read_manifest
from dlframe.tracking import UploadState, upload

SWEEP = ["sweep", "model=mlp", "epochs=2", "name=try", "optimizer.lr=choice(1e-3,1e-2,3e-2)"]


class Run(NamedTuple):
    """What the store says of a run."""

    identifier: str
    status: str
    parent: str
    """Name of the run above it."""
    parameters: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, list[tuple[int, float]]]


def runs_in(database: Path) -> dict[str, Run]:
    """Read a store without MLflow: runs by the name of their folder, each of which there is once."""
    found, identifiers = {}, {}
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as store:
        rows = store.execute("select run_uuid, status from runs").fetchall()
        for identifier, status in rows:
            pairs = [
                dict(store.execute(f"select key, value from {t} where run_uuid = ?", [identifier])) for t in ("params", "tags")
            ]
            metrics: dict[str, list[tuple[int, float]]] = {}
            query = "select key, step, value from metrics where run_uuid = ? order by step"
            for key, step, value in store.execute(query, [identifier]):
                metrics.setdefault(key, []).append((step, value))
            name = Path(pairs[1].get("run.folder", pairs[1]["mlflow.runName"])).name
            assert name not in found
            identifiers[identifier] = name
            found[name] = Run(identifier, status, pairs[1].get("mlflow.parentRunId", ""), *pairs, metrics)
    store.close()
    return {name: run._replace(parent=identifiers[run.parent] if run.parent else "") for name, run in found.items()}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_sweep_is_a_run_with_its_trials_below_it(place: Path) -> None:
    options = ["pruner=median", "pruner.warmup_trials=1", "pruner.warmup_epochs=0", "search.fresh_seeds=2", "sampler=grid"]
    assert main([*SWEEP[:-1], "optimizer.lr=choice(3e-2,1e-2,1e-7)", *options]) == 0
    runs = runs_in(place / "runs/mlflow.db")
    study = Study(place / "runs/sweeps/try", read_manifest(place / "runs/sweeps/try"))
    records = study.records()
    best = study.best()
    assert best
    fresh = f"try-fresh-{best.number:04d}"
    children = [f"try-{i:04d}" for i in range(3)]
    assert {name: run.parent for name, run in runs.items()} == {
        "try": "",
        fresh: "try",
        **dict.fromkeys(children, "try"),
        **dict.fromkeys((f"{fresh}-0000", f"{fresh}-0001"), fresh),
    }
    parent = runs["try"]
    assert parent.status == "FINISHED"
    assert parent.parameters["space"] == "optimizer.lr=0.03,0.01,1e-07"
    assert (parent.parameters["sampler.name"], parent.parameters["pruner.name"]) == ("grid", "median")
    assert (parent.parameters["search.seed"], parent.tags["dlframe.trials"]) == ("0", "3")
    values = [record.value() for record in records]
    assert values[2] is None, "pruned"
    so_far = [max(v for v in values[: i + 1] if v is not None) for i in range(3)]
    assert parent.metrics["best/val/accuracy"] == [(i + 1, so_far[i]) for i in range(3)]
    again = [max(v for _, v in history(place / f"runs/{fresh}-{i:04d}")["val/accuracy"]) for i in range(2)]
    assert parent.metrics["fresh/val/accuracy"] == [(3, pytest.approx(sum(again) / 2))]
    assert parent.metrics["optimism"] == [(3, pytest.approx(best.values[0] - sum(again) / 2))]
    (artifacts,) = [path.parent for path in (place / "runs/artifacts").rglob("report.html")]
    assert (artifacts / "report.html").read_bytes() == (place / "runs/sweeps/try/report.html").read_bytes()
    drawn = {path.name for path in (place / "runs/sweeps/try/figures").iterdir()}
    assert {path.name for path in (artifacts / "figures").iterdir()} == drawn
    assert "optimization_history.png" in drawn
    with (artifacts / "table.csv").open(encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    assert [row["optimizer.lr"] for row in rows] == [record.options["optimizer.lr"] for record in records]
    assert [row["state"] for row in rows] == ["complete", "complete", "pruned"]
    assert [float(row["val/accuracy"]) for row in rows[:2]] == values[:2]
    described = parent.tags["mlflow.note.content"]
    assert described.splitlines()[2] == "| optimizer.lr | val/accuracy | test |"
    assert len(re.findall(r"(?m)^\| \d[\d.e-]* \| ", described)) == 3
    assert f"](get-artifact?path=figures/optimization_history.png&run_uuid={parent.identifier})" in described
    for record, name in zip(records, children, strict=True):
        tags = runs[name].tags
        assert (tags["dlframe.study"], tags["dlframe.trial"]) == ("try", str(record.number))
        assert tags["dlframe.options"] == f"optimizer.lr={record.options['optimizer.lr']}"
        assert tags["mlflow.runName"] == f"mlp · digits · lr={record.options['optimizer.lr']}"
        assert runs[name].status == ("FINISHED" if record.state == "complete" else "KILLED")
        assert tags.get("dlframe.state") == (None if record.state == "complete" else "pruned")
        assert [value for _, value in runs[name].metrics["val/accuracy"]] == [value for _, value in record.reported]


@pytest.mark.slow
def test_a_sweep_that_continues_is_the_same_run(place: Path) -> None:
    assert main([*SWEEP, "trials=1", "search.fresh_seeds=0"]) == 0
    assert main([*SWEEP, "trials=2", "search.fresh_seeds=0", "workers=2"]) == 0
    runs = runs_in(place / "runs/mlflow.db")
    assert {name: run.parent for name, run in runs.items()} == {"try": "", "try-0000": "try", "try-0001": "try"}
    assert [step for step, _ in runs["try"].metrics["best/val/accuracy"]] == [1, 2]
    assert (runs["try"].status, runs["try"].tags["dlframe.trials"]) == ("FINISHED", "2")


SLOW = ["epochs=400", "model.depth=4", "checkpoint.every_n_minutes=0", "checkpoint.every_n_steps=20"]


@pytest.fixture
def driver(place: Path) -> Iterator[subprocess.Popen[str]]:
    """A sweep that is in its first trial, and in the store."""
    command = [sys.executable, "-m", "dlframe", *SWEEP, *SLOW, "trials=2", "search.fresh_seeds=0"]
    with subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        until(
            lambda: UploadState.load(place / "runs/try-0000").run_id and UploadState.load(place / "runs/try-0000").parent, 120
        )
        assert UploadState.load(place / "runs/sweeps/try").status == "RUNNING"
        yield process
        process.kill()


def uploaders(place: Path) -> list[int]:
    """The upload processes of the runs in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            of = (entry / "cwd").resolve()
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if b"dlframe.tracking" in line and (place in (of, *of.parents) or str(place).encode() in line):
            found.append(int(entry.name))
    return found


@pytest.mark.slow
def test_a_killed_driver_is_closed_and_continues(place: Path, driver: subprocess.Popen[str]) -> None:
    driver.send_signal(signal.SIGKILL)
    until(lambda: UploadState.load(place / "runs/sweeps/try").status == "KILLED")
    until(lambda: UploadState.load(place / "runs/try-0000").status == "KILLED")
    before = UploadState.load(place / "runs/sweeps/try").run_id
    done = dlframe(*SWEEP, *SLOW, "trials=2", "search.fresh_seeds=0", cwd=place)
    assert done.returncode == 0, done.stderr
    runs = runs_in(place / "runs/mlflow.db")
    assert {name: (run.status, run.parent) for name, run in runs.items()} == {
        "try": ("FINISHED", ""),
        "try-0000": ("FINISHED", "try"),
        "try-0001": ("FINISHED", "try"),
    }
    assert UploadState.load(place / "runs/sweeps/try").run_id == before
    assert [step for step, _ in runs["try"].metrics["best/val/accuracy"]] == [1, 2]


@pytest.mark.slow
def test_sync_closes_a_study_whose_processes_were_all_killed(
    place: Path, driver: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = uploaders(place)
    assert found
    for process in (*found, driver.pid):
        os.kill(process, signal.SIGKILL)
    driver.wait()
    assert runs_in(place / "runs/mlflow.db")["try"].status == "RUNNING"
    capsys.readouterr()
    assert main(["sync"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "runs/sweeps/try: uploaded, KILLED",
        "runs/try-0000: uploaded, KILLED",
        "uploaded: 2 runs",
    ]
    assert {name: run.status for name, run in runs_in(place / "runs/mlflow.db").items()} == {
        "try": "KILLED",
        "try-0000": "KILLED",
    }


def write_run(folder: Path, uri: str, **start: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder)
    fields = {"run_name": folder.name, "experiment": "x", "parameters": {}, "tags": {}, "uri": uri, **start}
    journal.write("start", **fields)
    journal.write("end", status="FINISHED", message="")
    journal.close()
    remember(run=folder)


@pytest.mark.parametrize("first", ["study", "trial"])
def test_neither_waits_for_the_other(tmp_path: Path, first: str) -> None:
    """A trial that is in the store before its study is tagged with it later; others are left alone."""
    runs = tmp_path / "runs"
    uri = f"sqlite:///{runs}/mlflow.db"
    study, trial, other, named = runs / "sweeps/s", runs / "s-0000", runs / "s-0001", runs / "s-0002"
    write_run(study, uri)
    remember(study=study)
    write_run(trial, uri, study="s")
    write_run(other, uri)
    write_run(named, uri, study="t")
    for folder in (study, trial, other, named) if first == "study" else (trial, other, named, study):
        assert upload(folder) == ""
    found = runs_in(runs / "mlflow.db")
    assert {name: run.parent for name, run in found.items()} == {"s": "", "s-0000": "s", "s-0001": "", "s-0002": ""}


def test_a_journal_names_a_study_by_its_name_only(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    uri = f"sqlite:///{runs}/mlflow.db"
    write_run(runs / "sweeps/s", uri)
    remember(study=runs / "sweeps/s")
    assert upload(runs / "sweeps/s") == ""
    names: list[Any] = ["../s", "../sweeps/s", "/s", "", 3, None, ["s"], "s" * 200, "s\n"]
    for i, name in enumerate(names):
        write_run(runs / f"{i}", uri, study=name)
        assert upload(runs / f"{i}") == ""
    assert {run.parent for run in runs_in(runs / "mlflow.db").values()} == {""}


def test_what_is_somebody_elses_is_no_study(tmp_path: Path) -> None:
    """Its runs are below nothing, its page stays where it is, and its artifacts do not leave the folder that it is in."""
    runs = tmp_path / "runs"
    uri = f"sqlite:///{runs}/sweeps/mlflow.db"
    theirs = runs / "sweeps/s"
    theirs.mkdir(parents=True)
    (theirs / "report.html").write_text("<script>")
    journal = Journal(theirs)
    journal.write("start", run_name="s", experiment="x", parameters={}, tags={}, uri=uri)
    journal.write("artifact", path="report.html", to="")
    journal.write("end", status="FINISHED", message="")
    journal.close()
    said = upload(theirs)
    assert said.startswith(f"MLflow rejected 1 record of {theirs}/journal.jsonl: a page is that of a study of this user.")
    write_run(runs / "s-0000", uri, study="s")
    assert upload(runs / "s-0000", uri=uri) == ""
    assert runs_in(runs / "sweeps/mlflow.db")["s-0000"].parent == ""
    assert not [*tmp_path.rglob("artifacts/**/report.html")]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"study": 3}', "x" * 2**21, "[" * 5000])
def test_a_damaged_note_of_a_trial_is_none(tmp_path: Path, content: str) -> None:
    from dlframe.runs.study_journal import trial_of

    assert trial_of(tmp_path) == {}
    (tmp_path / "trial.json").write_text(content)
    assert trial_of(tmp_path) == {}
    write_trial(tmp_path, study="s", trial=3, options=["a=1", "b=ü"])
    tags = {"dlframe.study": "s", "dlframe.trial": 3, "dlframe.options": "a=1 b=ü"}
    assert trial_of(tmp_path) == {"study": "s", "tags": tags}


def test_a_store_that_does_not_answer_is_told_before_the_first_trial(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SWEEP, f"tracking.uri=http://127.0.0.1:{free_port()}"]) == 2
    assert "\nerror: tracking.uri: no MLflow server at http://127.0.0.1:" in capsys.readouterr().err
    assert not [*place.glob("runs/try-*")]


@pytest.mark.slow
def test_a_server_has_the_study(place: Path) -> None:
    server = MlflowServer(place / "server")
    try:
        server.wait()
        assert main([*SWEEP, f"tracking.uri={server.uri}", "trials=2", "search.fresh_seeds=0", "workers=2"]) == 0
    finally:
        server.kill()
    runs = runs_in(place / "server" / "mlflow.db")
    assert {name: (run.status, run.parent) for name, run in runs.items()} == {
        "try": ("FINISHED", ""),
        "try-0000": ("FINISHED", "try"),
        "try-0001": ("FINISHED", "try"),
    }
    assert len([*(place / "server" / "served").rglob("report.html")]) == 1
