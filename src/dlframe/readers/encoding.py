"""From what a user names, a file or an array, to the samples that a trained model takes.

A kind of field has a reader of files: a function and a row in `READERS`. A task whose raw inputs are of another kind overrides
`Task.encode`, which comes here.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.readers.images import FORMATS, image_samples
from dlframe.readers.samples import Reader, Reading, Sample
from dlframe.readers.series import series_samples
from dlframe.types import DataError, DataSpec, Field, Ragged, printable

LARGEST = 2**32
"""Bytes of the arrays in a compressed .npz file, which are unpacked into memory; one in a .npy file may have any size."""

ARRAYS = (".npy", ".npz")
"""Endings of files of arrays, which stand for samples of any kind."""

FINITE = ("image", "audio", "series")
"""Kinds in whose values NaN and infinity have no meaning."""


READERS: dict[str, tuple[Reader, str]] = {
    "image": (image_samples, f"image files ({', '.join(FORMATS)})"),
    "series": (series_samples, "tables (.csv, .csv.gz, .parquet)"),
}
"""Kind of a field -> its reader, and what that reads, in words."""


def encode(raw: Any, spec: DataSpec, reading: Reading) -> Iterator[Sample]:
    """The samples that a file or an array holds.

    Args:
        raw: A path; an array of one sample or of several; or a mapping of such arrays, by input, of several samples each.
        spec: What the model was trained on.
        reading: How to read.

    Raises:
        DataError: It cannot be read, or holds something else.
    """
    if not isinstance(raw, (str, Path)):
        yield from _of_arrays(checked(raw, spec), spec, "")
        return
    file = Path(raw)
    name = shown(file)
    if not file.is_file():
        raise DataError(f"{name}: {'is no file' if file.exists() else 'there is no such file'}.")
    if file.suffix.lower() in ARRAYS:
        yield from _of_arrays(checked(_load(file, spec), spec, name), spec, name)
        return
    if not file.stat().st_size:
        raise DataError(f"{name}: is empty.")
    column, kind = next((column, field.kind) for column, field in spec.inputs.items())
    if len(spec.inputs) > 1 or kind not in READERS:
        columns = ", ".join(f"{column} ({field.kind})" for column, field in spec.inputs.items())
        raise DataError(f"{name}: cannot be read as {columns}. Give the arrays of the inputs in a file .npz, by these names.")
    reader, takes = READERS[kind]
    try:
        for part, array in _quietly(reader(file, spec.inputs[column], reading)):
            yield Sample(f"{name}{part}", {column: converted(array, spec.inputs[column], name, column)})
    except DataError as error:
        said = str(error).removeprefix(f"{file}: ").rstrip(".")
        raise DataError(f"{name}: {said}. The model takes {takes}, or arrays (.npy, .npz).") from None


def _quietly(samples: Iterator[tuple[str, np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    """Without the warnings of decoders, whose errors are enough."""
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sample = next(samples, None)
        if sample is None:
            return
        yield sample


def shown(path: Path) -> str:
    """A path as text: it may hold bytes that are none, which no table takes, or that a terminal obeys."""
    return printable(str(path).encode(errors="backslashreplace").decode())


def _load(file: Path, spec: DataSpec) -> Any:
    """The array of a .npy file, mapped, or those of a .npz file by name."""
    name = shown(file)
    try:
        if file.suffix.lower() == ".npy":
            return np.load(file, mmap_mode="r", allow_pickle=False)
        with zipfile.ZipFile(file) as archive:
            if (size := sum(member.file_size for member in archive.infolist())) > LARGEST:
                raise DataError(f"{name}: holds {size / 1e9:.1f} GB, more than is unpacked into memory. Use .npy files.")
        with np.load(file, allow_pickle=False) as archive:
            found = archive.files
            if len(spec.inputs) == 1 and len(found) == 1:
                return archive[found[0]]
            if missing := [column for column in spec.inputs if column not in found]:
                raise DataError(f"{name}: must hold an array '{missing[0]}'. Received: {', '.join(found) or 'none'}.")
            return {column: archive[column] for column in spec.inputs}
    except DataError:
        raise
    except Exception as error:  # Whatever a damaged header makes NumPy raise.
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{name}: cannot be read as arrays without Python objects: {said}") from None


def checked(inputs: Any, spec: DataSpec, where: str = "inputs") -> dict[str, Any]:
    """Arrays by input, (samples, ...), or `Ragged`, of the declared shapes; values are looked at when they are `converted`.

    Args:
        inputs: An array, of one sample or several; or a mapping of arrays of several.
        spec: What is declared.
        where: Begins the message.

    Raises:
        DataError: They are not as declared.
    """
    if not isinstance(inputs, Mapping):
        if len(spec.inputs) != 1:
            raise DataError(f"{where}: must be a mapping of {', '.join(spec.inputs)}. Received: {type(inputs).__name__}.")
        inputs = {next(iter(spec.inputs)): inputs}
    if inputs.keys() != spec.inputs.keys():
        received = ", ".join(map(str, inputs)) or "none"
        raise DataError(f"{where}: must be arrays of {', '.join(spec.inputs)}. Received: {received}.")
    columns = {name: _shaped(inputs[name], field, where, name) for name, field in spec.inputs.items()}
    if len({len(column) for column in columns.values()}) > 1:
        sizes = ", ".join(f"{len(column)} of {name}" for name, column in columns.items())
        raise DataError(f"{where}: must have as many samples each. Received: {sizes}.")
    return columns


def _shaped(given: Any, declared: Field, where: str, name: str) -> Any:
    if declared.ragged:
        return given if isinstance(given, Ragged) else _ragged(given, declared, where, name)
    try:
        array = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: must be one array. Received: {error}") from None
    if array.shape == declared.shape:
        array = array[None]
    if array.shape[1:] != declared.shape or array.ndim == 0 or array.dtype.kind not in "iuf":
        shape = ", ".join(map(str, declared.shape))
        raise DataError(
            f"{where}: must be {declared.dtype} numbers of shape (samples, {shape}). Received: {array.dtype} {array.shape}."
        )
    return array


def _ragged(given: Any, declared: Field, where: str, name: str) -> Ragged:
    """A list of arrays of varying length, or one array, whose samples are of one length."""
    try:
        samples = [converted(np.asarray(sample), declared, where, name) for sample in given]
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: '{name}' must be a list of arrays. Received: {error}") from None
    inner = {sample.shape[1:] for sample in samples if sample.ndim}
    if not all(sample.ndim for sample in samples) or inner - {declared.shape[1:]}:
        shapes = ", ".join(str(sample.shape) for sample in samples[:3])
        raise DataError(f"{where}: '{name}' must have samples of shape {declared.shape}. Received: {shapes}.")
    if not samples:
        return Ragged(np.empty((0, *declared.shape[1:]), declared.dtype), np.zeros(1, np.int64))  # type: ignore[arg-type]
    return Ragged.of(samples)


def converted(values: np.ndarray, declared: Field, where: str, name: str) -> np.ndarray:
    """Values as numbers of the declared type, if none is changed by that but by rounding.

    Raises:
        DataError: Floats where integers are declared, a number out of range, or one that is not finite.
    """
    dtype = np.dtype(declared.dtype)
    if values.dtype.kind not in "iuf" or (values.dtype.kind == "f" and dtype.kind != "f"):
        hint = " Values from 0 to 1 become that by (255 * x).round()." if declared.kind == "image" else ""
        raise DataError(f"{where}: '{name}' must be {dtype}. Received: {values.dtype}.{hint}")
    if values.dtype != dtype and dtype.kind != "f" and values.size:
        limits, low, high = np.iinfo(dtype), values.min(), values.max()
        if low < limits.min or high > limits.max:
            raise DataError(f"{where}: '{name}' must be from {limits.min} to {limits.max}. Received: {low} to {high}.")
    if values.dtype != dtype:
        with np.errstate(over="ignore"):
            values = values.astype(dtype)
    if dtype.kind == "f" and declared.kind in FINITE and not np.isfinite(values).all():
        raise DataError(f"{where}: '{name}' must be finite numbers. Received: {values[~np.isfinite(values)].flat[0]}.")
    return values


def _of_arrays(columns: Mapping[str, Any], spec: DataSpec, where: str) -> Iterator[Sample]:
    for i in range(len(next(iter(columns.values())))):
        arrays = {
            name: converted(columns[name][i], declared, where or "inputs", name) for name, declared in spec.inputs.items()
        }
        yield Sample(f"{where}[{i}]", arrays)
