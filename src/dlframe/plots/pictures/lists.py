"""Lists of recommended items beside the histories of users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from dlframe.plots.style import GRAY, GREEN, short, style

HISTORY = 8
"""Last items of a history that are shown."""


@dataclass(frozen=True)
class UserList:
    """A user with the list of a model.

    Attributes:
        user: Name.
        history: Items of the user, in the order of time.
        listed: Recommended items, best first.
        hits: (listed,) whether an item is one that the user had next.
        targets: Number of items that the user had next.
        ndcg: NDCG of the list.
    """

    user: str
    history: Sequence[str]
    listed: Sequence[str]
    hits: np.ndarray
    targets: int
    ndcg: float


@style
def user_lists(users: Sequence[UserList], *, k: int, title: str = "") -> Figure:
    """Write the last items of users' histories, and their lists with the hits marked.

    Args:
        users: The users.
        k: Length of the lists.
        title: Title of the figure.
    """
    read = max([min(HISTORY, len(user.history)) for user in users] + [1])
    lines = read + max([len(user.listed) for user in users] + [1])
    figure = Figure(figsize=(3.1 * max(1, len(users)), 0.23 * (lines + 6)))
    figure.suptitle(title, x=0.02, ha="left", weight="bold")
    for axes, user in zip(np.ravel(figure.subplots(1, max(1, len(users)), squeeze=False)), users, strict=False):
        axes.set_axis_off()
        axes.set_xlim(0, 1)
        axes.set_ylim(lines + 4, -1)
        score = "undefined" if np.isnan(user.ndcg) else f"{user.ndcg:.2f}"
        axes.text(0, -0.5, f"user {short(user.user)}, NDCG@{k} {score}", weight="bold", fontsize=9)
        shown = list(user.history[-HISTORY:])
        above = [(f"last of {len(user.history):,} items:", GRAY, "normal"), *((item, "black", "normal") for item in shown)]
        for i, (text, color, weight) in enumerate(above):
            axes.text(0, i + 0.7, short(text, 34), color=color, weight=weight, fontsize=8)
        hits = int(np.sum(user.hits))
        axes.text(0, read + 2.2, f"list, {hits} of {user.targets:,} next items in it:", color=GRAY, fontsize=8)
        for i, (item, hit) in enumerate(zip(user.listed, user.hits, strict=True)):
            mark = "✓ " if hit else "   "
            look = {"color": GREEN, "weight": "bold"} if hit else {"color": "black"}
            axes.text(0, read + 3.2 + i, mark + short(item, 32), fontsize=8, **look)
    return figure
