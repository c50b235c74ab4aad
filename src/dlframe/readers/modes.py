"""The closed table of color modes: every pixel format becomes 8 bits gray or RGB, or is refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

Background = Literal["white", "black", "mean"]
Fit = Literal["crop", "pad", "squash"]

EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Modes of at most 8 bits per value."""

WIDE = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Gray modes of more than 8 bits per value."""

BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
"""TIFF tags."""

ROWS = 64
"""Rows that are scaled at once, which bounds the memory of float64 values."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """What the user decides about pixels; a run keeps it, so that predictions decode alike.

    Attributes:
        fit: Way to a square: `crop` covers it and cuts the rest, `pad` adds margins, `squash` changes the aspect ratio.
        background: Color behind transparent pixels and of margins; `mean` is the mean of the image's visible pixels.
        value_range: Values of more than 8 bits that become black and white; None for all of unsigned 12 or 16 bits.
    """

    fit: Fit = "crop"
    background: Background = "white"
    value_range: tuple[float, float] | None = None

    @classmethod
    def of(cls, fitted: Mapping[str, Any]) -> Decoding:
        """Return the decoding that a data spec keeps in `fitted`; the default without one, or with an invalid one."""
        match fitted.get("decoding"):
            case {"fit": fit, "background": background, "value_range": value_range} if fit in get_args(
                Fit
            ) and background in get_args(Background):
                match value_range:
                    case None:
                        return cls(fit=fit, background=background)
                    case [int() | float() as low, int() | float() as high] if low < high:
                        return cls(fit=fit, background=background, value_range=(float(low), float(high)))
        return cls()

    def kept(self) -> dict[str, Any]:
        """Return the entry of `fitted` that `of` reads."""
        given = asdict(self)
        return {"decoding": given | {"value_range": self.value_range and list(self.value_range)}}


class Refused(Exception):  # never leaves the readers: it becomes the text of a fault
    """Pixels that cannot be read to one right value; the text names the option that decides."""


def converted(image: Image, color_mode: str, decoding: Decoding) -> tuple[Image, list[str]]:
    """Return an image as RGB ("rgb") or L ("grayscale"), and what was assumed.

    Raises:
        Refused: The mode is not in the table, or its depth has no range.
    """
    notes: list[str] = []
    if image.mode in WIDE:
        image = _scaled(image, decoding, notes)
    elif image.mode not in EIGHT_BITS:
        raise Refused(f"has the color mode {image.mode}, which is not read. Convert it to RGB")
    if image.has_transparency_data:
        image = _composited(image, decoding, notes)
    if image.mode == "LAB":
        image = _from_lab(image)
    return image.convert("RGB" if color_mode == "rgb" else "L"), notes


def ground(image: Image, background: Background) -> tuple[int, ...]:
    """Return the color of a background behind or around an RGB, RGBA or L image."""
    channels = 1 if image.mode == "L" else 3
    if background != "mean":
        return (255 if background == "white" else 0,) * channels
    pixels = np.asarray(image)
    weights = pixels[..., 3].astype(np.float64) if image.mode == "RGBA" else None
    if weights is None or not weights.any():
        return tuple(int(c) for c in np.rint(pixels.reshape(-1, pixels.shape[-1] if channels == 3 else 1).mean(0)))[:channels]
    return tuple(int(c) for c in np.rint(np.average(pixels[..., :3], axis=(0, 1), weights=weights)))


def _composited(image: Image, decoding: Decoding, notes: list[str]) -> Image:
    from PIL import Image as images

    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    alpha = np.asarray(rgba)[..., 3]
    lowest, highest = int(alpha.min()), int(alpha.max())
    if lowest == 255:
        return rgba.convert("RGB")
    canvas = images.new("RGBA", rgba.size, (*ground(rgba, decoding.background), 255))
    flat = images.alpha_composite(canvas, rgba).convert("RGB")
    notes.append(f"transparent, laid on {decoding.background} (data.background)")
    if lowest != highest and (np.ptp(np.asarray(flat), axis=(0, 1)) == 0).all():
        notes.append(f"of one color on {decoding.background}: another data.background shows them")
    return flat


def _scaled(image: Image, decoding: Decoding, notes: list[str]) -> Image:
    """Return 8 bits of a gray image of more, as L, or as LA where one value is transparent."""
    from PIL import Image as images

    tags = getattr(image, "tag_v2", None) or {}
    values = np.asarray(image)
    bits = tags.get(BITS, (16,))[0]
    if image.mode == "I" and bits == 32 and tags.get(SAMPLE_FORMAT, (1,))[0] == 1 and tags:
        values = values.view(np.uint32)  # Pillow reads unsigned values as signed ones
    if image.mode.startswith("I;16"):
        natural = (0, 4095) if bits == 12 else (0, 65535)
    else:
        natural = (0, 65535) if image.mode == "I" and image.format == "PPM" else None
    limits = decoding.value_range or natural
    lowest, highest = (values.min(), values.max()) if values.size else (0, 0)
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise Refused("has values that are not finite")
    if limits is None:
        kind = "float" if image.mode == "F" else f"{'signed ' if tags.get(SAMPLE_FORMAT, (1,))[0] == 2 else ''}{bits}-bit"
        raise Refused(
            f"has {kind} values from {lowest:g} to {highest:g}, a depth without a range. "
            f"Give the values of black and white: data.range=[{lowest:g},{highest:g}]"
        )
    low, high = limits
    if decoding.value_range and (lowest < low or highest > high):
        notes.append(f"with values beyond data.range=[{low:g},{high:g}], clipped")
    elif not decoding.value_range and limits == (0, 65535) and 0 < highest < 4096:
        notes.append("of 16 bits without a value above 4,095, read almost black: data.range=[0,4095] reads 12 bits in 16")
    if limits == (0, 65535):
        gray = (values >> 8).astype(np.uint8)  # as torchvision and Pillow's RGB of 16 bits
    else:
        gray = np.empty(values.shape, np.uint8)
        for row in range(0, len(values), ROWS):
            part = (values[row : row + ROWS].astype(np.float64) - low) * (255 / (high - low))
            gray[row : row + ROWS] = np.clip(np.rint(part), 0, 255)
    if tags.get(PHOTOMETRIC) == 0:
        gray = 255 - gray  # WhiteIsZero, which Pillow inverts up to 8 bits only
    if isinstance(hidden := image.info.get("transparency"), int):
        gray = np.stack([gray, np.where(values == hidden, 0, 255).astype(np.uint8)], axis=-1)
    return images.fromarray(gray)


def _from_lab(image: Image) -> Image:
    try:
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        changed = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    except ImportError:
        raise Refused("is LAB, which requires Pillow with LittleCMS. Convert it to RGB") from None
    assert changed is not None
    return changed
