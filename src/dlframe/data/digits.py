"""Handwritten digits of scikit-learn, without a download."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from dlframe.readers.splits import image_spec, stratified
from dlframe.registry import data
from dlframe.types import DataError, Dataset, Split


@data.register("digits", inputs=("image",), targets=("class",), files=())
def digits() -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels, offline.

    The test set of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI, 1998, CC BY 4.0), as
    included in scikit-learn. That file lacks the original split by writer, so a fixed stratified split is used.
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
    spec = image_spec("digits", train, tuple("0123456789"))
    return Dataset(spec, train, validation, test, "scikit-learn, offline", "stratified 60/20/20")
