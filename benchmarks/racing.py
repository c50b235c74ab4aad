"""Error rates and savings of races over seeds, by simulation.

    python benchmarks/racing.py [repetitions=150] [seed=0]

First table: how often (%) a race of `dlframe.statistics.racing` eliminates the best candidate at alpha = 5 %, and which part
of the trainings it saves. Rows are kinds of noise, whose standard deviation is about 1. In "tied" all candidates are equally
good, and the error is that of one of them, named before (of any, where they differ in nothing): the hardest case for the
test, though nothing is lost by it. In "spread" the others are worse by gaps of an exponential distribution with mean 6;
"loss" is what the winner's true value loses against that of the winner after all seeds.
Second table: other ways to save seeds, with normal noise. Third: the estimated optimism of the best mean against the true one.
Rates are printed with their Monte-Carlo standard errors.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from dlframe.statistics.optimism import winner
from dlframe.statistics.racing import race

ALPHA = 0.05
DESIGNS = ((6, 3), (10, 3), (30, 3), (30, 5), (100, 5), (10, 10))
"""Candidates, seeds."""
CRASH = 0.02

Draw = Callable[[np.random.Generator, np.ndarray, int], np.ndarray]
Procedure = Callable[[np.ndarray], tuple[np.ndarray, float]]
"""From values (candidates, seeds) to who is alive and the part of the trainings that is saved."""


def normal(rng: np.random.Generator, means: np.ndarray, seeds: int) -> np.ndarray:
    return rng.standard_normal((len(means), seeds))


def lognormal_scale(spread: float) -> Draw:
    return lambda rng, means, seeds: normal(rng, means, seeds) * np.exp(rng.normal(0, spread, (len(means), 1)))


def noisy_best(rng: np.random.Generator, means: np.ndarray, seeds: int) -> np.ndarray:
    noise = normal(rng, means, seeds)
    noise[0] *= 3
    return noise


NOISE: dict[str, Draw] = {
    "normal": normal,
    "normal + effect of the seed, sd 2": lambda rng, means, seeds: (
        normal(rng, means, seeds) + 2 * rng.standard_normal((1, seeds))
    ),
    "scales differ, log-normal, sd 0.5": lognormal_scale(0.5),
    "scales differ, log-normal, sd 1": lognormal_scale(1.0),
    "scale grows with the gap": lambda rng, means, seeds: normal(rng, means, seeds) * (1 + np.abs(means)[:, None] / 3),
    "the best has thrice the scale": noisy_best,
    "Student's t, 3 degrees of freedom": lambda rng, means, seeds: rng.standard_t(3, (len(means), seeds)) / math.sqrt(3),
    "skewed: minus an exponential": lambda rng, means, seeds: 1 - rng.exponential(1, (len(means), seeds)),
    f"normal, {CRASH:.0%} of runs lose 20": lambda rng, means, seeds: (
        normal(rng, means, seeds) - 20 * (rng.random((len(means), seeds)) < CRASH)
    ),
}


def tied(rng: np.random.Generator, candidates: int) -> np.ndarray:
    return np.zeros(candidates)


def spread(rng: np.random.Generator, candidates: int) -> np.ndarray:
    means = -rng.exponential(6, candidates)
    means[0] = 0
    return means


def raced(values: np.ndarray) -> tuple[np.ndarray, float]:
    """The library's race."""
    found = race([*values], seeds=values.shape[1], better="max", alpha=ALPHA)
    return found.alive, 1 - float(found.wanted.sum()) / values.size


def looks(test: Callable[[np.ndarray], np.ndarray], first: int) -> Procedure:
    """A race that after each seed from the `first` on keeps what a test of (candidates, seeds) keeps."""

    def run(values: np.ndarray) -> tuple[np.ndarray, float]:
        alive, used = np.ones(len(values), dtype=bool), 0
        seeds = values.shape[1]
        for k in range(1, seeds + 1):
            used += int(alive.sum())
            if first <= k < seeds and alive.sum() > 1:
                members = np.flatnonzero(alive)
                alive[members[~test(values[members, :k])]] = False
        return alive, 1 - used / values.size

    return run


def paired_t(values: np.ndarray) -> np.ndarray:
    """Against the best mean, at 5 % each."""
    best = values[values.mean(1).argmax()]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        p = stats.ttest_rel(np.broadcast_to(best, values.shape), values, axis=1, alternative="greater").pvalue
    return ~(p < ALPHA)


def wilcoxon(values: np.ndarray) -> np.ndarray:
    """Signed ranks against the best mean at 10 %, the default of Optuna's WilcoxonPruner."""
    best = int(values.mean(1).argmax())
    keep = [
        i == best or stats.wilcoxon(values[best] - row, alternative="greater").pvalue >= 0.1 for i, row in enumerate(values)
    ]
    return np.array(keep)


