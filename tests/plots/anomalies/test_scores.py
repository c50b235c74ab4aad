"""Heat maps of photos: where their maps are drawn."""

import numpy as np
import pytest

from dlframe import plots
from dlframe.readers.boxes.frames import place_of


@pytest.mark.parametrize("fit", ["pad", "squash", "crop"])
def test_a_map_is_drawn_on_the_pixels_that_it_is_of(fit):
    """Of a photo with a bright third in its middle, and a map that is high there."""
    photo = np.zeros((3, 20, 60), np.uint8)
    photo[:, :, 20:40] = 255
    high = {"pad": (slice(8, 16), slice(8, 16)), "squash": (slice(0, 24), slice(8, 16)), "crop": (slice(0, 24),) * 2}[fit]
    maps = np.zeros((1, 24, 24))
    maps[0][high] = 1
    place = place_of((20, 60), (24, 24), fit)
    figure = plots.heat_maps([photo], maps, [0.5], ["spot"], [True], (maps[:, None] > 0).astype(np.uint8), [place])
    figure.draw_without_rendering()
    upper, lower = figure.axes
    assert np.array_equal(upper.images[0].get_array(), photo.transpose(1, 2, 0))
    left, right, bottom, top = lower.images[1].get_extent()
    scale_x, scale_y = (right - left) / 24, (bottom - top) / 24
    rows, columns = np.nonzero(maps[0])
    assert left + columns.min() * scale_x == pytest.approx(19.5, abs=0.01)
    assert left + (columns.max() + 1) * scale_x == pytest.approx(39.5, abs=0.01)
    assert top + rows.min() * scale_y == pytest.approx(-0.5, abs=0.01)
    assert top + (rows.max() + 1) * scale_y == pytest.approx(19.5, abs=0.01)
    for axes in (upper, lower):  # the whole photo, in a square
        assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, 59.5), (39.5, -20.5))
