"""Image files as arrays: one reader, for data sets and for predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may open. Not among them: EPS, for which it runs a program."""


def read_image(file: Path, size: tuple[int, int], color_mode: str, root: Path | None = None) -> np.ndarray | str:
    """Decode an image, turned as its EXIF data say, scaled to cover a size and cropped at the center.

    Args:
        file: The image.
        size: Height and width in pixels.
        color_mode: "rgb" for three channels, "grayscale" for one.
        root: Resolved folder that the file must lie in, behind all links; None for anywhere.

    Returns:
        (channels, height, width) uint8, or what is wrong with the file.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        if root and not file.resolve().is_relative_to(root):
            return "is a link that leads out of the folder"
        if not file.is_file():  # pipes block forever
            return "is no file" if file.exists() else "is a link that leads nowhere"
        with Image.open(file, formats=FORMATS) as image:
            if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                return f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels"
            if image.mode.startswith("I;16"):
                # Pillow would clip 16 bits at 255 instead of scaling them.
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = ImageOps.exif_transpose(image).convert("RGB" if color_mode == "rgb" else "L")
            pixels = np.asarray(ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BILINEAR))
    except UnidentifiedImageError:
        return "is not an image"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels"
    except MemoryError:
        return "needs more memory than there is"
    except Exception as error:  # Pillow's decoders raise whatever a damaged file makes them raise.
        return f"is broken: {error}"
    return pixels.transpose(2, 0, 1) if color_mode == "rgb" else pixels[None]


def header_of(file: Path) -> tuple[tuple[int, int], str] | None:
    """Height and width, and Pillow's name of the color mode, as the header says; None where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(file, formats=FORMATS) as image:
            return (image.height, image.width), image.mode
    except Exception:  # Pillow's decoders raise whatever a damaged file makes them raise.
        return None
