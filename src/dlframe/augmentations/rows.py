"""Augmentations of the rows of tables."""

from __future__ import annotations

import torch

from dlframe.registry import Count, Fraction, augmentations
from dlframe.types import Batch, ConfigError, DataSpec


@augmentations.register(
    "smote", inputs=("number",), targets=("class",), sample={"name": "synthetic_fraud", "rows": 400, "rate": 0.3}
)
class SMOTE:
    """Rows between neighbors of a rare class.

    SMOTE (Chawla et al. 2002, doi 10.1613/jair.953): a row is moved to a random point of the line to one of the k nearest rows
    of its class. It is applied to the rows of a batch, anew in each epoch: with task.sampling=balanced, each class has as
    many rows, and neighbors are among those of the batch. Distances are of standardized numbers, a missing one counts as the
    mean and stays missing; categories stay as they are.

    Args:
        k: Number of nearest rows of which one is drawn.
        p: Probability of moving a row.
        pos_label: Name of the class whose rows are moved; empty for the rarest one in training.
    """

    def __init__(self, spec: DataSpec, *, k: Count = 5, p: Fraction = 1.0, pos_label: str = "") -> None:
        (self.numbers,) = spec.of_kind("number", spec.inputs)
        (self.target,) = spec.of_kind("class", spec.targets)
        field = spec.inputs[self.numbers]
        if pos_label and pos_label not in spec.classes:
            raise ConfigError(f"augmentation.smote.pos_label: must be a class. Received: '{pos_label}'.")
        counts = spec.fitted.get("counts") or [0]
        self.label = spec.classes.index(pos_label) if pos_label else counts.index(min(counts))
        self.k, self.p = k, p
        self.mean = torch.tensor(field.mean or (0.0,), dtype=torch.float64)
        self.std = torch.tensor(field.std or (1.0,), dtype=torch.float64)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        values, targets = batch[self.numbers], batch[self.target]
        if targets.ndim != 1:
            raise ConfigError("augmentation: smote must come before augmentations that mix the targets.")
        rare = targets == self.label
        if batch.labelled is not None:
            rare = rare & batch.labelled
        rows = rare.nonzero()[:, 0]
        # Copies of a row, which balanced sampling draws, are no neighbors.
        scaled = ((values[rows].double() - self.mean.to(values.device)) / self.std.to(values.device)).nan_to_num(0.0)
        distance = torch.cdist(scaled, scaled, compute_mode="donot_use_mm_for_euclid_dist")
        distance = distance.masked_fill(distance == 0, torch.inf)
        draws = torch.rand(3, len(values), generator=generator, device=values.device, dtype=torch.float64)[:, rows]
        if len(rows) < 2:
            return batch
        near, index = distance.topk(min(self.k, len(rows) - 1), largest=False)
        count = near.isfinite().sum(1)
        chosen = index.gather(1, (draws[0] * count).long().clamp(max=index.shape[1] - 1)[:, None]).squeeze(1)
        fraction = torch.where((draws[2] < self.p) & (count > 0), draws[1], 0.0).unsqueeze(1)
        own, other = values[rows].double(), values[rows][chosen].double()
        moved = torch.where(other.isnan() | own.isnan(), own, own + fraction * (other - own))
        return batch.replace(**{self.numbers: values.index_copy(0, rows, moved.to(values.dtype))})
