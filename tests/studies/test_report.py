"""The report of a study: its figures, its page, and how much too good the search was."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from scipy import stats

from dlframe.cli import main
from dlframe.runs.journal import ended, history
from dlframe.runs.study_journal import StudyJournal
from dlframe.studies import report
from dlframe.studies.study import Manifest, Study, read_manifest
from dlframe.types import Estimate, Objective

SPACE = {"model.width": CategoricalDistribution(("4", "8")), "optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True)}
ONE = [["val/accuracy", "max", "fraction"]]
TWO = [*ONE, ["parameters", "min", ""]]


def begin(name: str = "s", *, objectives: list[list[str]] = ONE, trials: int = 12, folder: Path = Path("runs")) -> Study:
    manifest = Manifest(
        fixed=["model=mlp"],
        space=["model.width=4,8", "optimizer.lr from 0.0001, 0.1 (log)"],
        objectives=objectives,
        sampler={"name": "tpe", "candidates": 24},
        pruner={"name": "none"},
        seed=0,
        seeds=1,
        plugins={},
        packages={},
        trials=trials,
        storage="journal",
    )
    return Study.begin(folder / "sweeps" / name, manifest)


def add(study: Study, width: str, lr: float, *values: float, state: TrialState = TrialState.COMPLETE) -> None:
    study.optuna.add_trial(
        create_trial(
            state=state,
            params={"model.width": width, "optimizer.lr": lr},
            distributions=SPACE,
            values=values or None,
            intermediate_values={1: 0.2, 2: values[0]} if values else {1: 0.1},
            user_attrs={} if values or state != TrialState.FAIL else {"failure": "<script>alert(1)</script>"},
        )
    )


def filled(study: Study) -> Study:
    """Its value rises with the learning rate, whatever the width."""
    for i, lr in enumerate(np.geomspace(1e-4, 1e-1, 10)):
        add(study, "48"[i % 2], float(lr), 0.5 + 0.04 * i, *([100.0 * (i % 3)] if len(study.objectives) > 1 else []))
    add(study, "4", 1e-3, state=TrialState.PRUNED)
    add(study, "8", 1e-3, state=TrialState.FAIL)
    return study


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


FIGURES = ["importance_of_options", "intermediate_values", "optimization_history", "parallel_coordinates", "slices"]


def test_the_report_has_every_figure_and_trial(capsys):
    study = filled(begin())
    page = report.write(study, command="python -m dlframe sweep 'a=choice(1,2)'")
    assert page == study.folder / "report.html"
    drawn = sorted((study.folder / "figures").iterdir())
    assert [path.stem for path in drawn] == FIGURES
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for path in drawn)
    text = page.read_text(encoding="utf-8")
    assert text.count("<img ") == 5
    assert "86.00 %" in text
    assert "<pre>python -m dlframe sweep &#x27;a=choice(1,2)&#x27;</pre>" in text
    assert "<script>alert" not in text
    links = re.findall(r'href="([^"]+)"', text)
    assert {os.path.normpath(page.parent / link) for link in links} == {f"runs/s-{i:04d}" for i in range(12)}
    assert not [*study.folder.rglob("*.part")]


def test_what_varies_is_read_from_the_trials():
    width, lr = report.dimensions_of(filled(begin()))
    assert (width.key, width.values, width.log) == ("model.width", ("4", "8"), False)
    assert (lr.key, lr.values, lr.log) == ("optimizer.lr", (), True)


def test_importance_is_that_of_the_option_that_decides():
    found = filled(begin()).importance()
    assert sum(found.values()) == pytest.approx(1)
    assert found["optimizer.lr"] > 0.9


def test_two_objectives_have_a_pareto_front():
    study = filled(begin(objectives=TWO))
    report.write(study)
    assert sorted(path.stem for path in (study.folder / "figures").iterdir()) == sorted([*FIGURES, "pareto_front"])
    assert report.fresh_of(study, study.best()) is None


def test_a_study_without_a_trial_has_a_page():
    study = begin()
    text = report.write(study).read_text()
    assert "0 of 12 trials: none begun" in text
    assert "No trial is complete yet." in text
    assert "<pre>" not in text
    add(study, "4", 1e-2, 0.5)
    assert report.write(study).read_text().count("<img ") == 4, "importance takes more trials"
    assert report.write(study, draw=False).read_text().count("<img ") == 0


@pytest.mark.parametrize(("fresh", "optimism"), [([0.80, 0.84, 0.79], 0.05), ([0.9, 0.92], -0.05), ([0.81], 0.05)])
def test_fresh_seeds_tell_how_much_too_good_the_search_was(fresh, optimism):
    study = filled(begin())
    best = study.best()
    assert report.fresh_of(study, best) is None
    grid = begin(report.fresh_name(study, best), trials=len(fresh))
    for value in fresh:
        add(grid, "4", 1e-2, value)
    add(grid, "4", 1e-2, state=TrialState.FAIL)
    found = report.fresh_of(study, best)
    assert found.seeds == len(fresh)
    assert found.optimism == pytest.approx(optimism)
    estimate = found.estimate
    assert estimate.value == pytest.approx(np.mean(fresh))
    if len(fresh) == 1:
        assert math.isnan(estimate.low)
        assert (
            found.text(study.objectives[0], 0.86) == "search 86.00 %, a fresh seed 81.00 %: the search was 5.00 points too good"
        )
        return
    low, high = stats.t.interval(0.95, len(fresh) - 1, np.mean(fresh), stats.sem(fresh))
    assert (estimate.low, estimate.high) == pytest.approx((low, min(high, 1)))
    assert f"On {len(fresh)} fresh seeds" in report.write(study).read_text()


@pytest.mark.parametrize(
    ("unit", "optimism", "said"),
    [
        (
            "fraction",
            0.012,
            "search 93.30 %, 3 fresh seeds 92.10 % (90.00 to 94.20 %), over seeds alone: the search was 1.20 points too good",
        ),
        (
            "fraction",
            -0.003,
            "search 93.30 %, 3 fresh seeds 92.10 % (90.00 to 94.20 %), over seeds alone: "
            "the search was not too good: the fresh seeds are 0.30 points better",
        ),
        ("", 0.012, "search 0.933, 3 fresh seeds 0.921 (0.9 to 0.942), over seeds alone: the search was 0.012 too good"),
    ],
)
def test_optimism_in_words(unit, optimism, said):
    fresh = report.Fresh(estimate=Estimate(0.921, 0.9, 0.942), seeds=3, optimism=optimism)
    assert fresh.text(Objective(metric="val/x", better="max", unit=unit), 0.933) == said


def test_fresh_seeds_of_another_metric_are_left_out():
    study = filled(begin())
    grid = begin(report.fresh_name(study, study.best()), objectives=[["val/f1", "max", "fraction"]])
    add(grid, "4", 1e-2, 0.5)
    assert report.fresh_of(study, study.best()) is None


def test_the_view_draws_a_study_of_anybody(tmp_path, monkeypatch, capsys):
    """But prints no command of a study, and follows no link."""
    filled(begin())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    assert main(["sweep", "report", "s"]) == 0
    assert capsys.readouterr().out == "page runs/sweeps/s/report.html\n"
    assert "<pre>" not in Path("runs/sweeps/s/report.html").read_text()
    outside = tmp_path / "outside"
    outside.mkdir()
    for link in ("report.html", ".report.html.part", "figures/slices.png"):
        path = Path("runs/sweeps/s") / link
        path.unlink(missing_ok=True)
        path.symlink_to(outside / "file")
        assert main(["sweep", "report", "s"]) == 2
        assert capsys.readouterr().err.startswith("error: sweep report: runs/sweeps/s must hold no links. Received: ")
        path.unlink()
    assert [*outside.iterdir()] == []


def test_bad_input_of_the_view(capsys):
    assert main(["sweep", "report"]) == 2
    assert main(["sweep", "report", "nope"]) == 2
    filled(begin())
    assert main(["sweep", "report", "s", "draw=1"]) == 2
    Path("runs/sweeps/s/figures").write_text("a file")
    assert main(["sweep", "report", "s"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4
    assert told[3] == "error: runs/sweeps/s: cannot be written: File exists."


def test_a_sweep_ends_with_its_report(capsys):
    options = ["sweep", "model=mlp", "epochs=2", "tracking=none", "optimizer.lr=choice(1e-3,1e-2)", "trials=2", "name=try"]
    assert main([*options, "search.fresh_seeds=2"]) == 0
    said = capsys.readouterr().out
    study = Study(Path("runs/sweeps/try"), read_manifest(Path("runs/sweeps/try")))
    best = study.best()
    name = report.fresh_name(study, best)
    fresh = Study(Path("runs/sweeps") / name, read_manifest(Path("runs/sweeps") / name)).records()
    assert [record.overrides for record in fresh] == [["seed=1001"], ["seed=1002"]]
    mean = np.mean([record.values[0] for record in fresh])
    assert f"search {100 * best.values[0]:.2f} %, 2 fresh seeds {100 * mean:.2f} % (" in said
    assert f"{100 * abs(best.values[0] - mean):.2f} points" in said
    assert said.endswith("page runs/sweeps/try/report.html\nnext python -m dlframe sweep export try\n")
    text = Path("runs/sweeps/try/report.html").read_text()
    assert (
        "python -m dlframe sweep model=mlp epochs=2 tracking=none &#x27;optimizer.lr=choice(1e-3,1e-2)&#x27; trials=2" in text
    )
    assert f"{100 * mean:.2f} %" in text
    assert not Path("runs/sweeps/try/journal.jsonl").exists(), "nothing is uploaded"
    assert not Path("runs/sweeps/try/tracking.json").exists()


def test_best_values_so_far_are_written_once(tmp_path):
    """The lowest, of an objective that is better if lower; not again by a process that continues."""
    study = begin(objectives=TWO)
    journal = StudyJournal(study.folder, study.objectives, {"uri": ""})
    assert journal.open()
    assert not journal.open()
    for values in ((0.5, 30.0), (0.4, 20.0), (0.6, 40.0)):
        add(study, "4", 1e-2, *values)
        for _ in range(2):
            journal.update(study.records())
    other = StudyJournal(study.folder, study.objectives, {"uri": ""})
    assert not other.open(), "one process writes"
    other.update(study.records())
    journal.end("KILLED")
    assert other.open()
    other.update(study.records())
    other.end("FINISHED")
    assert history(study.folder) == {
        "best/val/accuracy": [(1, 0.5), (2, 0.5), (3, 0.6)],
        "best/parameters": [(1, 30.0), (2, 20.0), (3, 20.0)],
    }
    assert ended(study.folder) == "FINISHED"
