"""What `python benchmarks/recommendation.py` prints of finished runs."""

import numpy as np
import pytest
from benchmarks import recommendation
from benchmarks.recommendation import METRICS, Row, interval, read, told

from dlframe.config import load
from dlframe.jobs.train import run
from dlframe.registry import plugins
from dlframe.types import DataError

plugins.discover()


def row(mean: float, seed: int = 0) -> Row:
    """A run whose users have NDCGs around the mean."""
    values = np.random.default_rng(seed).normal(0, 0.02, 400)
    values += mean - values.mean()
    return Row(dict.fromkeys(METRICS, mean), {f"user {i}": float(value) for i, value in enumerate(values)})


def test_the_interval_of_a_seed_is_that_of_a_mean_over_users():
    one = row(0.17)
    values = np.array([*one.users.values()])
    half = 1.966 * values.std(ddof=1) / len(values) ** 0.5
    assert [interval([one]).low, interval([one]).high] == pytest.approx([0.17 - half, 0.17 + half], abs=1e-5)
    both = interval([row(0.16), row(0.18, seed=1)])
    assert both.value == pytest.approx(0.17)
    assert both.low < 0.16 < 0.18 < both.high, "two seeds that far apart"


@pytest.mark.parametrize(("mean", "place"), [(0.15, "above"), (0.1739, "within"), (0.2, "below")])
def test_a_twin_above_the_interval_is_told(mean, place, capsys):
    assert told("ratio", "lightgcn", [row(mean)]) == (place != "above")
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == place


def test_runs_on_other_data_are_refused(tmp_path, monkeypatch, capsys):
    result = run(load(["task=recommendation", "model=popular", "tracking=none", "figures=none", f"runs={tmp_path}"]))
    assert result.folder
    with pytest.raises(DataError, match=r"must be a run on data=ml100k with all ratings, task\.k=10 and task\.gain=binary"):
        read(result.folder)
    monkeypatch.setattr("sys.argv", ["recommendation.py", str(result.folder)])
    with pytest.raises(SystemExit) as stopped:
        recommendation.main()
    assert stopped.value.code == 2
    assert "must be a run on data=ml100k" in capsys.readouterr().err
