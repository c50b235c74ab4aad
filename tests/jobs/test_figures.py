"""Figures that are drawn later, from the directory of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlframe.cli import main
from dlframe.config import load
from dlframe.jobs.figures import draw
from dlframe.jobs.train import run
from dlframe.reports.table import Row, table
from dlframe.runs.journal import Journal, ended, history, read
from dlframe.types import ConfigError

ALL = ["by_class.png", "confusion_matrix.png", "learning_curve.png", "reliability.png", "samples.png"]


def trained(tmp_path: Path, *overrides: str, pending: list | None = None):
    options = ["model=mlp", "epochs=1", "tracking=none", "trainer.num_threads=1", f"runs={tmp_path / 'runs'}"]
    return run(load([*options, *overrides]), pending=pending)


def drawn(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((folder / "figures").glob("*"))}


def test_figures_drawn_later_are_those_drawn_at_the_end_of_the_run(tmp_path):
    single = trained(tmp_path)
    trial = trained(tmp_path, pending=[])
    assert sorted(drawn(single.folder)) == ALL
    assert not (trial.folder / "figures").exists()
    draw(trial.folder)
    later, at_once = drawn(trial.folder), drawn(single.folder)
    assert sorted(later) == ALL
    assert [name for name in ALL if later[name] != at_once[name]] == ["learning_curve.png"]  # without training samples
    draw(single.folder)
    assert drawn(single.folder) == at_once
    assert ended(trial.folder) == "FINISHED"
    paths = [record["path"] for record in read(trial.folder) if record["kind"] == "artifact"]
    assert sorted(path for path in paths if path.startswith("figures/")) == [f"figures/{name}" for name in ALL]


@pytest.mark.parametrize(("value", "study", "count"), [("now", True, 5), ("none", False, 0), ("none", True, 0)])
def test_the_option_says_when_figures_are_drawn(tmp_path, value, study, count):
    result = trained(tmp_path, f"figures={value}", pending=[] if study else None)
    assert len(drawn(result.folder)) == count


def test_a_table_says_how_figures_are_drawn(tmp_path):
    result = trained(tmp_path, pending=[])
    command = f"python -m dlframe figures {result.folder}"
    assert table([Row("seed=0", "-", result)]).endswith(command)
    draw(result.folder)
    assert command not in table([Row("seed=0", "-", result)])


def test_the_figures_of_a_part_show_the_samples_that_were_scored(tmp_path):
    """Bitwise those of the run, which scored 1 batch of 2."""
    single = trained(tmp_path, "trainer.limit_batches=1")
    trial = trained(tmp_path, "trainer.limit_batches=1", pending=[])
    draw(trial.folder)
    later, at_once = drawn(trial.folder), drawn(single.folder)
    assert [name for name in ALL if later[name] != at_once[name]] == ["learning_curve.png"]


def test_training_samples_are_scored_where_figures_are_drawn_and_the_numbers_are_the_same(tmp_path):
    single = trained(tmp_path, "epochs=3")
    trial = trained(tmp_path, "epochs=3", "figures=none")
    curves, others = history(single.folder), history(trial.folder)
    assert [step for step, _ in curves["train/accuracy"]] == [17, 34, 51]
    assert curves["train/accuracy"][-1][1] > 0.9
    assert {name: points for name, points in curves.items() if name != "train/accuracy"} == others


def test_the_training_samples_of_a_curve_have_labels_and_are_no_more_than_those_of_validation(tmp_path):
    """80 of 1,078 have labels, which the model learns by heart: not so the other 998."""
    result = trained(tmp_path, "epochs=60", "labels_per_class=8", "validate_every=60", "monitor=val/f1")
    curves = history(result.folder)
    assert [value for _, value in curves["train/accuracy"]] == [1.0]
    assert [value for _, value in curves["train/f1"]] == [pytest.approx(1)]
    assert curves["val/accuracy"][-1][1] < 0.95


def test_bad_input(tmp_path, capsys):
    assert main(["figures"]) == 2
    assert "requires run directories" in capsys.readouterr().err
    assert main(["figures", str(tmp_path / "none")]) == 2
    assert "is not a run directory" in capsys.readouterr().err
    assert main(["figures", "x=1", str(tmp_path)]) == 2
    assert "x: no such option" in capsys.readouterr().err


def test_a_run_that_is_written_and_one_with_links_are_refused(tmp_path):
    result = trained(tmp_path, pending=[])
    journal = Journal(result.folder)
    with pytest.raises(ConfigError, match="another process is writing"):
        draw(result.folder)
    journal.close()
    (result.folder / "figures").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match=r"figures: .* must hold no links"):
        draw(result.folder)
    assert not [*tmp_path.glob("*.png")]


def test_figures_of_a_tracked_run_reach_its_mlflow_run(tmp_path):
    pending: list = []
    result = trained(tmp_path, "tracking=mlflow", pending=pending)
    assert [tracker.wait(120) for tracker in pending] == [""]
    assert main(["figures", str(result.folder)]) == 0
    state = json.loads((result.folder / "tracking.json").read_text())
    stored = tmp_path / "runs" / "artifacts"
    found = sorted(path.name for path in stored.rglob("figures/*.png") if state["run_id"] in path.parts)
    assert found == ALL
    assert state["offset"] == (result.folder / "journal.jsonl").stat().st_size
