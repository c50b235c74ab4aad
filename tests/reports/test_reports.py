"""What the last lines of a run and the table of a sweep say of undefined values."""

from __future__ import annotations

import dataclasses
import math
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from dlframe.reports.table import Row, table
from dlframe.reports.terminal import by_class, summary
from dlframe.types import Estimate, Metric, Result

FRACTION = Metric(better="max", low=0.0, high=1.0, unit="fraction")


def result(interval: Estimate, notes: tuple[str, ...] = ()) -> Result:
    metrics = {"f1": interval.value, "kappa": math.nan}
    declared = {"f1": FRACTION, "kappa": Metric(better="max", low=-1.0, high=1.0)}
    return Result(None, "f1", metrics, interval, ("base rate", {"f1": 0.1}), 60, declared, 1.0, notes=[*notes])


def test_the_summary_tells_undefined_resamples_metrics_and_notes():
    lines = summary(
        result(Estimate(0.5, 0.2, 0.8, 13, 500), ("mape is over the 59 of 60 targets that are not 0",))
    ).splitlines()
    assert lines == [
        "test f1 50.00 % (95 % interval 20.00 to 80.00 %, 13 of 500 resamples undefined, 60 samples); base rate 10.00 %; 1.0 s",
        "     kappa undefined",
        "     mape is over the 59 of 60 targets that are not 0",
    ]
    assert summary(result(Estimate(0.5, 0.2, 0.8, 0, 500))).splitlines() == [
        "test f1 50.00 % (95 % interval 20.00 to 80.00 %, 60 samples); base rate 10.00 %; 1.0 s",
        "     kappa undefined",
    ]
    without = summary(result(Estimate(0.5, math.nan, math.nan)))
    assert without.startswith("test f1 50.00 % (95 % interval undefined, 60 samples); base rate 10.00 %; 1.0 s")


def test_of_many_classes_the_worst_are_shown():
    own = result(Estimate(0.5, 0.2, 0.8))
    few = {"class": ["cat\x1b[1m", "x" * 50], "f1": [0.5, math.nan], "samples": [1200, 0]}
    assert by_class(few, own) == [
        f"{'class':<40}  {'f1':>9}  samples",
        f"{'cat' + chr(92) + 'x1b[1m':<40}  {'50.00 %':>9}    1,200",
        f"{'x' * 39}…  undefined        0",
    ]
    many = {"class": [f"c{i}" for i in range(30)], "f1": [math.nan, *(1 - i / 30 for i in range(29))], "samples": [3] * 30}
    _, *rows, last = by_class(many, own)
    assert [row.split()[0] for row in rows] == [f"c{i}" for i in range(29, 9, -1)]
    assert last == "the 20 with the lowest f1 of 30"
    assert by_class({}, own) == []


THEIRS = ["model=mlp", "data.path=mine", "plugin_paths=evil.py", "tracking.uri=x", "model.file=a/b", "run_name=$HOME"]


def commands(typed: list[str]) -> list[str]:
    told = dataclasses.replace(result(Estimate(0.5, 0.2, 0.8)), folder=Path("a run"), overrides=THEIRS)
    return summary(told, typed).splitlines()[-5:]


def test_what_only_a_run_directory_names_is_in_no_command():
    """No code, no file, no address: whoever pastes the line has not chosen them."""
    assert commands(["plugin_paths=own.py"]) == [
        "run  'a run'",
        "next python -m dlframe test 'a run' plugin_paths=own.py",
        "     python -m dlframe -m plugin_paths=own.py model=mlp 'run_name=$HOME' seed=0,1,2",
        "     python -m dlframe ui runs=.",
        "     without data.path, model.file, plugin_paths, tracking.uri: only the run directory names it, so look at "
        "overrides.txt before you type it",
    ]


def test_what_was_typed_is_in_the_commands():
    (*_, again, _) = commands(THEIRS)
    assert shlex.split(again)[4:-1] == THEIRS


