"""Error rates of comparisons and coverages of intervals, on simulated models whose truth is known.

    python benchmarks/error_rates.py [repetitions=1000] [seed=0] [only=accuracy]

Simulated are two models that are equally good, with noise over seeds (small, or large: the standard deviation of a seed is
about 0.5 or 3 points of accuracy), and test examples some of which are hard for both models, some for one, some for one
network. One line a setting: how often the difference has p < 0.05 ("both", the default; "seeds", Welch's t-test over seeds;
"examples", the mean networks over examples), in %, and how often the 95 % interval of one model's mean contains the truth.
With 1,000 repetitions, a true 5 % shows as 3.6 to 6.4 % (19 times of 20).

The last lines are of six equally good models (how often any pair differs, with Holm's correction and without) and of
planning: the power that a pilot of three seeds predicts beside the fraction of comparisons that show the difference.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import ndtr, ndtri

from dlframe.statistics.comparison import areas, jackknife, planning
from dlframe.statistics.comparison.differences import Scores, difference, holm, mean, scores

SHARED, OWN = 0.45, 0.25
"""Variance of an example's difficulty for all models, and for one; the rest is of one network."""
SMALL, LARGE = 0.02, 0.12
"""Standard deviation of a seed, in units of the difficulty."""
Draw = Callable[[np.random.Generator, int, np.ndarray], Scores]


def latent(random: np.random.Generator, seeds: int, shared: np.ndarray, spread: float) -> np.ndarray:
    """(seeds, examples) standard normal difficulties, with an effect of the seed."""
    n = len(shared)
    own = random.normal(size=n)
    noise = random.normal(size=(seeds, n))
    effect = spread * random.normal(size=(seeds, 1))
    return math.sqrt(SHARED) * shared + math.sqrt(OWN) * own + math.sqrt(1 - SHARED - OWN) * noise + effect


def of_sums(rows: Sequence[np.ndarray], value: Callable[[np.ndarray], np.ndarray], groups: np.ndarray) -> Scores:
    found = [jackknife.of_sums(value, parts, groups) for parts in rows]
    return scores([v for v, _ in found], [deleted for _, deleted in found])


def ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


@dataclass(frozen=True)
class Metric:
    """A metric of simulated models.

    Attributes:
        name: Its name.
        shared: What two models share: (examples,) from a generator and their number.
        draw: Scores of a model.
        truth: Its true mean; NaN for one that is found with many examples.
        bounds: Of the metric.
        is_proportion: Whether it is a proportion.
    """

    name: str
    draw: Callable[[np.random.Generator, int, dict, float], Scores]
    shared: Callable[[np.random.Generator, int], dict]
    truth: Callable[[float], float] = lambda spread: math.nan
    bounds: tuple[float, float] = (0.0, 1.0)
    is_proportion: bool = False


def independent(random: np.random.Generator, n: int) -> dict:
    return {"difficulty": random.normal(size=n), "groups": jackknife.groups_of(n)}


def accuracy(level: float) -> Metric:
    cut = float(ndtri(level))

    def draw(random: np.random.Generator, seeds: int, shared: dict, spread: float) -> Scores:
        right = latent(random, seeds, shared["difficulty"], spread) < cut
        return of_sums([np.c_[row, np.ones(len(row))] for row in right], ratio, shared["groups"])

    def truth(spread: float) -> float:
        return float(ndtr(cut / math.sqrt(1 + spread**2)))

    return Metric(f"accuracy {100 * level:.0f} %", draw, independent, truth, is_proportion=True)


def of_positives(random: np.random.Generator, n: int) -> dict:
    return {**independent(random, n), "target": random.random(n) < 0.1}


def f1() -> Metric:
    def draw(random: np.random.Generator, seeds: int, shared: dict, spread: float) -> Scores:
        target = shared["target"]
        found = latent(random, seeds, shared["difficulty"], spread) + 2.2 * target > 1.9
        rows = [np.c_[row & target, row, np.broadcast_to(target, row.shape)] for row in found]
        return of_sums(rows, lambda s: 2 * s[..., 0] / (s[..., 1] + s[..., 2]), shared["groups"])

    return Metric("F1, 10 % positives", draw, of_positives)


