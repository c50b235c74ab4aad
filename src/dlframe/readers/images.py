"""Reader of image files, for data sets and predictions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that Pillow may open. EPS is excluded: Pillow runs a program for it."""


PIXELS = 2**27
"""Pixels that all threads together decode at once: about a gigabyte."""


class Budget:
    """Amount that threads share; who needs more than is left waits."""

    def __init__(self, amount: int) -> None:
        self.amount = self.left = amount
        self.changed = threading.Condition()

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Hold `amount`, or all of the budget where it is more."""
        amount = min(amount, self.amount)
        with self.changed:
            self.changed.wait_for(lambda: amount <= self.left)
            self.left -= amount
        try:
            yield
        finally:
            with self.changed:
                self.left += amount
                self.changed.notify_all()


BUDGET = Budget(PIXELS)


def read_image(file: Path, size: tuple[int, int], color_mode: str, root: Path | None = None) -> np.ndarray | str:
    """Decode an image, apply its EXIF orientation, scale and center-crop it.

    Args:
        file: Image file.
        size: Height and width in pixels.
        color_mode: "rgb" for three channels, "grayscale" for one.
        root: Resolved folder that must contain the file after following links; None for any folder.

    Returns:
        (channels, height, width) uint8, or a message about an unreadable file.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        if root and not file.resolve().is_relative_to(root):
            return "is a link out of the folder"
        if not file.is_file():  # pipes block forever
            return "is not a file" if file.exists() else "is a broken link"
        with Image.open(file, formats=FORMATS) as image:
            if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                return f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels"
            with BUDGET.taken(max(image.width * image.height, size[0] * size[1])):
                if image.mode.startswith("I;16"):
                    # Pillow would clip 16-bit values at 255 instead of scaling them.
                    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
                image = ImageOps.exif_transpose(image).convert("RGB" if color_mode == "rgb" else "L")
                pixels = np.asarray(ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BILINEAR))
                del image
    except UnidentifiedImageError:
        return "is not an image"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    except MemoryError:
        return "needs more memory than available"
    except Exception as error:  # A damaged file can raise any error in Pillow's decoders.
        return f"is broken: {error}"
    return pixels.transpose(2, 0, 1) if color_mode == "rgb" else pixels[None]


def header_of(file: Path) -> tuple[tuple[int, int], str] | None:
    """Read height, width and color mode from a header; None if unreadable."""
    from PIL import Image

    try:
        with Image.open(file, formats=FORMATS) as image:
            return (image.height, image.width), image.mode
    except Exception:  # A damaged file can raise any error in Pillow's decoders.
        return None
