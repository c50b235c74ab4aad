"""Reader of image files, for data sets and predictions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dlframe.readers.modes import Decoding, Refused, converted, ground

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TIFF", "WEBP")
"""Formats that Pillow may open. EPS is excluded: Pillow runs a program for it."""

TGA = (".tga", ".icb", ".vda", ".vst")
"""Suffixes of TGA, which has no signature: any file could be one."""

GAP = 4
"""Reduced JPEGs are at least so many times as large as the target: of photos, one value in 1,000 then differs by 2 of 255."""

SHOWN = 256
"""Pixels of the longer side of an image in a figure."""

SIGNATURES = (
    (0, b"\x89PNG", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (8, b"WEBP", "WebP"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"jP  \r\n", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
    (128, b"DICM", "DICOM"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\x89HDF", "HDF5"),
)
"""Offset, bytes and name of formats, to name what cannot be read."""

TRANSPOSED = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""EXIF orientation -> `Image.Transpose` that undoes it."""


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


@dataclass(frozen=True)
class Picture:
    """Image that was read.

    Attributes:
        pixels: (channels, height, width) uint8; None for an unreadable file.
        fault: Message about an unreadable file.
        notes: What was assumed, as the end of "3 images ...".
    """

    pixels: np.ndarray | None = None
    fault: str = ""
    notes: tuple[str, ...] = ()


@contextmanager
def pixel_limit(pixels: int) -> Iterator[None]:
    """Let Pillow open images of up to `pixels`, in all threads."""
    from PIL import Image

    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, pixels
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def read_image(
    file: Path, size: tuple[int, int], color_mode: str, root: Path | None = None, decoding: Decoding | None = None
) -> Picture:
    """Decode an image: orientation first, then color, then size.

    JPEGs of at least `GAP` times the target are decoded at a reduced scale.

    Args:
        file: Image file.
        size: Height and width in pixels.
        color_mode: "rgb" for three channels, "grayscale" for one.
        root: Resolved folder that must contain the file after following links; None for any folder.
        decoding: What the user decides about pixels.
    """
    from PIL import Image, UnidentifiedImageError

    decoding = decoding or Decoding()
    try:
        if root and not file.resolve().is_relative_to(root):
            return Picture(fault="is a link out of the folder")
        if not file.is_file():  # pipes block forever
            return Picture(fault="is not a file" if file.exists() else "is a broken link")
        formats = (*FORMATS, "TGA") if file.suffix.lower() in TGA else FORMATS
        # By its path, Pillow would map a TIFF into memory, with sides exchanged where its orientation turns it.
        with file.open("rb") as opened, Image.open(opened, formats=formats) as image:
            if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                return Picture(fault=_too_large())
            _reduce(image, size)
            with BUDGET.taken(max(image.width * image.height, size[0] * size[1])):
                pages = getattr(image, "is_animated", False) and image.format != "MPO"  # whose further images are previews
                upright, notes = converted(oriented(image), color_mode, decoding)
                if pages:
                    notes.append("with several pages or frames, of which the first is read")
                pixels = np.asarray(fitted(upright, size, decoding))
                del image, upright
    except UnidentifiedImageError:
        return Picture(fault=_unidentified(file))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Picture(fault=_too_large())
    except Refused as refusal:
        return Picture(fault=str(refusal))
    except MemoryError:
        return Picture(fault="needs more memory than available")
    except Exception as error:  # A damaged file can raise any error in Pillow's decoders.
        return Picture(fault=f"is broken: {error}")
    return Picture(pixels.transpose(2, 0, 1) if color_mode == "rgb" else pixels[None], notes=tuple(notes))


