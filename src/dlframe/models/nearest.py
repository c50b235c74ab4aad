"""Nearest neighbors by matrix products, in parts."""

from __future__ import annotations

import torch
from torch import Tensor

PRODUCTS = 2**24
"""Distances that are computed at once."""

SPARE = 2
"""Further neighbors that are compared exactly, where the products round."""


def nearest(queries: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the distances to the k nearest rows, ascending, in double precision, and the numbers of these rows.

    Candidates are found by |x|^2 - 2 x y, and their distances then computed by differences: those of close vectors are exact,
    and do not depend on the other queries.

    Args:
        queries: (queries, features).
        rows: (rows, features), at least k.
        k: Number of neighbors.

    Returns:
        Distances and indices, (queries, k).
    """
    middle = rows.mean(0, keepdim=True)  # a large offset would round
    centered = rows - middle
    norms = centered.square().sum(1)
    many = min(len(rows), k + SPARE)
    distances, indices = [], []
    for part in queries.split(max(1, PRODUCTS // max(1, len(rows)))):
        near = torch.addmm(norms, part - middle, centered.T, alpha=-2).topk(many, largest=False).indices
        exact = (part.unsqueeze(1).double() - rows[near].double()).square().sum(2).sqrt()
        order = exact.argsort(dim=1, stable=True)[:, :k]
        distances.append(exact.gather(1, order))
        indices.append(near.gather(1, order))
    if not distances:
        return queries.new_zeros(0, k, dtype=torch.float64), torch.zeros(0, k, dtype=torch.long, device=queries.device)
    return torch.cat(distances), torch.cat(indices)


def coreset(rows: Tensor, size: int, *, dimensions: int = 128, seed: int = 0) -> Tensor:
    """Return the numbers of rows (size,) that cover all others: each is the one farthest from those chosen before.

    Greedy approximation of the k-center problem (Gonzalez 1985; Sener and Savarese 2018, arXiv 1708.00489), after a random
    projection of longer rows, whose distances stay alike (Johnson and Lindenstrauss 1984).

    Args:
        rows: (rows, features).
        size: Number of rows to choose; all where there are no more.
        dimensions: Length of the projected rows.
        seed: Seed of the projection and of the first row.
    """
    if size >= len(rows):
        return torch.arange(len(rows), device=rows.device)
    generator = torch.Generator().manual_seed(seed)
    if rows.shape[1] > dimensions:
        projection = torch.randn(rows.shape[1], dimensions, generator=generator) / dimensions**0.5
        rows = rows @ projection.to(rows)
    rows = rows - rows.mean(0)
    norms = rows.square().sum(1)
    chosen = torch.empty(size, dtype=torch.long, device=rows.device)
    chosen[0] = torch.randint(len(rows), (), generator=generator)
    far = torch.full_like(norms, torch.inf)
    for i in range(1, size):
        last = rows[chosen[i - 1]]
        far = torch.minimum(far, norms - 2 * (rows @ last) + last.square().sum())
        chosen[i] = far.argmax()
    return chosen
