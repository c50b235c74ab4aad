"""Handwritten digits pasted on canvases: a small synthetic data set for detection, offline."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Interval

from dlframe.data.handwritten import CLASSES, handwritten
from dlframe.readers.modes import Decoding
from dlframe.readers.splits import statistics
from dlframe.registry import Count, data
from dlframe.types import PARTS, Dataset, DataSpec, Field, Ragged, Split

SCALES = (1.5, 3.5)
"""Smallest and largest magnification of a digit of 8 x 8 pixels."""

NOISE = 48
"""Largest gray value of the background."""

TRIES = 20
"""Places that are drawn for a digit before it is left out."""

OVERLAP = 0.1
"""Largest overlap of two digits."""


@data.register("composed_digits", inputs=("image",), targets=("box", "class"), files=(), sample={"images": 64})
def composed_digits(
    *,
    images: Count = 800,
    image_size: Annotated[int, Interval(ge=32, le=1024)] = 64,
    most: Annotated[int, Interval(ge=0, le=30)] = 5,
) -> Dataset:
    """Composed (synthetic): digits of scikit-learn pasted on noisy canvases, offline.

    The digits are those of `digits`, by the same split; magnified 1.5 to 3.5 times and placed at random, with boxes around
    their ink. The number of digits of a canvas is uniform from none to `most`: images without objects are data.

    Args:
        images: Training images; a quarter as many to validate and to test.
        image_size: Height and width of the canvases in pixels.
        most: Largest number of digits of a canvas.
    """
    counts = (images, -(-images // 4), -(-images // 4))
    rows = zip(PARTS, handwritten(), counts, strict=True)
    parts = {part: _composed(split, count, image_size, most, seed) for seed, (part, split, count) in enumerate(rows)}
    mean, std = statistics(parts["train"]["image"])
    shape = (1, image_size, image_size)
    spec = DataSpec(
        "composed_digits",
        inputs={"image": Field(kind="image", dtype="uint8", shape=shape, mean=mean, std=std)},
        targets={
            "box": Field(kind="box", dtype="float32", shape=(None, 4)),
            "label": Field(kind="class", dtype="int64", shape=(None,), names=CLASSES, along="box"),
        },
        fitted=Decoding(fit="pad", background="black").kept(),  # of files that are predicted
    )
    return Dataset(
        spec,
        *(parts[part] for part in PARTS),
        source="composed from scikit-learn's digits, synthetic",
        splits="as digits: 60/20/20",
    )


def _composed(split: Split, images: int, side: int, most: int, seed: int) -> Split:
    """Paste digits of a split on canvases."""
    random = np.random.default_rng(seed)
    pictures = random.integers(0, NOISE + 1, (images, 1, side, side)).astype(np.uint8)
    boxes: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for picture in pictures:
        own: list[tuple[int, int, int, int]] = []
        chosen = []
        for sample in random.choice(len(split), random.integers(0, most + 1)):
            digit = _magnified(split["image"][sample, 0], random.uniform(*SCALES))
            height, width = digit.shape
            for _ in range(TRIES):
                top, left = random.integers(0, side - height + 1), random.integers(0, side - width + 1)
                box = (left, top, left + width, top + height)
                if all(_overlap(box, other) <= OVERLAP for other in own):
                    place = picture[0, top : top + height, left : left + width]
                    np.maximum(place, digit, out=place)
                    own.append(box)
                    chosen.append(sample)
                    break
        boxes.append(np.array(own, np.float32).reshape(-1, 4))
        labels.append(split["label"][np.array(chosen, np.int64)])
    return Split({"image": pictures, "box": Ragged.of(boxes), "label": Ragged.of(labels)}, np.arange(images))


def _magnified(digit: np.ndarray, scale: float) -> np.ndarray:
    """Return a digit (8, 8) magnified by linear interpolation, cut to its ink."""
    size = round(8 * scale)
    place = np.clip((np.arange(size) + 0.5) * 8 / size - 0.5, 0, 7)
    low = np.floor(place).astype(int)
    part = place - low
    weights = np.zeros((size, 8))
    np.add.at(weights, (np.arange(size), low), 1 - part)
    np.add.at(weights, (np.arange(size), np.minimum(low + 1, 7)), part)
    large = np.rint(weights @ digit @ weights.T).astype(np.uint8)
    ink = large > NOISE
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return large[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _overlap(box: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Return intersection over union."""
    inside = 1
    for i in range(2):
        inside *= max(0, min(box[i + 2], other[i + 2]) - max(box[i], other[i]))
    own, others = ((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return inside / (own + others - inside)