def of_area(name: str, area: Callable[..., tuple[float, np.ndarray]]) -> Metric:
    """An area under a curve of scores, of which 10 % are positive."""

    def draw(random: np.random.Generator, seeds: int, shared: dict, spread: float) -> Scores:
        target = shared["target"]
        effect = 1 + 3 * spread * random.normal(size=(seeds, 1))
        score = latent(random, seeds, shared["difficulty"], 0.0) + effect * target
        values, deleted = zip(*(area(target, row, shared["groups"]) for row in score), strict=True)
        return scores(values, deleted)

    return Metric(f"{name}, 10 % positives", draw, of_positives)


def delong(repetitions: int, seed: int, n: int = 360) -> tuple[float, float, float]:
    """How often two equal models with one seed differ by this AUROC's covariances and by DeLong's, and in the same comparisons.

    The test of DeLong, DeLong and Clarke-Pearson (1988, Biometrics 44:837) is written out here, from the placements.
    """
    random, metric = np.random.default_rng(seed), of_area("AUROC", areas.auroc)
    ours = theirs = same = 0
    for _ in range(repetitions):
        shared = metric.shared(random, n)
        target = shared["target"]
        rows = [latent(random, 1, shared["difficulty"], 0.0)[0] + target for _ in range(2)]
        one, other = (scores([v], [d]) for v, d in (areas.auroc(target, row, shared["groups"]) for row in rows))
        wins = [(row[target][:, None] > row[~target]).astype(float) for row in rows]
        gaps = wins[0] - wins[1]
        variance = gaps.mean(1).var(ddof=1) / target.sum() + gaps.mean(0).var(ddof=1) / (~target).sum()
        found = difference(one, other, over="examples").p_value < 0.05, 2 * ndtr(-abs(gaps.mean()) / math.sqrt(variance)) < 0.05
        ours, theirs, same = ours + found[0], theirs + found[1], same + (found[0] == found[1])
    return 100 * ours / repetitions, 100 * theirs / repetitions, 100 * same / repetitions


