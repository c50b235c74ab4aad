"""How metrics are computed: what torchmetrics gives for an undefined value, in every process, is NaN."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor
from torchmetrics import MeanSquaredError, Metric, R2Score
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision, MulticlassAUROC, MulticlassAveragePrecision
from torchmetrics.utilities.prints import rank_zero_only

from dlframe.engine.evaluation import computed
from dlframe.types import DataError

PROBABILITY = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
SEEN = ("probability", "target")
VALUES = {"prediction": torch.ones(3), "target": torch.zeros(3)}


def of(metric: Metric, probability: Tensor, *target: int) -> float:
    return computed(metric, {"probability": probability, "target": torch.tensor(target)}, SEEN)


@pytest.mark.parametrize("rank", [0, 1])
def test_what_torchmetrics_announces_as_undefined_is_nan(rank, monkeypatch):
    """A metric of a plugin, used as it is; torchmetrics itself gives 0, and warns in the first process only."""
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    assert math.isnan(of(MulticlassAUROC(3), PROBABILITY, 0, 1, 1, 0))
    assert math.isnan(of(MulticlassAveragePrecision(3), PROBABILITY, 0, 0, 0, 0))
    for targets in ((0, 0, 0, 0), (1, 1, 1, 1)):
        assert math.isnan(of(BinaryAUROC(), PROBABILITY[:, 0], *targets))
    assert math.isnan(of(BinaryAveragePrecision(), PROBABILITY[:, 0], 0, 0, 0, 0))
    assert of(MulticlassAUROC(3), PROBABILITY, 0, 0, 1, 2) == 1
    assert rank_zero_only.rank == rank


def test_too_few_samples_are_undefined_and_other_errors_are_errors():
    values = {"prediction": torch.ones(1, 2), "target": torch.zeros(1, 2)}
    assert math.isnan(computed(R2Score(), values, ("prediction", "target")))
    with pytest.raises(ValueError, match="1D or 2D"):
        computed(R2Score(), {name: rows[None] for name, rows in values.items()}, ("prediction", "target"))


def test_values_are_given_in_double_precision():
    target = torch.arange(100.0) + 1e5
    values = {"prediction": target + 1, "target": target}
    exact = 1 - 1 / torch.arange(100.0).double().var(correction=0).item()
    assert computed(R2Score(), values, ("prediction", "target")) == pytest.approx(exact, abs=1e-6)
    assert computed(MeanSquaredError(), values, ("prediction", "target")) == 1
    assert values["target"].dtype == torch.float32


def test_nan_is_undefined_and_what_is_no_probability_is_refused():
    assert math.isnan(of(MulticlassAUROC(3), PROBABILITY * torch.tensor([1, 1, math.nan]), 0, 1, 1, 2))
    with pytest.raises(DataError, match=r"^task: score 'probability' must be within \[0, 1\]. Received: 1.4.$"):
        of(MulticlassAUROC(3), 2 * PROBABILITY, 0, 1, 1, 2)


def test_other_warnings_are_passed_on():
    class Talking(MeanSquaredError):
        def compute(self) -> Tensor:
            warnings.warn("few samples", UserWarning, stacklevel=1)
            return super().compute()

    with pytest.warns(UserWarning, match="few samples"):
        assert computed(Talking(), VALUES, ("prediction", "target")) == 1


def test_processes_do_not_add_up_the_samples_that_each_has():
    def gather(*_, **__):
        raise AssertionError("every process has all scores")

    metric = MeanSquaredError(dist_sync_fn=gather, distributed_available_fn=lambda: True)
    assert computed(metric, VALUES, ("prediction", "target")) == 1
