"""Operations on batches of images, with one strength per image.

Images are floats in [0, 1], (batch, channels, height, width), with one channel or three (RGB); strengths are (batch,).
Inputs stay unchanged; outputs keep the memory format.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
"""RGB to luma (weights of ITU-R BT.601, as in Pillow) and two chroma components (NTSC, 1953)."""

SMOOTH = ((1 / 13, 1 / 13, 1 / 13), (1 / 13, 5 / 13, 1 / 13), (1 / 13, 1 / 13, 1 / 13))
"""Pillow's smoothing filter."""


def uniform(count: int, low: float, high: float, images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw (count,) numbers from `low` to `high`, on the images' device."""
    return torch.rand(count, generator=generator, device=images.device) * (high - low) + low


def fractions(count: int, alpha: float, p: float, images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw fractions (count,) from Beta(alpha, alpha); 1 if not mixed."""
    # torch.distributions.Beta takes no generator; a Dirichlet of two components is equivalent.
    concentration = torch.full((count, 2), alpha, device=images.device, dtype=torch.float32)
    fraction = torch._sample_dirichlet(concentration, generator)[:, 0]
    return torch.where(uniform(count, 0, 1, images, generator) < p, fraction, 1.0)


def each(strength: Tensor, images: Tensor) -> Tensor:
    """Return strengths in the shape and type to multiply images."""
    return strength.to(images.dtype).view(-1, 1, 1, 1)


def select(mask: Tensor, there: Tensor, elsewhere: Tensor) -> Tensor:
    """Select as torch.where, but faster for a broadcast mask."""
    whole = mask.expand_as(elsewhere).contiguous(memory_format=memory_format(elsewhere))
    return torch.where(whole, there, elsewhere)


def recolor(
    images: Tensor,
    *,
    brightness: Tensor | None = None,
    contrast: Tensor | None = None,
    saturation: Tensor | None = None,
    hue: Tensor | None = None,
) -> Tensor:
    """Change colors, in the order of the arguments, by one matrix.

    The result is clamped to [0, 1] once.

    Args:
        images: The batch.
        brightness: Factor; 0 is black.
        contrast: Weight of the image against its mean luma; 0 is a uniform gray.
        saturation: Weight of the colors against their luma; 0 is gray. Only for three channels.
        hue: Rotation of the chroma plane, as a fraction of the circle. Only for three channels.
    """
    count, channels = images.shape[:2]
    one = torch.ones(count, device=images.device)
    factor = one if brightness is None else brightness
    mixing = torch.eye(channels, device=images.device).expand(count, -1, -1)
    weights = torch.full((channels,), 1 / channels, device=images.device)
    if channels == 3:
        to_yiq = torch.tensor(TO_YIQ, device=images.device)
        weights = to_yiq[0]
        if saturation is not None:
            mixing = torch.lerp(weights.expand(3, 3), mixing, saturation.view(-1, 1, 1))
        if hue is not None:
            cosine, sine, zero = torch.cos(2 * math.pi * hue), torch.sin(2 * math.pi * hue), torch.zeros_like(hue)
            turn = torch.stack([one, zero, zero, zero, cosine, -sine, zero, sine, cosine], 1).view(-1, 3, 3)
            mixing = torch.linalg.inv_ex(to_yiq).inverse @ turn @ to_yiq @ mixing
    offset = torch.zeros_like(factor)
    if contrast is not None:
        # Saturation and hue keep gray, so the mean luma is added last.
        offset = (1 - contrast) * factor * (images.mean((2, 3)).float() @ weights)
        factor = factor * contrast
    mixing = (mixing * factor.view(-1, 1, 1)).to(images.dtype)
    changed = torch.baddbmm(offset.view(-1, 1, 1).to(images.dtype), mixing, images.flatten(2)).clamp_(0, 1)
    return changed.view(images.shape).contiguous(memory_format=memory_format(images))


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Change sharpness: 0 smooths, above 1 sharpens; the outermost pixels stay."""
    if min(images.shape[2:]) < 3:
        return images
    kernel = torch.tensor(SMOOTH, device=images.device, dtype=images.dtype).expand(images.shape[1], 1, 3, 3)
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(images, kernel, groups=images.shape[1])
    return torch.lerp(smooth, images, each(factor, images)).clamp_(0, 1)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest `bits` (0 to 8) of each 8-bit value."""
    step = each(torch.exp2(8 - bits.round()), images)
    return (images * 255).round_().div_(step).floor_().mul_(step).div_(255)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert values from the threshold on."""
    return torch.where(images >= each(threshold, images), 1 - images, images)


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel to [0, 1]; constant channels stay."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 0, (images - low) / torch.where(span > 0, span, 1), images).clamp_(0, 1)


def equalize(images: Tensor) -> Tensor:
    """Equalize each channel's histogram of 256 values, as Pillow does."""
    values = (images * 255).round_().long().flatten(2)
    histogram = values.new_zeros(*values.shape[:2], 256).scatter_add_(2, values, torch.ones_like(values))
    last = histogram.gather(2, values.amax(2, keepdim=True))
    step = (values.shape[2] - last) // 255
    before = histogram.cumsum(2) - histogram
    table = ((before + step // 2) // step.clamp(min=1)).clamp_(max=255)
    even = (table.gather(2, values).to(images.dtype) / 255).view_as(images)
    return torch.where(step.unsqueeze(3) > 0, even, images).contiguous(memory_format=memory_format(images))


def warp(
    images: Tensor,
    *,
    degrees: Tensor | None = None,
    translate: tuple[Tensor, Tensor] | None = None,
    scale: Tensor | None = None,
    shear: tuple[Tensor, Tensor] | None = None,
    padding_mode: str = "zeros",
) -> Tensor:
    """Transform images about the center, in one bilinear sampling.

    Args:
        images: The batch.
        degrees: Rotation, counterclockwise.
        translate: Translation to the right and down, as fractions of width and height.
        scale: Scale.
        shear: Tangents of the horizontal and the vertical shear.
        padding_mode: Content outside the image: "zeros", "border" or "reflection".
    """
    count, _, height, width = images.shape
    zero = torch.zeros(count, device=images.device)
    angle = torch.deg2rad(degrees) if degrees is not None else zero
    right, down = translate or (zero, zero)
    shear_x, shear_y = shear or (zero, zero)
    size = scale if scale is not None else zero + 1
    cosine, sine = torch.cos(angle), torch.sin(angle)
    # Rotation after shear, in pixels with y downward. The sampler needs the inverse: the source of each pixel.
    a, b = cosine + sine * shear_y, cosine * shear_x + sine
    c, d = cosine * shear_y - sine, cosine - sine * shear_x
    inverse = torch.stack([d, -b, -c, a], 1).view(-1, 2, 2) / (size * (a * d - b * c)).view(-1, 1, 1)
    pixels = torch.tensor([width / 2, height / 2], device=images.device)
    matrix = inverse * pixels / pixels.unsqueeze(1)
    offset = -matrix @ (2 * torch.stack([right, down], 1)).unsqueeze(2)
    theta = torch.cat([matrix, offset], 2).to(images.dtype)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    warped = F.grid_sample(images, grid, "bilinear", padding_mode, align_corners=False)
    return warped.clamp_(0, 1).contiguous(memory_format=memory_format(images))


def rectangle(images: Tensor, height: Tensor, width: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Return masks (batch, 1, height, width) of a rectangle in the image.

    Args:
        images: The batch.
        height: Height in pixels, rounded and clipped to the image.
        width: Width in pixels, as `height`.
        top: Position among the possible ones, as a fraction in [0, 1).
        left: Position, as `top`.
    """

    def within(size: Tensor, place: Tensor, pixels: int) -> Tensor:
        size = size.round().clamp(max=pixels)
        start = (place * (pixels - size + 1)).floor()
        positions = torch.arange(pixels, device=images.device)
        return (positions >= start.unsqueeze(1)) & (positions < (start + size).unsqueeze(1))

    rows, columns = within(height, top, images.shape[2]), within(width, left, images.shape[3])
    return (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)


def memory_format(images: Tensor) -> torch.memory_format:
    """Return the memory format of images: channels last or contiguous."""
    last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format