def rmse() -> Metric:
    """Of a series with autocorrelated errors, in 20 blocks."""

    def series(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        values = random.normal(size=shape)
        for t in range(1, shape[-1]):
            values[..., t] = 0.8 * values[..., t - 1] + 0.6 * values[..., t]
        return values

    def shared(random: np.random.Generator, n: int) -> dict:
        return {"difficulty": series(random, (n,)), "groups": jackknife.groups_of(n, blocks=20)}

    def draw(random: np.random.Generator, seeds: int, shared: dict, spread: float) -> Scores:
        n = len(shared["difficulty"])
        own = series(random, (n,))
        scale = np.exp(spread * random.normal(size=(seeds, 1)))
        errors = scale * (math.sqrt(0.8) * shared["difficulty"] + math.sqrt(0.15) * own)
        errors = errors + math.sqrt(0.05) * random.normal(size=(seeds, n))
        return of_sums([np.c_[row**2, np.ones(n)] for row in errors], lambda s: np.sqrt(ratio(s)), shared["groups"])

    return Metric("RMSE, 20 blocks", draw, shared, bounds=(0.0, math.inf))


def ndcg() -> Metric:
    """A score in [0, 1] of each user, of whom each has a few lists."""

    def shared(random: np.random.Generator, n: int) -> dict:
        users = random.integers(0, max(2, n // 5), n)
        difficulty = random.normal(size=n // 5 + 2)[users] * math.sqrt(0.6) + random.normal(size=n) * math.sqrt(0.4)
        return {"difficulty": difficulty, "groups": jackknife.groups_of(n, users)}

    def draw(random: np.random.Generator, seeds: int, shared: dict, spread: float) -> Scores:
        gain = np.maximum(0.0, 1 - np.exp(0.6 * latent(random, seeds, shared["difficulty"], spread) - 0.7))
        return of_sums([np.c_[row, np.ones(len(row))] for row in gain], ratio, shared["groups"])

    return Metric("NDCG by users", draw, shared)


def wer() -> Metric:
    """Errors of words, by speakers: a tenth as many as utterances."""

    def shared(random: np.random.Generator, n: int) -> dict:
        speakers = random.integers(0, max(5, n // 10), n)
        voice = random.normal(size=max(5, n // 10))
        words = random.integers(3, 15, n)
        difficulty = math.sqrt(0.4) * voice[speakers] + math.sqrt(0.6) * random.normal(size=n)
        return {"difficulty": difficulty, "words": words, "groups": jackknife.groups_of(n, speakers)}

    def draw(random: np.random.Generator, seeds: int, shared: dict, spread: float) -> Scores:
        chance = ndtr(0.6 * latent(random, seeds, shared["difficulty"], spread) - 1.6)
        errors = random.binomial(shared["words"], chance)
        return of_sums([np.c_[row, shared["words"]] for row in errors], ratio, shared["groups"])

    return Metric("WER by speakers", draw, shared, bounds=(0.0, math.inf))


AREAS = (of_area("AUROC", areas.auroc), of_area("AP", areas.average_precision))


def true_mean(metric: Metric, spread: float, seed: int) -> float:
    """The mean over very many examples and seeds, where no formula gives it."""
    if not math.isnan(value := metric.truth(spread)):
        return value
    random = np.random.default_rng(seed + 10**6)
    found = [metric.draw(random, 100, metric.shared(random, 4000), spread).mean for _ in range(40)]
    return float(np.mean(found))


def rates(
    metric: Metric, n: int, seeds: tuple[int, int], spreads: tuple[float, float], repetitions: int, seed: int
) -> dict[str, float]:
    """Fractions of comparisons with p < 0.05 by kind, and of intervals that contain the truth, in %."""
    random = np.random.default_rng(seed)
    truth = true_mean(metric, spreads[0], seed)
    counts = dict.fromkeys(("both", "seeds", "examples", "coverage"), 0)
    told = 0
    for _ in range(repetitions):
        shared = metric.shared(random, n)
        one, other = (metric.draw(random, s, shared, spread) for s, spread in zip(seeds, spreads, strict=True))
        counts["both"] += difference(one, other).p_value < 0.05
        counts["examples"] += difference(one, other, over="examples").p_value < 0.05
        if min(seeds) > 1:
            counts["seeds"] += difference(one, other, over="seeds").p_value < 0.05
        interval = mean(one, low=metric.bounds[0], high=metric.bounds[1], is_proportion=metric.is_proportion)
        if not math.isnan(interval.low):
            told += 1
            counts["coverage"] += interval.low <= truth <= interval.high
    found = {name: 100 * count / repetitions for name, count in counts.items()}
    found["coverage"] = 100 * counts["coverage"] / max(1, told)
    if min(seeds) < 2:
        found["seeds"] = math.nan
    return found


def pairs_of_six(repetitions: int, seed: int) -> tuple[float, float]:
    """How often any of 15 pairs of equal models differs, with Holm's correction and without, in %."""
    metric, random = accuracy(0.8), np.random.default_rng(seed)
    corrected = plain = 0
    for _ in range(repetitions):
        shared = metric.shared(random, 1000)
        models = [metric.draw(random, 5, shared, LARGE) for _ in range(6)]
        p_values = np.array([difference(models[i], models[j]).p_value for i in range(6) for j in range(i)])
        corrected += bool((holm(p_values) < 0.05).any())
        plain += bool((p_values < 0.05).any())
    return 100 * corrected / repetitions, 100 * plain / repetitions


def planned(n: int, seeds: int, spread: float, points: float, repetitions: int, seed: int) -> tuple[list[float], float]:
    """Power that pilots of three seeds predict (10 %, 50 % and 90 % quantiles), and that is reached, in %."""
    random = np.random.default_rng(seed)
    low, high = accuracy(0.8), accuracy(0.8 + points / 100)
    predicted, reached = [], 0
    for _ in range(repetitions):
        shared = low.shared(random, n)
        pilot = difference(low.draw(random, 3, shared, spread), high.draw(random, 3, shared, spread))
        predicted.append(100 * planning.power(points / 100, pilot.parts.at([seeds, seeds], 1.0)))
        shared = low.shared(random, n)
        found = difference(low.draw(random, seeds, shared, spread), high.draw(random, seeds, shared, spread))
        reached += found.p_value < 0.05
    return [float(q) for q in np.quantile(predicted, [0.1, 0.5, 0.9])], 100 * reached / repetitions


def main() -> None:
    options = {"repetitions": "1000", "seed": "0", "only": ""} | dict(text.split("=", 1) for text in sys.argv[1:])
    repetitions, seed, only = int(options["repetitions"]), int(options["seed"]), options["only"]
    begun = time.monotonic()
    print(f"{'':<24}{'examples':>9}{'seeds':>9}{'noise':>9}{'both':>8}{'seeds':>8}{'examples':>10}{'coverage':>10}")
    settings = [(accuracy(0.8), n, (s, s), (spread, spread)) for n in (100, 360, 1000, 10_000) for s in (1, 2, 3, 5, 10, 30)
                for spread in (SMALL, LARGE) if n * s <= 100_000]  # fmt: skip
    settings += [(accuracy(0.99), n, (s, s), (spread, spread)) for n in (100, 1000, 10_000) for s in (3, 10)
                 for spread in (SMALL, LARGE)]  # fmt: skip
    settings += [(metric, n, (s, s), (spread, spread)) for metric in (f1(), *AREAS, rmse(), ndcg(), wer()) for n in (360, 2000)
                 for s in (3, 5, 10) for spread in (SMALL, LARGE)]  # fmt: skip
    settings += [(accuracy(0.8), 2000, (3, 3), (SMALL, 8 * SMALL)), (accuracy(0.8), 2000, (3, 10), (LARGE, LARGE))]
    settings += [(accuracy(0.8), 2000, (3, 10), (SMALL, 8 * SMALL)), (accuracy(0.8), 2000, (10, 3), (SMALL, 8 * SMALL))]
    settings += [(accuracy(0.8), 2000, (s, 1), (LARGE, 0.0)) for s in (2, 3, 5)]  # beside a model without randomness
    for metric, n, seeds, spreads in settings:
        if only not in metric.name:
            continue
        found = rates(metric, n, seeds, spreads, repetitions, seed)
        title = "/".join(map(str, dict.fromkeys(seeds)))
        noise = "/".join({SMALL: "small", LARGE: "large", 8 * SMALL: "8x", 0.0: "none"}[s] for s in dict.fromkeys(spreads))
        rest = f"{found['both']:>8.1f}{found['seeds']:>8.1f}{found['examples']:>10.1f}{found['coverage']:>10.1f}"
        print(f"{metric.name:<24}{n:>9,}{title:>9}{noise:>11}{rest}", flush=True)
    if only in "AUROC, 10 % positives":
        print(
            "AUROC, one seed over 360 examples: {:.1f}, DeLong's test {:.1f}, alike in {:.1f}".format(
                *delong(repetitions, seed)
            )
        )
    if not only:
        print(
            "six equal models, any pair: {:.1f} with Holm's correction, {:.1f} without".format(*pairs_of_six(repetitions, seed))
        )
        for n, seeds, spread, points in (
            (360, 5, SMALL, 4.0),
            (2000, 5, LARGE, 5.0),
            (2000, 10, LARGE, 4.0),
            (5000, 5, SMALL, 1.0),
        ):
            quantiles, reached = planned(n, seeds, spread, points, repetitions, seed)
            told = f"{quantiles[1]:.0f} (from {quantiles[0]:.0f} to {quantiles[2]:.0f} in 8 of 10 pilots)"
            print(f"power at {points} points, {n:,} examples, {seeds} seeds: planned {told}, reached {reached:.0f}", flush=True)
    print(f"{repetitions:,} repetitions, {time.monotonic() - begun:.0f} s: {Path(__file__).name} seed={seed}")


if __name__ == "__main__":
    main()
