"""What a user has, as the columns that a model takes: image files, folders, tables of prices, arrays."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlframe.readers.images import read_image, size_of
from dlframe.types import DataError, DataSpec, Field, nearest

ARRAYS = (".npy", ".npz")
TABLES = (".csv", ".gz")


@dataclass(frozen=True)
class Sample:
    """One thing to predict for: what it is called, and its columns."""

    name: str
    columns: dict[str, np.ndarray]


class Inputs:
    """Samples read one by one from what a user names.

    Args:
        spec: What the model takes.
        on_error: Whether a file that cannot be read ends the prediction, or is named and left out.
        every: Of a series, predict from every window instead of the last one.
        encode: The task's own way from a file to columns; None where a file is read by the kind of the input.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        on_error: Literal["raise", "skip"] = "raise",
        every: bool = False,
        encode: Callable[[Path], dict[str, np.ndarray] | None] = lambda file: None,
    ) -> None:
        self.spec = spec
        self.encode = encode
        self.resized = 0
        """Images of another size than the model takes."""
        self.on_error = on_error
        self.every = every
        self.skipped = 0

    def read(self, paths: Iterable[Path]) -> Iterator[Sample]:
        """The samples of files and folders, in the order of their names.

        Raises:
            DataError: A path does not exist, is of a kind that the model does not take, or cannot be read.
        """
        for path in paths:
            if not path.exists():
                beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
                raise DataError(f"predict: there is no {path}.{nearest(path.name, beside)}")
            for file in sorted(_files(path)) if path.is_dir() else [path]:
                try:
                    yield from self._samples(file)
                except DataError as error:
                    if self.on_error == "raise":
                        raise DataError(f"{error} Leave such files out: on_error=skip") from None
                    self.skipped += 1
                    print(f"left out: {error}", file=sys.stderr)

    def _samples(self, file: Path) -> Iterator[Sample]:
        if file.suffix in ARRAYS:
            yield from self._of_arrays(file)
            return
        if (columns := self.encode(file)) is not None:
            yield Sample(str(file), columns)
            return
        if len(self.spec.inputs) == 1:
            (name, field), *_ = self.spec.inputs.items()
            if field.kind == "image" and not field.ragged:
                pixels = _image(file, field)
                self.resized += size_of(file) != field.shape[1:]
                yield Sample(str(file), {name: pixels})
                return
            if field.kind == "series":
                yield from self._windows(file, name, field)
                return
        kinds = ", ".join(f"{name} ({field.kind})" for name, field in self.spec.inputs.items())
        raise DataError(
            f"predict: {file} cannot be read as {kinds}. Give arrays: a .npz file with {', '.join(self.spec.inputs)}."
        )

    def _of_arrays(self, file: Path) -> Iterator[Sample]:
        try:
            loaded: Any = np.load(file, allow_pickle=False, mmap_mode="r" if file.suffix == ".npy" else None)
            arrays = {next(iter(self.spec.inputs)): loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
        except (OSError, ValueError, EOFError, KeyError) as error:
            raise DataError(f"predict: {file} is not arrays: {error}.") from None
        if arrays.keys() != self.spec.inputs.keys():
            raise DataError(f"predict: {file} must have {', '.join(self.spec.inputs)}. Received: {', '.join(arrays)}.")
        for name, field in self.spec.inputs.items():
            if arrays[name].shape[1:] != field.shape or arrays[name].dtype.kind not in "buif":
                received = f"{arrays[name].dtype} {arrays[name].shape}"
                raise DataError(f"predict: {file}: '{name}' must be numbers (samples, {_sides(field)}). Received: {received}.")
        for i in range(len(next(iter(arrays.values())))):
            yield Sample(f"{file}[{i}]", {name: array[i] for name, array in arrays.items()})

    def _windows(self, file: Path, name: str, field: Field) -> Iterator[Sample]:
        """The last window of a series, or all."""
        from dlframe.data.stocks import read_prices

        length = field.shape[0]
        assert length is not None
        if file.suffix not in TABLES:
            raise DataError(f"predict: {file} must be a CSV file with the columns date, {', '.join(field.names)}.")
        days, values = read_prices(file, field.names)
        if len(days) < length:
            raise DataError(f"predict: {file} has {len(days)} rows, and the model sees {length}.")
        for start in range(len(days) - length + 1) if self.every else [len(days) - length]:
            window = values[start : start + length].astype(field.dtype)
            yield Sample(f"{file} to {days[start + length - 1]}", {name: window})


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder, hidden ones left out."""
    for path in folder.rglob("*"):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _image(file: Path, field: Field) -> np.ndarray:
    channels, height, width = field.shape
    if channels not in (1, 3):
        raise DataError(f"predict: {file} has no {channels} channels. Give arrays: a .npy file (samples, {_sides(field)}).")
    assert height is not None
    assert width is not None
    pixels = read_image(file, (height, width), "rgb" if channels == 3 else "grey")
    if isinstance(pixels, str):
        raise DataError(f"predict: {file} {pixels}.")
    return pixels


def _sides(field: Field) -> str:
    return ", ".join("*" if side is None else str(side) for side in field.shape)
