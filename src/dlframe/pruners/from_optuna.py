"""Pruners of Optuna: they compare the monitored metric of a trial, epoch by epoch, with that of others."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Interval
from optuna import pruners as optuna_pruners
from optuna.pruners import BasePruner

from dlframe.registry import Count, Natural, pruners

Percent = Annotated[float, Interval(gt=0, lt=100)]
Factor = Annotated[int, Interval(ge=2)]


@pruners.register("none")
def none(epochs: int) -> BasePruner:
    """No trial is ended early."""
    return optuna_pruners.NopPruner()


@pruners.register("median")
def median(epochs: int, *, warmup_epochs: Natural = 3, warmup_trials: Natural = 10) -> BasePruner:
    """End trials whose best value so far is worse than the median of the others at that epoch (Golovin et al. 2017).

    Args:
        warmup_epochs: Epochs in which no trial is ended.
        warmup_trials: Trials that finish before any is ended.
    """
    return optuna_pruners.MedianPruner(n_startup_trials=warmup_trials, n_warmup_steps=warmup_epochs)


@pruners.register("percentile")
def percentile(
    epochs: int, *, keep_percent: Percent = 25.0, warmup_epochs: Natural = 3, warmup_trials: Natural = 10
) -> BasePruner:
    """End trials whose best value so far is not among the best of the others at that epoch.

    Args:
        keep_percent: Share of trials that go on, in percent.
        warmup_epochs: Epochs in which no trial is ended.
        warmup_trials: Trials that finish before any is ended.
    """
    return optuna_pruners.PercentilePruner(keep_percent, n_startup_trials=warmup_trials, n_warmup_steps=warmup_epochs)


@pruners.register("halving")
def halving(epochs: int, *, min_epochs: Count = 1, reduction_factor: Factor = 4) -> BasePruner:
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934): at each rung the best go on.

    Args:
        min_epochs: Epochs of the first rung; each next one has `reduction_factor` times as many.
        reduction_factor: One of so many trials goes on.
    """
    return optuna_pruners.SuccessiveHalvingPruner(min_resource=min_epochs, reduction_factor=reduction_factor)


@pruners.register("hyperband")
def hyperband(epochs: int, *, min_epochs: Count = 1, reduction_factor: Factor = 3) -> BasePruner:
    """Hyperband (Li et al. 2018, arXiv 1603.06560): successive halvings that begin with fewer and longer trials.

    Args:
        min_epochs: Epochs of the first rung of the first bracket.
        reduction_factor: One of so many trials goes on.
    """
    return optuna_pruners.HyperbandPruner(
        min_resource=min(min_epochs, epochs), max_resource=epochs, reduction_factor=reduction_factor
    )