def friedman(values: np.ndarray) -> np.ndarray:
    """F-race (Birattari et al. 2002): Friedman's test, then Conover's t-test of ranks against the best, at 5 % each."""
    count, blocks = values.shape
    if count == 2:
        return wilcoxon(values)
    ranks = stats.rankdata(-values, axis=0)
    sums, squares = ranks.sum(1), float((ranks**2).sum())
    correction = blocks * count * (count + 1) ** 2 / 4
    statistic = (count - 1) * float(((sums - blocks * (count + 1) / 2) ** 2).sum()) / (squares - correction)
    if stats.chi2.sf(statistic, count - 1) >= ALPHA:
        return np.ones(count, dtype=bool)
    rest = 2 * blocks * (1 - statistic / (blocks * (count - 1))) * (squares - correction) / ((blocks - 1) * (count - 1))
    return sums - sums.min() <= stats.t.isf(ALPHA / 2, (blocks - 1) * (count - 1)) * math.sqrt(max(rest, 0))


def best_third(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Successive halving with factor 3: the best third by the first seed gets all the others."""
    kept = np.argsort(-values[:, 0])[: math.ceil(len(values) / 3)]
    alive = np.isin(np.arange(len(values)), kept)
    return alive, (1 - 1 / values.shape[1]) * float((~alive).mean())


OTHERS: dict[str, Procedure] = {
    "dlframe": raced,
    "paired t against the best, 5 % a look": looks(paired_t, 2),
    "F-race, 5 % a look": looks(friedman, 2),
    "Wilcoxon, 10 % a look": looks(wilcoxon, 2),
    "best third by the first seed": best_third,
}


@dataclass(frozen=True)
class Simulated:
    """Error rate, its Monte-Carlo standard error, part of the trainings saved, and loss of the winner's true value."""

    error: float
    uncertainty: float
    saved: float
    loss: float


def simulate(
    procedure: Procedure, draw: Draw, gaps: Callable, candidates: int, seeds: int, repetitions: int, seed: int
) -> Simulated:
    rows = np.empty((repetitions, 3))
    for repetition in range(repetitions):
        rng = np.random.default_rng([seed, repetition])
        means = gaps(rng, candidates)
        values = means[:, None] + draw(rng, means, seeds)
        alive, saved = procedure(values)
        lost = float(np.mean(~alive)) if gaps is tied and draw is not noisy_best else float(not alive[0])
        average = values.mean(1)
        loss = means[average.argmax()] - means[np.where(alive, average, -np.inf).argmax()]
        rows[repetition] = lost, saved, loss
    error, saved, loss = rows.mean(0)
    return Simulated(error, rows[:, 0].std() / math.sqrt(repetitions), saved, loss)


def errors(names: list[tuple[str, Procedure, Draw]], designs: tuple, repetitions: int, seed: int) -> None:
    print(f"{'':<40}{'T':>4}{'S':>4}{'error %, tied':>15}{'error %, spread':>17}{'saved, spread':>15}{'loss':>8}")
    for name, procedure, draw in names:
        for candidates, seeds in designs:
            found = [simulate(procedure, draw, gaps, candidates, seeds, repetitions, seed) for gaps in (tied, spread)]
            said = (f"{100 * each.error:.1f} ±{100 * each.uncertainty:3.1f}" for each in found)
            said = "{:>15}{:>17}".format(*said) + f"{found[1].saved:>15.0%}{found[1].loss:>8.2f}"
            print(f"{name:<40}{candidates:>4}{seeds:>4}{said}", flush=True)


def optimism(repetitions: int, seed: int) -> None:
    print(f"{'':<40}{'T':>4}{'S':>4}{'true':>8}{'estimate':>10}{'its sd':>8}{'parametric bootstrap':>22}")
    for name in ("normal", "scales differ, log-normal, sd 0.5", "Student's t, 3 degrees of freedom"):
        for gaps in (tied, spread):
            for candidates, seeds in DESIGNS[1:5]:
                rows = np.empty((repetitions, 3))
                for repetition in range(repetitions):
                    rng = np.random.default_rng([seed, repetition])
                    means = gaps(rng, candidates)
                    values = means[:, None] + NOISE[name](rng, means, seeds)
                    best = winner([*values], better="max")
                    error = math.sqrt(values.var(1, ddof=1).mean() / seeds) * rng.standard_normal((200, candidates))
                    chosen = (values.mean(1) + error).argmax(1)
                    rows[repetition] = best.value - means[best.candidate], best.optimism, error[np.arange(200), chosen].mean()
                true, own, bootstrap = rows.mean(0)
                said = f"{true:>8.2f}{own:>10.2f}{rows[:, 1].std():>8.2f}{bootstrap:>22.2f}"
                print(f"{f'{gaps.__name__}; {name}':<40.40}{candidates:>4}{seeds:>4}{said}", flush=True)


def main() -> None:
    given = {"repetitions": 150, "seed": 0}
    for text in sys.argv[1:]:
        key, _, value = text.partition("=")
        if key not in given or not value.isdecimal() or (key == "repetitions" and not int(value)):
            sys.exit(f"error: must be repetitions=N or seed=N. Received: {text!r}")
        given[key] = int(value)
    repetitions, seed = given["repetitions"], given["seed"]
    print(f"alpha {ALPHA:.0%}, {repetitions} repetitions; ±: Monte-Carlo standard error; T candidates, S seeds")
    errors([(name, raced, draw) for name, draw in NOISE.items()], DESIGNS, repetitions, seed)
    print()
    errors([(name, procedure, normal) for name, procedure in OTHERS.items()], ((30, 3), (30, 5)), repetitions, seed)
    print("\noptimism of the best mean")
    optimism(repetitions, seed)


if __name__ == "__main__":
    main()
