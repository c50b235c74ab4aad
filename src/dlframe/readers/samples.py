"""What a reader of raw inputs gives, and what it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dlframe.types import Field, printable


@dataclass(frozen=True)
class Sample:
    """What a prediction is made from.

    Attributes:
        name: Names it in the table of predictions: a path, "prices.csv to 2018-12-28", "images.npy[3]".
        columns: By input, the array of one sample.
    """

    name: str
    columns: Mapping[str, np.ndarray]


@dataclass
class Reading:
    """How raw inputs are to be read, and what was assumed while they were.

    Attributes:
        every: Of a series, take every window, not only the last one.
        assumed: What was changed -> how many samples it concerns, and the first of them.
    """

    every: bool = False
    assumed: dict[str, tuple[int, str]] = field(default_factory=dict)

    def assume(self, what: str, example: str) -> None:
        """Take note of what was done to a sample, to be said once for all of them."""
        count, first = self.assumed.get(what, (0, example))
        self.assumed[what] = (count + 1, first)

    def lines(self) -> list[str]:
        """What was assumed, a line each: "resized to 8x8: 12 inputs (the first: photo.jpg, 640x480)"."""
        return [
            printable(f"{what}: {count:,} {'input' if count == 1 else 'inputs'} ({'the first: ' * (count > 1)}{first})")
            for what, (count, first) in self.assumed.items()
        ]


Reader = Callable[[Path, Field, Reading], Iterator[tuple[str, np.ndarray]]]
"""From a file to its samples: what to append to the file's name, and the array. Raises the end of a sentence as `DataError`."""
