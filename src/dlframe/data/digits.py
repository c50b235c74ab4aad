"""Handwritten digits that come with scikit-learn: 8 x 8 pixels, nothing to fetch."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from dlframe.readers.splits import check, statistics, stratified
from dlframe.registry import data
from dlframe.types import DataError, Dataset, DataSpec, Split


@data.register("digits", inputs="image", target="class")
def digits() -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels, offline: the quick one.

    The test set of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI, 1998, CC BY 4.0), as
    scikit-learn ships it. Its authors' split by writer is not in that file, so the split here is stratified and fixed.
    """
    # Found without importing scikit-learn, which takes a second.
    package = find_spec("sklearn")
    file = Path(package.origin or "" if package else "").parent / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(file, "rt", encoding="ascii") as text:
            rows = np.loadtxt(text, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"digits: {file} of scikit-learn cannot be read: {error}") from None
    images = np.rint(rows[:, :64].astype(np.float64) * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    everything = Split(images, rows[:, 64].astype(np.int64), np.arange(len(rows)))
    train, validation, test = (everything.take(i) for i in stratified(everything.targets, (0.6, 0.2, 0.2)))
    mean, std = statistics(train.inputs)
    spec = DataSpec("digits", "image", "class", (1, 8, 8), tuple("0123456789"), mean=mean, std=std)
    return check(Dataset(spec, train, validation, test, "scikit-learn, offline", "stratified 60/20/20"))
