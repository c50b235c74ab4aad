"""One image from a file: what may be opened, orientation, color and size. The same for training and for predicting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from dlframe.readers.samples import Reading
from dlframe.types import DataError, Field

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may open. Not among them: EPS, for which it runs a program."""

COLORS: dict[int, Literal["rgb", "grey"]] = {1: "grey", 3: "rgb"}
"""By the number of channels."""


def read_image(
    file: Path,
    *,
    height: int,
    width: int,
    color: Literal["rgb", "grey"],
    inside: Path | None = None,
    reading: Reading | None = None,
) -> np.ndarray:
    """The image (channels, height, width) uint8, turned as its EXIF data say, scaled to cover that size, cropped at the center.

    Args:
        file: To read.
        height: In pixels.
        width: In pixels.
        color: Three channels or one.
        inside: A resolved folder that a link must not lead out of.
        reading: Takes note of what was changed.

    Raises:
        DataError: Says what is wrong with the file, as the end of a sentence: "is not an image".
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        if inside and not file.resolve().is_relative_to(inside):
            raise DataError("is a link that leads out of the folder")
        if not file.is_file():  # a pipe would never end
            raise DataError("is no file" if file.exists() else "is a link that leads nowhere")
        with Image.open(file, formats=FORMATS) as image:
            if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise DataError(f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels")
            mode = image.mode
            if image.mode.startswith("I;16"):
                # Pillow would clip 16 bits at 255 instead of scaling them.
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = ImageOps.exif_transpose(image)
            size = (image.height, image.width)
            image = image.convert("RGB" if color == "rgb" else "L")
            pixels = np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR))
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError("is not an image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels") from None
    except MemoryError:
        raise DataError("needs more memory than there is") from None
    except Exception as error:  # Pillow's decoders raise whatever a damaged file makes them raise.
        raise DataError(f"is broken: {error}") from None
    if reading:
        if size != (height, width):
            cut = "" if size[0] * width == size[1] * height else " and cropped at the center"
            reading.assume(f"resized{cut} to {height}x{width}", f"{file.name}, {size[0]}x{size[1]}")
        if mode != ("RGB" if color == "rgb" else "L"):
            reading.assume(f"converted to {'RGB' if color == 'rgb' else 'gray'}", f"{file.name}, {mode}")
    return pixels.transpose(2, 0, 1) if color == "rgb" else pixels[None]


def image_samples(file: Path, field: Field, reading: Reading) -> Iterator[tuple[str, np.ndarray]]:
    """The one sample of an image file, with the channels and the size of the field."""
    channels, height, width = field.shape
    if channels not in COLORS:
        raise DataError(f"has no {channels} channels, which the model takes: give an array (.npy)")
    assert height
    assert width
    yield "", read_image(file, height=height, width=width, color=COLORS[channels], reading=reading)
