"""Figures of comparisons: what is drawn is what was given, and no label lies on another or outside."""

from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from dlframe import plots
from dlframe.types import Metric

FRACTION = Metric(better="max", low=0.0, high=1.0, unit="fraction")


def boxes(figure) -> list:
    """The boxes of all texts, and of the figure."""
    plots.save(figure, io.BytesIO())
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text for axes in figure.axes for text in axes.texts if text.get_text()] + [figure._supxlabel]
    return [text.get_window_extent(renderer) for text in texts if text] + [figure.bbox]


@pytest.mark.parametrize("count", [2, 5, 9])
def test_mean_ranks_are_legible(count):
    labels = [f"a model with a long name {i}" for i in range(count)]
    ranks = np.linspace(1.3, count - 0.3, count).tolist()
    figure = plots.critical_difference(labels, ranks, [(0, count // 2), (count // 2, count - 1)], test="a test")
    *texts, whole = boxes(figure)
    assert len(texts) == 2 * count + 1
    assert not any(one.overlaps(other) for one, other in combinations(texts, 2))
    assert all(whole.x0 <= text.x0 and text.x1 <= whole.x1 for text in texts)
    bars = [np.asarray(line.get_xdata()) for line in figure.axes[0].lines if line.get_linewidth() == 5]
    assert [len(bar) for bar in bars] == [2, 2]
    assert bars[0][0] < ranks[0] < ranks[count // 2] < bars[0][1]


def test_curves_have_the_mean_and_the_range_of_the_seeds():
    runs = [[(10, 0.5), (20, 0.7), (30, 0.8)], [(10, 0.6), (20, 0.9)]]
    figure = plots.seed_curves({"cnn": runs}, metric="val/accuracy", read=FRACTION)
    (line,) = figure.axes[0].lines
    assert np.asarray(line.get_xdata()).tolist() == [10, 20], "steps that all seeds have"
    assert line.get_ydata() == pytest.approx([0.55, 0.8])
    corners = np.asarray(figure.axes[0].collections[0].get_paths()[0].vertices)
    assert (corners[:, 1].min(), corners[:, 1].max()) == pytest.approx((0.5, 0.9))


def test_examples_have_a_panel_each():
    images = np.random.default_rng(0).integers(0, 255, (7, 1, 8, 8), dtype=np.uint8)
    figure = plots.right_and_wrong(images, [f"{i}\ntrue: a\ncnn: a\nmlp: b" for i in range(7)])
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles == [f"{i}\ntrue: a\ncnn: a\nmlp: b" for i in range(7)]
