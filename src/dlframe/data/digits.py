"""Handwritten digits of scikit-learn, without a download."""

from __future__ import annotations

from dlframe.data.handwritten import CLASSES, handwritten
from dlframe.readers.splits import image_spec
from dlframe.registry import data
from dlframe.types import Dataset


@data.register("digits", inputs=("image",), targets=("class",), files=())
def digits() -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels, offline.

    The test set of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI, 1998, CC BY 4.0), as
    included in scikit-learn. That file lacks the original split by writer, so a fixed stratified split is used.
    """
    train, validation, test = handwritten()
    spec = image_spec("digits", train, CLASSES)
    return Dataset(spec, train, validation, test, "scikit-learn, offline", "stratified 60/20/20")
