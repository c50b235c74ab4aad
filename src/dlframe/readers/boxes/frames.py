"""Where the pixels of an image are after it was fitted into the size that a model takes, and back."""

from __future__ import annotations

import numpy as np

from dlframe.readers.modes import Fit

FRAME = ("scale_x", "scale_y", "offset_x", "offset_y", "width", "height")
"""Values of a frame: new x = scale_x * x + offset_x; width and height are those of the original image."""


def frame_of(size: tuple[int, int], target: tuple[int, int], fit: Fit) -> np.ndarray:
    """Return the frame (6,) of an image that `dlframe.readers.images.fitted` fits.

    Args:
        size: Width and height of the image, as displayed.
        target: Height and width of the result.
        fit: Way to the result; pad keeps the aspect ratio up to the rounding of a side, so scales may differ slightly.
    """
    width, height = size
    rows, columns = target
    if fit == "crop":
        scale = min(width / columns, height / rows)
        left, top = (width - columns * scale) / 2, (height - rows * scale) / 2
        return np.array([1 / scale, 1 / scale, -left / scale, -top / scale, width, height], np.float32)
    inner_width, inner_height = columns, rows
    if fit == "pad":
        if width / height > columns / rows:
            inner_height = round(height / width * columns)
        elif width / height < columns / rows:
            inner_width = round(width / height * rows)
    offset_x = round((columns - inner_width) * 0.5)
    offset_y = round((rows - inner_height) * 0.5) if inner_width == columns else 0
    return np.array([inner_width / width, inner_height / height, offset_x, offset_y, width, height], np.float32)


def place_of(shape: tuple[int, int], target: tuple[int, int], fit: Fit) -> list[float]:
    """Return left, top, right and bottom of a fitted image in pixels of the original: beyond it where margins were added.

    Args:
        shape: Height and width of the original.
        target: Height and width of the fitted image.
        fit: Way to it.
    """
    frame = frame_of((shape[1], shape[0]), target, fit)
    return _unfitted(np.array([0, 0, target[1], target[0]]), frame).tolist()


def placed(boxes: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Return corners (n, 4) of the original image in pixels of the fitted one.

    Args:
        boxes: (n, 4) corners, or (4,) of one box.
        frame: (6,) frame of their image, or (n, 6) of the image of each.
    """
    return boxes * np.tile(frame[..., :2], 2) + np.tile(frame[..., 2:4], 2)


def original(boxes: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Return corners (n, 4) of the fitted image in pixels of the original, cut to it; arguments as of `placed`."""
    return np.clip(_unfitted(boxes, frame), 0, np.tile(frame[..., 4:], 2)).astype(boxes.dtype)


def _unfitted(corners: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Return corners of the fitted image in pixels of the original, or beyond it."""
    return (corners - np.tile(frame[..., 2:4], 2)) / np.tile(frame[..., :2], 2)
