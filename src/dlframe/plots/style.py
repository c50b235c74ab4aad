"""Style of figures, without changes of matplotlib's global state.

The colors of Okabe and Ito (2008) are distinguishable for color-blind readers.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import IO

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

BLUE, ORANGE, GREEN, RED, GRAY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#767676"
SPLITS = {"train": GRAY, "val": BLUE, "test": ORANGE}

# Fonts with Chinese, Japanese and Korean characters, which matplotlib's own font lacks.
EASTERN = (
    "Noto Sans CJK SC",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial Unicode MS",
)
INSTALLED = {font.name for font in fontManager.ttflist}

style = matplotlib.rc_context(
    {
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "figure.constrained_layout.use": True,
        "font.family": ["DejaVu Sans", *(name for name in EASTERN if name in INSTALLED)],
        "font.size": 10,
        "grid.color": "#E6E6E6",
        "image.interpolation": "nearest",
        "legend.frameon": False,
        "text.parse_math": False,  # a class may be called "$5"
    }
)
"""Decorator that applies the style while a figure is drawn."""


@style
def save(figure: Figure, path: str | Path | IO[bytes]) -> None:
    """Write a PNG to a path or an open file; equal figures give equal bytes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # drawn as a box
        figure.savefig(path, format="png", dpi=120, metadata={"Software": None})


def label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def legend_below(axes: Axes, columns: int = 1) -> None:
    """Draw the legend below the axes, where it hides nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.13), ncols=columns, columnspacing=1.2)


def short(name: str, length: int = 20) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def end_of(name: str, length: int = 30) -> str:
    """Return the end of a path or another name that is too long, which tells it from others."""
    return name if len(name) <= length else "…" + name[len(name) - length + 1 :]


def picture(axes: Axes, image: np.ndarray) -> None:
    """Draw (channels, height, width): three channels as RGB, else one as gray."""
    if len(image) == 3:
        axes.imshow(image.transpose(1, 2, 0))
    else:
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)


def whole_picture(axes: Axes, image: np.ndarray) -> None:
    """Draw an image of any shape in the middle of a square without an axis, so that those of a row are aligned."""
    picture(axes, image)
    in_square(axes, image)


def in_square(axes: Axes, image: np.ndarray) -> None:
    """Set the limits to a square around an image (channels, height, width), whatever else was drawn, and hide the axis."""
    for set_limits, side, sign in ((axes.set_xlim, image.shape[2], 1), (axes.set_ylim, image.shape[1], -1)):
        margin = (max(image.shape[1:]) - side) / 2 + 0.5
        set_limits(*(-margin, side - 1 + margin)[::sign])
    axes.axis("off")
