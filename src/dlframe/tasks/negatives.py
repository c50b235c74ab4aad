"""Negative sampling: items that a user has not seen, drawn by a hash."""

from __future__ import annotations

import torch
from torch import Tensor

from dlframe.tasks.ranks import owners
from dlframe.types import Ragged

ATTEMPTS = 8
"""Draws by popularity until one is no seen item; then one is drawn uniformly."""


def hashed(*parts: Tensor | int) -> Tensor:
    """Return uniform numbers in [0, 1), float64, that depend on the parts only; tensors are broadcast.

    Numbers of a generator would depend on the order of batches and on the number of processes. The finalizer is SplitMix64's
    (Steele, Lea and Flood 2014), whose multiplications wrap around in int64 as in uint64.
    """
    state: Tensor | int = 0
    for part in parts:
        state = _mixed(torch.as_tensor(part, dtype=torch.int64) + state * 31 + _SEED)
    assert isinstance(state, Tensor)
    return (_shifted(state, 11)).double() / 2**53


_SEED, _FIRST, _SECOND = (value - 2**64 for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Shift right as unsigned integers."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(values: Tensor) -> Tensor:
    values = (values ^ _shifted(values, 30)) * _FIRST
    values = (values ^ _shifted(values, 27)) * _SECOND
    return values ^ _shifted(values, 31)


def uniform(draws: Tensor, seen: Ragged, items: int) -> Tensor:
    """Return items that users have not seen, each with equal probability, (elements, n).

    Without rejection: the r-th unseen item is r plus the number of seen items before it.

    Args:
        draws: (elements, n) in [0, 1), for each of the user's elements.
        seen: Different items of each user; of one who has seen all items, the last item is returned.
        items: Number of all items.
    """
    owner = owners(seen)
    start, length = (x.to(owner.device)[owner, None] for x in (seen.offsets[:-1], seen.lengths))
    order = (owner * items + seen.values).argsort()
    place = torch.arange(len(owner), device=owner.device) - start[:, 0]
    # Ascending within a user, and from user to user.
    gaps = owner * (items + 1) + seen.values[order] - place
    drawn = (draws * (items - length)).long()
    before = torch.searchsorted(gaps, owner[:, None] * (items + 1) + drawn, right=True) - start
    return (drawn + before).clamp(max=items - 1)


def popular(draws: Tensor, fallback: Tensor, seen: Ragged, weights: Tensor) -> Tensor:
    """Return items drawn by weight, those that a user has seen drawn again, (elements, n).

    Args:
        draws: (ATTEMPTS, elements, n) in [0, 1).
        fallback: (elements, n) items for where all draws are seen items.
        seen: Items of each user.
        weights: (items,).
    """
    owner, total = owners(seen), weights.double().cumsum(0)
    known = torch.zeros(len(seen), len(weights), dtype=torch.bool, device=owner.device)
    known[owner, seen.values] = True
    found = fallback
    for attempt in reversed(draws.unbind()):
        drawn = torch.searchsorted(total, attempt * total[-1], right=True).clamp(max=len(weights) - 1)
        found = torch.where(known[owner[:, None], drawn], found, drawn)
    return found
