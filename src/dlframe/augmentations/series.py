"""Augmentations of windows of series, drawn per window.

Columns that are known in advance, such as parts of the time, stay as they are. So does the last step of a window: a forecast is
a change from it, and the score or label of a window is that of its last step.
"""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor

from dlframe.readers.tables.series import known_columns
from dlframe.registry import Fraction, NonNegative, Positive, augmentations
from dlframe.types import Batch, ConfigError, DataSpec

Length = Annotated[float, Interval(gt=0, lt=1)]


@augmentations.register("jitter", inputs=("series",))
class Jitter:
    """Add Gaussian noise to all steps of a window but the last one.

    Um et al. 2017, arXiv 1706.00527. The last step stays: a forecast is a change from it.

    Args:
        sigma: Standard deviation of the noise, in standard deviations of each column of the window.
        p: Probability of noise in a window.
    """

    def __init__(self, spec: DataSpec, *, sigma: NonNegative = 0.05, p: Fraction = 1.0) -> None:
        (self.series,) = spec.of_kind("series", spec.inputs)
        self.known = known_columns(spec)
        self.sigma, self.p = sigma, p

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        own, known = parts(batch, self.series, self.known)
        noise = torch.randn(own.shape, generator=generator, device=own.device, dtype=torch.float64) * self.sigma
        noise = torch.where(drawn(own, self.p, generator), noise * own.std(1, correction=0, keepdim=True), 0.0)
        noise[:, -1] = 0
        return joined(batch, self.series, own + noise, known)


@augmentations.register(
    "scaling", inputs=("series",), targets=("class", "event"), sample={"name": "planted_events", "steps": 3000, "window": 16}
)
class Scaling:
    """Multiply the values of a window by a random number near 1.

    Um et al. 2017, arXiv 1706.00527: one number for each column, of a Gaussian with the mean 1. Deviations from the mean of the
    training rows are multiplied. A forecast does not depend on the scale of its window, so that data of forecasts are refused.

    Args:
        sigma: Standard deviation of the numbers.
        p: Probability of scaling a window.
    """

    def __init__(self, spec: DataSpec, *, sigma: NonNegative = 0.1, p: Fraction = 1.0) -> None:
        (self.series,) = spec.of_kind("series", spec.inputs)
        self.sigma, self.p = sigma, p
        self.mean = torch.tensor(spec.inputs[self.series].mean or (0.0,), dtype=torch.float64)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        own, known = parts(batch, self.series, 0)
        shape = (len(own), 1, own.shape[2])
        factors = 1 + torch.randn(shape, generator=generator, device=own.device, dtype=torch.float64) * self.sigma
        factors = torch.where(drawn(own, self.p, generator), factors, 1.0)
        mean = self.mean.to(own.device)
        return joined(batch, self.series, mean + (own - mean) * factors, known)


@augmentations.register("window_warp", inputs=("series",))
class WindowWarp:
    """Run through a part of a window faster or slower, and through the rest accordingly.

    Le Guennec et al. 2016 ("Data augmentation for time series classification using convolutional neural networks"): a part of
    the window at a random place is stretched by a factor, and all is resampled to the length of before, linearly. First and
    last step stay.

    Args:
        length: Length of the part, as a fraction of the window.
        factors: Factors of its length, of which one is drawn: 2 is half the speed.
        p: Probability of warping a window.
    """

    def __init__(
        self, spec: DataSpec, *, length: Length = 0.1, factors: tuple[Positive, ...] = (0.5, 2.0), p: Fraction = 1.0
    ) -> None:
        (self.series,) = spec.of_kind("series", spec.inputs)
        self.known = known_columns(spec)
        if not factors:
            raise ConfigError("augmentation.window_warp.factors: must be one number at least. Received: [].")
        self.length, self.p = length, p
        self.factors = torch.tensor(factors, dtype=torch.float64)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        own, known = parts(batch, self.series, self.known)
        last, device = own.shape[1] - 1, own.device
        draws = torch.rand(2, len(own), generator=generator, device=device, dtype=torch.float64)
        width = self.length * last
        start = draws[0, :, None] * (last - width)  # (batch, 1), in steps
        factor = self.factors.to(device)[(draws[1] * len(self.factors)).long().clamp(max=len(self.factors) - 1)][:, None]
        factor = torch.where(drawn(own, self.p, generator)[:, :, 0], factor, 1.0)
        ends = start + width * factor
        places = torch.linspace(0, 1, last + 1, device=device, dtype=torch.float64) * (last + width * (factor - 1))
        inner, after = start + (places - start) / factor, places - width * (factor - 1)
        places = torch.where(places < start, places, torch.where(places < ends, inner, after))  # (batch, time) of the source
        before = places.long().clamp(0, max(last - 1, 0))
        weight = (places - before)[:, :, None]
        index = before[:, :, None].expand(own.shape)
        warped = own.gather(1, index) * (1 - weight) + own.gather(1, (index + 1).clamp(max=last)) * weight
        warped = torch.where(factor[:, :, None] == 1, own, warped)
        warped[:, [0, -1]] = own[:, [0, -1]]
        return joined(batch, self.series, warped, known)


def parts(batch: Batch, name: str, known: int) -> tuple[Tensor, Tensor]:
    """Return the columns of the series (batch, time, columns) in double precision, and those known in advance.

    Raises:
        ConfigError: The windows are not of one length.
    """
    values = batch[name]
    if not isinstance(values, Tensor):
        raise ConfigError(f"augmentation: '{name}' must have windows of one length; those of {name} vary.")
    own = values.shape[2] - known
    return values[:, :, :own].double(), values[:, :, own:]


def joined(batch: Batch, name: str, own: Tensor, known: Tensor) -> Batch:
    return batch.replace(**{name: torch.cat([own.to(known.dtype), known], 2)})


def drawn(own: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """Return which windows (batch, 1, 1) are drawn with probability `p`."""
    return torch.rand((len(own), 1, 1), generator=generator, device=own.device) < p
