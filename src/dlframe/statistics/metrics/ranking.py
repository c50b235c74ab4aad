"""Metrics of ranked lists."""

from __future__ import annotations

from typing import Literal

import numpy as np

METRICS = ("ndcg", "precision", "recall", "mrr", "hit")
"""Metrics of `at_k`."""

Gain = Literal["binary", "linear", "exponential"]


def at_k(ranks: np.ndarray, offsets: np.ndarray, k: int, gains: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Return the metrics of each user at a cutoff, (users,); NaN where a user has no relevant item.

    With h relevant items among the first k of the list, of n relevant items: precision h / k, recall h / n, hit 1 if h > 0,
    mrr 1 / rank of the first one (0 beyond k). ndcg divides the sum of gain / log2(rank + 1) over the first k by that of the
    best list: the user's largest gains in descending order, at most k (Järvelin and Kekäläinen 2002). These are the
    definitions of trec_eval, ranx and RecBole.

    Args:
        ranks: Ranks of the relevant items from 1, of all users.
        offsets: (users + 1,) where the items of each user begin.
        k: Length of the list.
        gains: Gains of the items, as `ranks`; 1 each by default. Items without a positive gain are not relevant.
    """
    users = len(offsets) - 1
    user = np.repeat(np.arange(users), np.diff(offsets))
    gains = np.ones(len(ranks)) if gains is None else np.asarray(gains, dtype=float)
    relevant = gains > 0
    user, ranks, gains = user[relevant], ranks[relevant].astype(float), gains[relevant]
    count = np.bincount(user, minlength=users)
    found = ranks <= k
    hits = np.bincount(user[found], minlength=users)
    gained = np.bincount(user[found], gains[found] / np.log2(ranks[found] + 1), users)
    best = np.lexsort((-gains, user))
    place = np.arange(len(best)) - np.repeat(np.cumsum(count) - count, count) + 1
    shown = place <= k
    ideal = np.bincount(user[best][shown], gains[best][shown] / np.log2(place[shown] + 1), users)
    first = np.full(users, np.inf)
    np.minimum.at(first, user, ranks)
    known = np.where(count > 0, 1.0, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "ndcg": gained / ideal * known,
            "precision": hits / k * known,
            "recall": hits / count * known,
            "mrr": np.where(first <= k, 1 / first, 0.0) * known,
            "hit": (hits > 0) * known,
        }


def gains_of(ratings: np.ndarray, gain: Gain) -> np.ndarray:
    """Return the gains of ratings: 1 (binary), the rating itself (linear), or 2**rating - 1 (exponential)."""
    ratings = np.asarray(ratings, dtype=float)
    return {"binary": np.ones_like(ratings), "linear": ratings, "exponential": np.exp2(ratings) - 1}[gain]
