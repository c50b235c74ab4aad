"""A plugin: augmentations that scale each batch by what a resumed run may or may not know, and what is slow enough to hit."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from dlframe.registry import augmentations, callbacks
from dlframe.types import Batch, DataSpec


class Scaled:
    def __init__(self, spec: DataSpec) -> None:
        self.calls = 0

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        self.calls += 1
        return batch.replace(inputs=batch.inputs * self.factor())

    def factor(self) -> float:
        return 0.999**self.calls


@augmentations.register("hidden")
class Hidden(Scaled):
    """Counts, and tells nobody."""


@augmentations.register("told")
class Told(Scaled):
    """Counts, and gives its count."""

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls = state["calls"]


@augmentations.register("drawn")
class Drawn(Scaled):
    """Draws from every generator of the process, not only from its own."""

    def factor(self) -> float:
        return random.gauss(1, 0.1) * np.random.normal(1, 0.1) * torch.rand(()).item()


@augmentations.register("broken")
class Broken(Scaled):
    """Makes about every fifth batch NaN."""

    def factor(self) -> float:
        return float("nan") if random.random() < 0.2 else 1.0


@augmentations.register("asleep")
class Asleep(Scaled):
    """Takes minutes for a batch, which it says."""

    def factor(self) -> float:
        print("asleep", flush=True)
        time.sleep(300)
        return 1.0


@callbacks.register("slow_validation")
class SlowValidation(Callback):
    """Makes validation take a while, and says when it begins."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        print("validates", flush=True)
        time.sleep(0.3)
