"""What happens at a loss that is NaN or infinite, and what is said of a metric that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dlframe.types import TrainingError


@dataclass(frozen=True)
class BadLoss:
    """A loss that is not finite: the number of its network, the optimizer step that it belongs to, and its value."""

    network: int
    step: int
    value: float


def advice(clip: float | None) -> str:
    """The beginning of what to try where numbers are no longer finite."""
    return "The checkpoints before are kept. Try a smaller optimizer.lr," + ("" if clip else " gradient_clip_val=1,")


def undefined(monitor: str, metrics: Mapping[str, float]) -> TrainingError:
    """The error of a monitored metric that was undefined in every epoch.

    Args:
        monitor: The metric.
        metrics: Those of the last validation.
    """
    told = f"{monitor} was undefined in every epoch, so none was the best."
    if math.isfinite(metrics.get("val/loss", math.nan)):
        told += " The loss is finite: the validation split lacks what the metric needs."
        return TrainingError(f"{told} Try another split, or another monitor.")
    return TrainingError(f"{told} Try a smaller optimizer.lr, or another monitor.")


def not_finite(bad: BadLoss, where: str, *, clip: float | None, network: str = "", since: bool = False) -> TrainingError:
    """The error of a loss that is not finite.

    Args:
        bad: The loss.
        where: Epoch, learning rate and the like, in brackets.
        clip: Largest gradient norm; None for no limit.
        network: Whose loss it is, " of the generator", if there are several.
        since: Whether weights or buffers are not finite either: the fault is the step before.
    """
    what = f"the loss{network} is {bad.value:g} at step {bad.step} {where}."
    if since:
        what = f"weights or buffers are not finite since step {bad.step - 1}, whose loss was finite."
    return TrainingError(f"{what} {advice(clip)} or on_nan=skip to leave such batches out.")


class FiniteLosses:
    """Looks at each loss, at once or a little later.

    On a GPU a look waits for the device: with "raise" losses are collected, and looked at between chunks. With several
    processes all have to agree, or some would wait for a gradient that never comes.

    Args:
        action: "raise" or "skip".
        several: Whether several processes train together.
    """

    def __init__(self, action: Literal["raise", "skip"], *, several: bool) -> None:
        self.action = action
        self.several = several
        self.bad: BadLoss | None = None
        """Found in this process, and not yet told to the others."""
        self._unchecked: list[tuple[int, int, Tensor]] = []

    def usable(self, loss: Tensor, network: int, step: int) -> bool:
        """Whether a network may learn from its loss; with "raise" a bad one is kept in `bad`, and is usable no more."""
        if self.action == "raise" and loss.is_cuda:
            self._unchecked.append((network, step, loss.detach()))
            return True
        finite = math.isfinite(value := loss.item())
        if self.several and self.action == "skip":
            everywhere = torch.tensor(finite, dtype=torch.uint8, device=loss.device)
            torch.distributed.all_reduce(everywhere, torch.distributed.ReduceOp.MIN)
            finite = bool(everywhere)
        if not finite and self.action == "raise":
            self.bad = self.bad or BadLoss(network, step, value)
            return self.several  # the others wait for this gradient, and are told between two steps
        return finite

    def check(self) -> BadLoss | None:
        """Look at the losses that were left on the device; the first bad one."""
        unchecked, self._unchecked = self._unchecked, []
        if unchecked:
            finite = torch.stack([loss for _, _, loss in unchecked]).isfinite().tolist()
            for (network, step, loss), good in zip(unchecked, finite, strict=True):
                if not good:
                    self.bad = self.bad or BadLoss(network, step, loss.item())
        return self.bad