def test_the_table_of_a_sweep_tells_undefined_resamples():
    def line(*interval: float) -> str:
        head, line, baseline = table([Row("seed=0", "", result(Estimate(*interval)))]).splitlines()[1:]  # type: ignore[arg-type]
        assert head.split() == ["job", "f1", "(95", "%", "interval)", "time", "run"]
        assert baseline == "baseline: base rate 10.00 %"
        return line

    assert line(0.5, 0.2, 0.8, 13, 500) == "seed=0  50.00 % (20.00 to 80.00 %, 13 of 500 resamples undefined)  1.0 s  None"
    assert line(0.5, 0.2, 0.8, 0, 500) == "seed=0  50.00 % (20.00 to 80.00 %)  1.0 s  None"
    never = (math.nan, math.nan, math.nan, 500, 500)
    assert line(*never) == "seed=0  undefined (500 of 500 resamples undefined)  1.0 s  None"


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_the_terminal(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    title = "model=mlp optimizer.lr=0.001 optimizer.weight_decay=0.01 seed="
    rows = [
        Row(f"{title}{i}", "mlp", replace(result(Estimate(0.5, 0.2, 0.8)), folder=Path(f"runs/grid-{i:04d}"))) for i in range(2)
    ]
    lines = table(rows).splitlines()
    assert max(map(len, lines)) <= columns
    assert "runs: runs/grid-NNNN" in lines
    if columns == 80:
        assert lines[3:5] == [f"{title}0", "    50.00 % (20.00 to 80.00 %), 1.0 s, 0000"]


def test_what_differs_from_job_to_job_stands_in_its_line():
    one = result(Estimate(0.5, 0.2, 0.8))
    other = replace(one, headline="kappa", limited="trainer.limit_batches=2", baseline=("base rate", {"f1": 0.1, "kappa": 0.0}))
    _, head, first, second = table([Row("a", "", one), Row("b", "", other)]).splitlines()
    assert head.split() == ["job", "result", "(95", "%", "interval)", "time", "run"]
    assert first == "a    f1 50.00 % (20.00 to 80.00 %)  1.0 s  None; baseline: base rate 10.00 %"
    assert second.endswith("1.0 s  None; baseline: base rate 0; limited: trainer.limit_batches=2")


@pytest.mark.parametrize(
    ("options", "next_ones"),
    [
        ({}, ["test runs/a", "-m epochs=2 seed=0,1,2", "ui"]),
        ({"tested": True}, ["-m epochs=2 seed=0,1,2", "ui"]),
        ({"tracked": False}, ["test runs/a", "-m epochs=2 seed=0,1,2"]),
    ],
)
def test_the_next_commands_make_sense_where_they_stand(options, next_ones):
    own = replace(result(Estimate(0.5, 0.2, 0.8)), folder=Path("runs/a"), overrides=("epochs=2", "seed=1"))
    *_, place = (i for i, line in enumerate(summary(own, **options).splitlines()) if line.startswith("run  "))
    commands = summary(own, **options).splitlines()[place + 1 :]
    assert [line.split(" dlframe ")[1] for line in commands] == next_ones
    assert [line[:7] for line in commands] == ["next py", *["     py"] * (len(commands) - 1)]


def test_the_grid_of_seeds_resumes_nothing():
    own = replace(result(Estimate(0.5, 0.2, 0.8)), folder=Path("runs/a"), overrides=("epochs=2", "seed=1"))
    assert not [line for line in summary(own, ["resume=runs/a", "epochs=2"]).splitlines() if "resume=" in line]


def test_the_figures_that_are_proposed_are_those_of_the_best_job():
    rows = [Row(f"seed={i}", "", replace(result(Estimate(0.5, 0.2, 0.8)), folder=Path(f"runs/{i}"))) for i in range(3)]

    def last(rows: list[Row], best: Path | None) -> str:
        return table(rows, best=best, monitor="val/f1").splitlines()[-1]

    request = "figures are drawn on request: python -m dlframe figures runs/"
    assert last(rows, Path("runs/1")) == f"{request}1 (the best by val/f1)"
    assert last(rows, None) == last(rows, Path("elsewhere")) == f"{request}0"
    assert last(rows[:1], Path("runs/0")) == f"{request}0"


def test_a_job_that_was_interrupted_has_not_failed():
    shown = table([Row("seed=0", "", None, "loss is NaN"), Row("seed=1", "", None)])
    assert [line.split(maxsplit=1)[1] for line in shown.splitlines()[1:]] == [
        "result",
        "FAILED loss is NaN",
        "not finished",
    ]
