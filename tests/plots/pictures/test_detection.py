"""Figures of detection: what is drawn where, and told apart without color."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from dlframe import plots

KINDS = (plots.HIT, plots.ALARM, plots.MISS, plots.IGNORED)


def boxes() -> list[plots.Drawn]:
    return [plots.Drawn((10 * i, 5, 10 * i + 8, 20), "car 0.50", mark) for i, mark in enumerate(KINDS)]


def test_kinds_are_told_apart_without_color():
    assert len({mark.line for mark in KINDS}) == len({mark.sign for mark in KINDS}) == len(KINDS)
    figure = plots.detections([np.zeros((3, 32, 48), np.uint8)], [boxes()], "x")
    axes = figure.axes[0]
    shapes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len({shape.get_linestyle() for shape in shapes}) == len(KINDS)
    assert [text.get_text() for text in axes.texts] == ["car 0.50", "? car 0.50", "missed car 0.50", "ignored car 0.50"]
    legend = {line.get_label(): line.get_linestyle() for line in figure.legends[0].get_lines()}
    assert legend == {mark.name: mark.line for mark in KINDS}


def test_names_of_neighbors_do_not_meet():
    """Four boxes at one place in an image of 320 x 240 pixels: the names are in it, and none is written over another."""
    crowd = [plots.Drawn((300, 2 + i, 318, 40 + i), f"pedestrian 0.{i}", mark) for i, mark in enumerate(KINDS)]
    figure = plots.drawn(np.zeros((3, 240, 320), np.uint8), crowd)
    figure.draw_without_rendering()
    extents = [text.get_window_extent() for text in figure.axes[0].texts]
    for i, one in enumerate(extents):
        assert one.x0 >= 0
        assert one.x1 <= figure.bbox.x1
        assert not any(one.shrunk(0.95, 0.8).overlaps(other) for other in extents[:i])


def test_a_box_is_drawn_at_the_edges_of_its_pixels():
    """Its outline lies on the pixels next to the edge of a filled rectangle, in the size of the image."""
    image = np.zeros((3, 240, 320), np.uint8)
    file = io.BytesIO()
    plots.save(plots.drawn(image, [plots.Drawn((80, 60, 240, 180), "", plots.HIT)]), file)
    pixels = np.asarray(Image.open(file).convert("RGB")).astype(int)
    assert pixels.shape[:2] == (240, 320)
    line = (pixels.sum(-1) > 100).nonzero()
    assert [line[1].min(), line[0].min(), line[1].max() + 1, line[0].max() + 1] == pytest.approx([80, 60, 240, 180], abs=3)
    inside = pixels[70:170, 90:230]
    assert inside.max() == 0


def test_precision_over_recall_names_each_class():
    recalls = np.linspace(0, 1, 101)
    figure = plots.precision_recall(recalls, {"car": 1 - recalls, "bus": np.ones(101)})
    assert len({line.get_linestyle() for line in figure.axes[0].get_lines()}) == 2, "told apart without color"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["bus 100.0%", "car 50.0%"]
    many = {f"class {i}": np.full(101, i / 30) for i in range(30)}
    figure = plots.precision_recall(recalls, many)
    lines = figure.axes[0].get_lines()
    assert len(lines) == 20
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20


def test_what_is_found_by_group():
    figure = plots.found_by({"by size": {"0 to 8 pixels": (1, 4), "from 8 pixels": (3, 3)}, "by class": {"car": (4, 7)}})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["by size", "by class"]
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [0.25, 1.0]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["0 to 8 pixels (4)", "from 8 pixels (3)"]
