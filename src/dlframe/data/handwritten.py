"""Handwritten digits that come with scikit-learn, for the data sets made of them."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from dlframe.readers.splits import stratified
from dlframe.types import DataError, Split

CLASSES = tuple("0123456789")


def handwritten() -> tuple[Split, Split, Split]:
    """Return 1,797 digits ("image", uint8, 8 x 8; "label") in a fixed stratified split, 60/20/20.

    Raises:
        DataError: The file of scikit-learn is missing or damaged.
    """
    # Importing scikit-learn takes a second.
    package = find_spec("sklearn")
    file = Path(package.origin or "" if package else "").parent / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(file, "rt", encoding="ascii") as text:
            rows = np.loadtxt(text, delimiter=",", dtype=np.uint8)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"digits: cannot read {file} of scikit-learn: {error}") from None
    images = np.rint(rows[:, :64].astype(np.float64) * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = rows[:, 64].astype(np.int64)
    everything = Split({"image": images, "label": labels}, np.arange(len(rows)))
    train, validation, test = (everything.take(i) for i in stratified(labels, (0.6, 0.2, 0.2)))
    return train, validation, test
