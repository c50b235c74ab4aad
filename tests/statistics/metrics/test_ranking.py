import math

import numpy as np
import pytest

from dlframe.statistics.metrics.ranking import METRICS, at_k, gains_of


def by_hand(ranked: list[str], relevant: dict[str, float], k: int) -> dict[str, float]:
    """The metrics of one user, from the list itself."""
    relevant = {item: gain for item, gain in relevant.items() if gain > 0}
    if not relevant:
        return dict.fromkeys(METRICS, math.nan)
    listed = ranked[:k]
    hits = [item in relevant for item in listed]
    gained = sum(relevant.get(item, 0) / math.log2(place + 1) for place, item in enumerate(listed, 1))
    best = sorted(relevant.values(), reverse=True)[:k]
    ideal = sum(gain / math.log2(place + 1) for place, gain in enumerate(best, 1))
    return {
        "ndcg": gained / ideal,
        "precision": sum(hits) / k,
        "recall": sum(hits) / len(relevant),
        "mrr": 1 / (hits.index(True) + 1) if any(hits) else 0.0,
        "hit": float(any(hits)),
    }


def found(lists: list[tuple[list[str], dict[str, float]]], k: int) -> dict[str, np.ndarray]:
    ranks = [[ranked.index(item) + 1 for item in relevant] for ranked, relevant in lists]
    offsets = np.cumsum([0, *map(len, ranks)])
    gains = [gain for _, relevant in lists for gain in relevant.values()]
    return at_k(np.array([rank for own in ranks for rank in own]), offsets, k, np.array(gains))


@pytest.mark.parametrize("k", [1, 3, 10, 40])
def test_metrics_are_those_of_a_loop(k):
    random = np.random.default_rng(0)
    items = [f"i{i}" for i in range(40)]
    lists = []
    for _ in range(60):
        chosen = random.choice(items, random.integers(1, 20), replace=False)
        lists.append((random.permutation(items).tolist(), dict(zip(chosen, random.integers(0, 4, len(chosen)), strict=True))))
    metrics = found(lists, k)
    for user, (ranked, relevant) in enumerate(lists):
        assert {name: values[user] for name, values in metrics.items()} == pytest.approx(
            by_hand(ranked, relevant, k), nan_ok=True
        )


def test_what_is_divided_by_what():
    """Four users with one, eight and two relevant items; each formula with another denominator gives another number."""
    every = [f"i{i:02}" for i in range(1, 13)]
    first = ["i05", "i03", "i01", "i02", "i04"]
    ranked = first + [item for item in every if item not in first]
    one = at_k(np.array([3]), np.array([0, 1]), 5)
    assert {name: values[0] for name, values in one.items()} == pytest.approx(
        {"ndcg": 0.5, "precision": 0.2, "recall": 1.0, "mrr": 1 / 3, "hit": 1.0}
    )
    eight = found([(ranked, dict.fromkeys(("i01", "i02", "i05", "i08", "i09", "i10", "i11", "i12"), 1.0))], 5)
    assert eight["precision"][0] == pytest.approx(3 / 5)
    assert eight["recall"][0] == pytest.approx(3 / 8)
    ideal = sum(1 / math.log2(place + 1) for place in range(1, 6))
    assert eight["ndcg"][0] == pytest.approx((1 + 1 / 2 + 1 / math.log2(5)) / ideal)


@pytest.mark.parametrize(("gain", "value"), [("linear", 0.785002371969948), ("exponential", 0.7510833867922446)])
def test_graded_gains(gain, value):
    """The ideal order is of all rated items, not of the six that are listed."""
    ratings = np.array([3, 2, 3, 0, 1, 2, 3, 2])
    gains = gains_of(ratings, gain)
    assert at_k(np.arange(1, 9), np.array([0, 8]), 6, gains)["ndcg"][0] == pytest.approx(value)
    assert at_k(np.arange(1, 9), np.array([0, 8]), 6, ratings >= 1)["ndcg"][0] == pytest.approx(0.8696762340896295)


def test_a_user_without_relevant_items_has_no_metric():
    metrics = at_k(np.array([1, 2, 1]), np.array([0, 2, 2, 3]), 2, np.array([0.0, 0.0, 1.0]))
    for name in METRICS:
        assert np.isnan(metrics[name][:2]).all()
        assert metrics[name][2] == (0.5 if name == "precision" else 1)