def _reduce(image: Image, size: tuple[int, int]) -> None:
    """Let a JPEG be decoded at a fraction of its size, where that changes nothing by more than rounding."""
    for scale in (8, 4, 2):
        # A side that the scale does not divide would be moved by part of a pixel.
        if min(image.size) >= GAP * scale * max(size) and not (image.width % scale or image.height % scale):
            image.draft(None, (image.width // scale, image.height // scale))  # type: ignore[arg-type]  # None keeps the mode
            return


def oriented(image: Image) -> Image:
    """Load an image and undo its EXIF orientation; other metadata, which may be damaged, are not read."""
    from PIL.Image import Transpose

    image.load()
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:  # Damaged metadata can raise any error; the pixels are there.
        orientation = None
    method = TRANSPOSED.get(orientation) if isinstance(orientation, int) else None
    if method is None:
        return image
    turned = image.transpose(Transpose(method))
    turned.format = image.format
    if hasattr(image, "tag_v2"):
        turned.tag_v2 = image.tag_v2  # type: ignore[attr-defined]  # of the depth
    return turned


def fitted(image: Image, size: tuple[int, int], decoding: Decoding) -> Image:
    """Return an RGB or L image in `size` (height, width)."""
    from PIL import ImageOps
    from PIL.Image import Resampling

    target = (size[1], size[0])
    match decoding.fit:
        case "crop":
            return ImageOps.fit(image, target, Resampling.BILINEAR)
        case "pad":
            color = ground(image, decoding.background)
            return ImageOps.pad(image, target, Resampling.BILINEAR, color=color if len(color) == 3 else color[0])
    return image.resize(target, Resampling.BILINEAR)


def _too_large() -> str:
    from PIL import Image

    return f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels (data.max_pixels)"


def _unidentified(file: Path) -> str:
    """Say what a file is that Pillow does not recognize."""
    with file.open("rb") as opened:
        start = opened.read(256)
    for offset, mark, name in SIGNATURES:
        if start[offset:].startswith(mark):
            return f"is {name}, damaged or of a kind that is not read. Convert it to PNG or JPEG"
    return "is not an image"


def displayed_size(file: Path, root: Path | None = None) -> tuple[int, int] | None:
    """Read width and height from a header, of the image as displayed: after its EXIF orientation.

    None for an unreadable file, and for a link out of the folder `root`.
    """
    from PIL import Image

    try:
        if (root and not file.resolve().is_relative_to(root)) or not file.is_file():
            return None
        with (
            file.open("rb") as opened,
            Image.open(opened, formats=(*FORMATS, "TGA") if file.suffix.lower() in TGA else FORMATS) as image,
        ):
            turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
            return (image.height, image.width) if turned else (image.width, image.height)
    except Exception:  # A damaged file can raise any error in Pillow's decoders.
        return None


def original_image(
    folder: Path, color_mode: str, decoding: Decoding, name: str, *, max_pixels: int = 89_478_485
) -> np.ndarray | None:
    """Return an image (channels, height, width) whole and in its own shape, for figures.

    Args:
        folder: Folder that must contain the file after following links.
        color_mode: As of `read_image`.
        decoding: What the user decides about pixels, but for the shape.
        name: Path of the file in the folder.
        max_pixels: Largest image that is read; by default Pillow's own limit.

    Returns:
        The image, made smaller to at most `SHOWN` pixels; None if the file cannot be read.
    """
    root, file = folder.resolve(), folder / name
    with pixel_limit(max_pixels):
        if not (size := displayed_size(file, root)):
            return None
        scale = min(1.0, SHOWN / max(size))
        height, width = (max(1, round(side * scale)) for side in reversed(size))
        return read_image(file, (height, width), color_mode, root, replace(decoding, fit="squash")).pixels


def header_of(file: Path) -> tuple[tuple[int, int], str] | None:
    """Read height, width and color mode from a header; None if unreadable."""
    from PIL import Image

    try:
        with Image.open(file, formats=(*FORMATS, "TGA") if file.suffix.lower() in TGA else FORMATS) as image:
            return (image.height, image.width), image.mode
    except Exception:  # A damaged file can raise any error in Pillow's decoders.
        return None
