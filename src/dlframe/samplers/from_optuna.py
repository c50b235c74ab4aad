"""Samplers of Optuna.

A sampler is made anew for each trial, with a seed of its own: what it chooses follows from the trials before and from nothing
else, so that a search can be stopped, continued and shared. What a sampler cannot choose well it chooses at random: text and
booleans for `cmaes`.
"""

from __future__ import annotations

import warnings
from typing import Any

from optuna import samplers as optuna_samplers
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler

from dlframe.registry import Count, Natural, samplers


@samplers.register("tpe", objectives="many")
def tpe(seed: int, number: int, *, warmup_trials: Natural = 10, candidates: Count = 24) -> BaseSampler:
    """Tree-structured Parzen estimator (Bergstra et al. 2011).

    All options of a trial are chosen together, groups of conditional ones apart; trials that still run count as bad ones, so
    that workers do not choose the same.

    Args:
        warmup_trials: Trials at random before the first choice.
        candidates: Points that are compared for each choice.
    """
    options: dict[str, Any] = {"multivariate": True, "group": True, "constant_liar": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return optuna_samplers.TPESampler(
            seed=seed + number, n_startup_trials=warmup_trials, n_ei_candidates=candidates, **options
        )


@samplers.register("random", objectives="many")
def random(seed: int, number: int) -> BaseSampler:
    """Independent random points (Bergstra and Bengio 2012)."""
    return optuna_samplers.RandomSampler(seed=seed + number)


@samplers.register("qmc", objectives="many")
def qmc(seed: int, number: int) -> BaseSampler:
    """Quasi-Monte Carlo: a scrambled Sobol sequence, which covers the space more evenly than random points."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return optuna_samplers.QMCSampler(seed=seed, scramble=True, warn_asynchronous_seeding=False)


@samplers.register("gp", objectives="many")
def gp(seed: int, number: int, *, warmup_trials: Count = 10) -> BaseSampler:
    """Gaussian process with expected improvement, for few and expensive trials.

    Args:
        warmup_trials: Trials at random before the first choice.
    """
    return optuna_samplers.GPSampler(seed=seed + number, n_startup_trials=warmup_trials)


@samplers.register("cmaes")
def cmaes(seed: int, number: int, *, warmup_trials: Count = 10) -> BaseSampler:
    """Covariance matrix adaptation (Hansen 2016, arXiv 1604.00772), for many trials over numbers.

    Args:
        warmup_trials: Trials at random before the first choice.
    """
    return optuna_samplers.CmaEsSampler(seed=seed + number, n_startup_trials=warmup_trials)


@samplers.register("nsga2", objectives="many")
def nsga2(seed: int, number: int, *, population: Count = 50) -> BaseSampler:
    """Genetic algorithm with non-dominated sorting (Deb et al. 2002), for several objectives.

    Args:
        population: Trials in a generation.
    """
    return optuna_samplers.NSGAIISampler(seed=seed + number, population_size=max(2, population))


@samplers.register("grid", objectives="many", exhaustive=True)
def grid(seed: int, number: int) -> BaseSampler:
    """Every point of the space once, in order."""
    return optuna_samplers.RandomSampler(seed=seed + number)  # the study gives each trial its point
