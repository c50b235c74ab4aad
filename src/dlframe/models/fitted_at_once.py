"""Base of models that are fitted to all training samples at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlframe.types import DataSpec, Ragged


def rows_of(inputs: Any) -> int:
    """Return the number of samples of one input, or of several by name."""
    return len(next(iter(inputs.values())) if isinstance(inputs, dict) else inputs)


class FittedAtOnce(nn.Module):
    """Base of models that keep the samples of one epoch and are fitted before the first prediction.

    What is shown after that prediction is not learned: one epoch suffices. A subclass has `fit`, which gets all samples and
    returns the learned tensors, and `answer`. The samples, and then the learned tensors in their place, are the state.
    """

    place: Tensor

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.classes = len(spec.classes)
        self.samples: list[dict[str, Tensor]] = []
        self.learned: dict[str, Tensor] = {}
        self.register_buffer("place", torch.zeros(()), persistent=False)

    def partial_fit(self, inputs: Any, targets: Tensor) -> None:
        """Keep the samples of a batch, unless the model is fitted."""
        if not self.learned:
            named = inputs if isinstance(inputs, dict) else {"inputs": inputs}
            kept = {"targets": targets.cpu()}
            for name, column in named.items():
                ragged = isinstance(column, Ragged)
                kept[name] = (column.values if ragged else column).cpu().clone()
                if ragged:
                    kept[f"{name} lengths"] = column.lengths.cpu()
            self.samples.append(kept)

    def get_extra_state(self) -> dict[str, Any]:
        return {"samples": self._joined(), "learned": dict(self.learned)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.samples = [dict(state["samples"])] if state["samples"] else []
        self.learned = {name: tensor.clone() for name, tensor in state["learned"].items()}

    def _joined(self) -> dict[str, Tensor]:
        """Return all samples as one batch, which replaces the single ones."""
        if len(self.samples) > 1:
            self.samples = [{name: torch.cat([kept[name] for kept in self.samples]) for name in self.samples[0]}]
        return dict(self.samples[0]) if self.samples else {}

    def is_fitted(self) -> bool:
        """Return whether the model has learned from samples, which it does now if it has some."""
        if not self.learned and self.samples:
            samples = {name: tensor.numpy() for name, tensor in self._joined().items()}
            self.learned = {name: torch.from_numpy(array) for name, array in self.fit(samples).items()}
            self.samples = []
        self.learned = {name: tensor.to(self.place.device) for name, tensor in self.learned.items()}
        return bool(self.learned)

    def forward(self, inputs: Any) -> Tensor:
        """Return logits (batch, classes); zeros before any sample."""
        if not self.is_fitted():
            return torch.zeros(rows_of(inputs), self.classes, device=self.place.device)
        decision = self.answer(inputs).float()
        return torch.cat([-decision, decision], 1) / 2 if decision.shape[1] == 1 else decision

    def fit(self, samples: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return what is learned from all samples."""
        raise NotImplementedError

    def answer(self, inputs: Any) -> Tensor:
        """Return log odds (batch, 1) of the second of two classes, or of each class against the rest (batch, classes)."""
        raise NotImplementedError
