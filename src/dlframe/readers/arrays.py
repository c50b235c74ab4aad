"""Conversion of arrays to the declared input columns."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlframe.types import DataError, DataSpec, Field, Ragged

LARGEST = 2**32
"""Maximum unpacked bytes of a .npz file; .npy files are mapped and unlimited."""

FINITE = ("image", "audio", "series")
"""Kinds without NaN and infinity."""


def load_arrays(file: Path, spec: DataSpec) -> Any:
    """Map the array of a .npy file, or load the inputs of a .npz file.

    Raises:
        DataError: The file is damaged, holds Python objects, or lacks an input.
    """
    try:
        if file.suffix.lower() == ".npy":
            return np.load(file, mmap_mode="r", allow_pickle=False)
        with zipfile.ZipFile(file) as archive:
            if (size := sum(member.file_size for member in archive.infolist())) > LARGEST:
                raise DataError(f"{file}: unpacks to {size / 1e9:.1f} GB. Use .npy files, which are mapped.")
        with np.load(file, allow_pickle=False) as archive:
            if archive.files == ["arr_0"] and len(spec.inputs) == 1:  # NumPy's default name
                return archive["arr_0"]
            if missing := [name for name in spec.inputs if name not in archive.files]:
                received = ", ".join(archive.files) or "none"
                raise DataError(f"{file}: must have an array '{missing[0]}'. Received: {received}.")
            return {name: archive[name] for name in spec.inputs}
    except DataError:
        raise
    except Exception as error:  # A damaged header can raise any error in NumPy.
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{file}: is not a file of arrays: {said}") from None


def columns_of(inputs: Any, spec: DataSpec, where: str = "inputs") -> dict[str, Any]:
    """Return arrays (samples, ...) or `Ragged` by input, with checked shapes.

    `converted` checks the values.

    Args:
        inputs: Array of several samples or of one; or a mapping of such arrays by input. A table of pandas has a column for
            each input, or is one array.
        spec: Declaration of the inputs.
        where: Beginning of error messages.

    Raises:
        DataError: The inputs do not match the declaration.
    """
    if hasattr(inputs, "columns") and hasattr(inputs, "to_numpy"):
        is_named = {*map(str, inputs.columns)} & spec.inputs.keys()
        inputs = {str(name): inputs[name].tolist() for name in inputs.columns} if is_named else inputs.to_numpy()
    if not isinstance(inputs, Mapping):
        if len(spec.inputs) != 1:
            raise DataError(f"{where}: must be a mapping of {', '.join(spec.inputs)}. Received: {type(inputs).__name__}.")
        inputs = {next(iter(spec.inputs)): inputs}
    if inputs.keys() != spec.inputs.keys():
        received = ", ".join(map(str, inputs)) or "none"
        raise DataError(f"{where}: must be {', '.join(spec.inputs)}. Received: {received}.")
    columns = {
        name: _column(inputs[name], field, where, name, alone=len(spec.inputs) == 1) for name, field in spec.inputs.items()
    }
    if len({len(column) for column in columns.values()}) > 1:
        sizes = ", ".join(f"{len(column)} of {name}" for name, column in columns.items())
        raise DataError(f"{where}: must have equally many samples. Received: {sizes}.")
    return columns


def _column(given: Any, declared: Field, where: str, name: str, *, alone: bool) -> Any:
    told = "" if alone else f"'{name}' "
    if declared.ragged:
        return given if isinstance(given, Ragged) else _ragged(given, declared, where, name)
    try:
        array = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: must be one array. Received: {error}") from None
    if array.shape == declared.shape:
        array = array[None]
    if array.shape[1:] != declared.shape or not array.ndim or array.dtype.kind not in "buif":
        shape = ", ".join(map(str, declared.shape))
        raise DataError(f"{where}: {told}must be numbers (samples, {shape}). Received: {array.dtype} {array.shape}.")
    return array


def _ragged(given: Any, declared: Field, where: str, name: str) -> Ragged:
    """Convert a sequence of arrays of varying length."""
    try:
        samples = [converted(np.asarray(sample), declared, where, name) for sample in given]
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: '{name}' must be a list of arrays. Received: {error}") from None
    for sample in samples:
        if sample.shape[1:] != declared.shape[1:] or not sample.ndim:
            raise DataError(f"{where}: '{name}' must have samples of shape {declared.shape}. Received: {sample.shape}.")
    return Ragged.of(samples or [np.empty((0, *(side or 0 for side in declared.shape[1:])), declared.dtype)])


def _is_whole(values: np.ndarray, declared: Field) -> bool:
    """Return whether floats are whole numbers; images of 0.0 and 1.0 may be meant as black and white."""
    if declared.kind == "image" and values.size and values.max() == 1:
        return False
    return bool((np.abs(values) < 2**53).all() and (values == np.rint(values)).all())


def converted(values: np.ndarray, declared: Field, where: str, name: str) -> np.ndarray:
    """Convert values to the declared type, if only rounding changes them; whole numbers, as JSON has them, become integers.

    Raises:
        DataError: Fractions for integers, a number out of range, or a non-finite number.
    """
    dtype = np.dtype(declared.dtype)
    if dtype.kind in "iu" and values.dtype.kind == "f" and _is_whole(values, declared):
        values = values.astype(np.int64)
    if values.dtype.kind not in ("iuf" if dtype.kind == "f" else dtype.kind + "iu"):
        hint = " Convert images from 0 to 1 by (255 * x).round().astype('uint8')." if declared.kind == "image" else ""
        raise DataError(f"{where}: '{name}' must be {dtype}. Received: {values.dtype}.{hint}")
    if dtype.kind in "iu" and values.dtype != dtype and values.size:
        limits, low, high = np.iinfo(dtype), values.min(), values.max()
        if low < limits.min or high > limits.max:
            raise DataError(f"{where}: '{name}' must be from {limits.min} to {limits.max}. Received: {low} to {high}.")
    with np.errstate(over="ignore"):
        values = values.astype(dtype, copy=False)
    if dtype.kind == "f" and declared.kind in FINITE and not np.isfinite(values).all():
        raise DataError(f"{where}: '{name}' must be finite. Received: {values[~np.isfinite(values)].flat[0]}.")
    return values
