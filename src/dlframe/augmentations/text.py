"""Augmentations of texts, drawn per token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlframe.readers.texts.tokens import UNKNOWN
from dlframe.registry import Fraction, augmentations
from dlframe.types import Batch, DataSpec, Ragged


@augmentations.register("token_dropout", inputs=("tokens",))
class TokenDropout:
    """Delete tokens, or hide them as unknown ones.

    Random deletion of Wei and Zou 2019 (EDA, arXiv 1901.11196), and word dropout of Iyyer et al. 2015 ("Deep unordered
    composition"). A text keeps one token at least; the tokens that a pretrained encoder has at both ends stay.

    Args:
        p: Probability of each token.
        hide: Replace tokens by the unknown one instead of deleting them.
    """

    def __init__(self, spec: DataSpec, *, p: Fraction = 0.1, hide: bool = False) -> None:
        (self.text,) = spec.of_kind("tokens", spec.inputs)
        self.p, self.hide = p, hide
        self.ends = ends_of(spec)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        texts: Ragged = batch[self.text]
        values, inner = texts.values, inside(texts, self.ends)
        drawn = torch.rand(len(values), generator=generator, device=values.device)
        chosen = (drawn < self.p) & inner
        if self.hide:
            return batch.replace(**{self.text: texts.like(values.masked_fill(chosen, UNKNOWN))})
        kept = ~chosen
        owner = torch.repeat_interleave(torch.arange(len(texts), device=values.device), texts.lengths.to(values.device))
        lengths = torch.zeros(len(texts), dtype=torch.long, device=values.device).index_add_(0, owner, kept.long())
        # Of a text of which nothing is left, the token with the largest draw stays.
        for i in (lengths == 0).nonzero()[:, 0].tolist():
            start, end = texts.offsets[i : i + 2].tolist()
            kept[start + int(drawn[start:end].argmax())] = True
            lengths[i] = 1
        offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(texts.offsets)
        return batch.replace(**{self.text: Ragged(values[kept], offsets)})


@augmentations.register("token_swap", inputs=("tokens",))
class TokenSwap:
    """Exchange tokens with the next one.

    Random swap of Wei and Zou 2019 (EDA, arXiv 1901.11196), of neighbors: the order of a text changes locally, as in Artetxe
    et al. 2018 (arXiv 1710.11041). The tokens that a pretrained encoder has at both ends stay.

    Args:
        p: Probability of a token to change places with the next one.
    """

    def __init__(self, spec: DataSpec, *, p: Fraction = 0.1) -> None:
        (self.text,) = spec.of_kind("tokens", spec.inputs)
        self.p = p
        self.ends = ends_of(spec)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        texts: Ragged = batch[self.text]
        values, inner = texts.values, inside(texts, self.ends)
        owner = torch.repeat_interleave(torch.arange(len(texts), device=values.device), texts.lengths.to(values.device))
        chosen = torch.rand(len(values), generator=generator, device=values.device) < self.p
        chosen[-1:] = False
        chosen[:-1] &= inner[:-1] & inner[1:] & (owner[:-1] == owner[1:])
        chosen[1:] &= ~chosen[:-1].clone()  # each token moves once at most; a chain of draws is cut to its first
        order = torch.arange(len(values), device=values.device)
        first = chosen.nonzero()[:, 0]
        order[first], order[first + 1] = first + 1, first
        return batch.replace(**{self.text: texts.like(values[order])})


def ends_of(spec: DataSpec) -> tuple[int, int]:
    """Return how many tokens at the start and the end of each text are not of the text."""
    kept: dict[str, Any] = spec.fitted.get("text", {})
    return len(kept.get("prefix", ())), len(kept.get("suffix", ()))


def inside(texts: Ragged, ends: tuple[int, int]) -> Tensor:
    """Return which tokens (elements,) are of the text itself."""
    offsets, values = texts.offsets.to(texts.values.device), texts.values
    inner = torch.ones(len(values), dtype=torch.bool, device=values.device)
    for i in range(ends[0]):
        inner[(offsets[:-1] + i).clamp(max=len(values) - 1)] = False
    for i in range(ends[1]):
        inner[(offsets[1:] - 1 - i).clamp(min=0)] = False
    return inner
