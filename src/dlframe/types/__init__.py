"""What the parts hand to one another: specifications, batches, results, errors. Imports no torch."""

from __future__ import annotations

import difflib
import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class DlframeError(Exception):
    """A mistake that the user can mend: one line that names key, rule, value received and the nearest valid name."""

    def __str__(self) -> str:
        return printable(super().__str__())  # parts of it may be a stranger's words


class ConfigError(DlframeError):
    """A config that names something unknown or holds a value outside its range. `key` is the dotted name of the culprit."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class RegistrationError(DlframeError):
    """A class or a plugin that cannot be registered."""


class DataError(DlframeError):
    """Data that is missing, empty, unreadable or not what it was said to be."""


class CheckpointError(DlframeError):
    """A checkpoint that is missing, damaged or of another model."""


class TrainingError(DlframeError):
    """A training that cannot go on."""


class TrackingError(DlframeError):
    """A tracking store that does not answer."""


def printable(text: str) -> str:
    """Text with escapes for what a terminal obeys: control characters, and those that turn the direction of writing."""
    hidden = {c for c in text if unicodedata.category(c) == "Cc" or "\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069"}
    return "".join(repr(c)[1:-1] if c in hidden else c for c in text) if hidden else text


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error message: the closest of `names`, or all of them where none is close and they are few."""
    names = sorted(names)
    if close := difflib.get_close_matches(name, names, n=1):
        return f" Did you mean '{close[0]}'?"
    return f" Choose from: {', '.join(names)}." if 0 < len(names) <= 12 else ""


@dataclass(frozen=True)
class DataSpec:
    """What a model has to know about the data.

    Attributes:
        name: Name of the data set.
        inputs: Kind of one input: "image" or "series".
        target: Kind of one target: "class" (an integer) or "value" (real numbers).
        shape: Shape of one input: (channels, height, width) of an image, (time, features) of a series.
        classes: Class names in the order of the target's integers; empty without classes.
        horizon: Number of future values in one target; 0 without a future.
        mean: Mean of each channel over the training inputs, images scaled to [0, 1].
        std: Standard deviation likewise.
    """

    name: str
    inputs: str
    target: str
    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    horizon: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


UNLABELLED = -1
"""Target of a sample whose label is hidden (`labels_per_class`)."""


@dataclass
class Split:
    """Samples in memory, or in a memory map.

    Attributes:
        inputs: (samples, *spec.shape); uint8 for images.
        targets: (samples,) int64 class numbers, `UNLABELLED` where hidden; or (samples, horizon) float32.
        ids: (samples,) strings or integers that name a sample for good.
    """

    inputs: np.ndarray
    targets: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, index: np.ndarray) -> Split:
        """The samples at `index` (integers), in that order."""
        return Split(self.inputs[index], self.targets[index], self.ids[index])


@dataclass
class Dataset:
    """A data set, split. `source` says where it came from and `splits` how it was split, for the first line of a run."""

    spec: DataSpec
    train: Split
    validation: Split
    test: Split
    source: str
    splits: str

    @cached_property
    def fingerprint(self) -> str:
        """12 hexadecimal digits of SHA-256 over every input and target of every split."""
        import numpy as np

        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for array in (split.inputs, split.targets):
                digest.update(f"{array.dtype}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:12]


@dataclass
class Batch:
    """Samples on the device.

    Attributes:
        inputs: (batch, *spec.shape).
        targets: (batch,) int64; (batch, classes) float where an augmentation has mixed labels; (batch, horizon) float32.
        index: (batch,) int64 positions in the split.
    """

    inputs: Tensor
    targets: Tensor
    index: Tensor


@dataclass
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass
class Result:
    """What a run ends with.

    Attributes:
        folder: The run's folder; None in a process that keeps none.
        headline: Name of the metric that the run is judged by.
        metrics: Every metric of the test split.
        interval: The headline metric with its interval.
        baseline: Name of the trivial baseline, and its metrics on the test split.
        samples: Samples in the test split.
        seconds: Wall time of the run.
        overrides: The command line that gave the run.
    """

    folder: Path | None
    headline: str
    metrics: dict[str, float]
    interval: Estimate
    baseline: tuple[str, dict[str, float]]
    samples: int
    seconds: float = 0.0
    overrides: tuple[str, ...] = ()
