"""Colors, fonts and shared parts of the figures. Nothing here touches matplotlib's global state.

Colors are those of Okabe and Ito (2008), told apart by color-blind readers.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#767676"
SPLITS = {"train": GREY, "val": BLUE, "test": ORANGE}

# matplotlib's own font has no Chinese, Japanese and Korean letters; these systems' fonts do.
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
"""Decorator: the look of every figure, in force only while the figure is made."""


@style
def save(figure: Figure, path: str | Path) -> None:
    """Write a PNG, the same bytes for the same figure."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box is drawn in its place
        figure.savefig(path, format="png", dpi=120, metadata={"Software": None})


def label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def short(name: str, length: int = 20) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def picture(axes: Axes, image: np.ndarray) -> None:
    """Draw (channels, height, width): three channels as RGB, the first of any other number as grey."""
    if len(image) == 3:
        axes.imshow(image.transpose(1, 2, 0))
    else:
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
