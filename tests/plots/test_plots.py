"""Figures of real data: what they say, that they fit, and that the same figure gives the same bytes."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix
from sklearn.naive_bayes import GaussianNB

from dlframe import plots


@pytest.fixture(scope="module")
def digits():
    """Images, targets, predictions and confidence of a naive Bayes classifier on the second half of the digits."""
    inputs, targets = load_digits(return_X_y=True)
    probability = GaussianNB(var_smoothing=0.01).fit(inputs[:900], targets[:900]).predict_proba(inputs[900:])
    images = (inputs[900:] * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    return images, targets[900:], probability.argmax(1), probability.max(1)


def texts(figure):
    """Every non-empty text of a figure."""
    return [t.get_text() for t in figure.findobj(lambda artist: hasattr(artist, "get_text")) if t.get_text()]


def size(figure, path):
    plots.save(figure, path)
    with Image.open(path) as image:
        return image.size


def test_learning_curve_has_a_panel_a_metric_and_a_line_a_split():
    curves = {"train/loss": 2.0, "val/loss": 3.0, "val/accuracy": 1.0, "val/f1": 1.0, "train/accuracy": 0.9, "lr": 0.1}
    points = {name: [(22 * i, top / i) for i in (1, 2, 3)] for name, top in curves.items()}
    points["test/accuracy"] = [(33, 0.6), (66, 0.7)]  # of a run that was trained further
    figure = plots.learning_curve(points, metrics=("accuracy",), best=(2, 44))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "accuracy", "learning rate"]
    train, val, mark = figure.axes[0].lines
    assert (train.get_label(), val.get_label(), mark.get_label()) == ("train", "val", "best epoch, 2")
    assert train.get_xydata().tolist() == [[22, 2], [44, 1], [66, 2 / 3]]
    assert figure.axes[0].get_xlabel() == "optimizer step"
    assert [axes.lines[-1].get_xdata()[0] for axes in figure.axes] == [44, 44, 44]
    train, val, test, _ = figure.axes[1].lines
    assert train.get_ydata().tolist() == [0.9, 0.45, 0.3]
    assert test.get_xydata().tolist() == [[44, 0.7]]  # of the weights of the best epoch
    rate, _ = figure.axes[2].lines
    assert rate.get_ydata().tolist() == [0.1, 0.05, 0.1 / 3]
    assert len(plots.learning_curve(points).axes) == 4  # without a choice, with f1 too


@pytest.mark.parametrize(("count", "rows"), [(1, [1]), (3, [3]), (4, [4]), (5, [3, 2]), (7, [4, 3]), (9, [3, 3, 3])])
def test_the_rows_of_learning_curves_are_filled(count, rows):
    figure = plots.learning_curve({f"val/metric {i}": [(1, 0.5), (2, 0.6)] for i in range(count)})
    figure.draw_without_rendering()
    boxes = [axes.get_position() for axes in figure.axes]
    heights = sorted({round(box.y0, 2) for box in boxes}, reverse=True)
    by_row = [[box for box in boxes if round(box.y0, 2) == height] for height in heights]
    assert [len(row) for row in by_row] == rows
    for row in by_row:
        assert min(box.x0 for box in row) < 0.15
        assert max(box.x1 for box in row) > 0.97


def test_learning_curve_of_one_epoch_shows_a_point_and_of_none_an_empty_figure(tmp_path):
    figure = plots.learning_curve({"val/loss": [(22, 0.5)], "val/accuracy": [(22, float("nan"))], "lr": [(22, 0.1)]})
    assert figure.axes[0].lines[0].get_marker() == "o"
    assert size(figure, tmp_path / "one.png") == (1008, 456)
    assert size(plots.learning_curve({}), tmp_path / "none.png") == (768, 456)


def test_learning_curve_shows_the_loss_of_each_network_and_equal_rates_once():
    losses = {"train/loss/generator": 0.7, "train/loss/discriminator": 1.3, "val/accuracy": 0.9}
    rates = {"lr/generator": 0.1, "lr/discriminator": 0.1}
    figure = plots.learning_curve({name: [(22, loss), (44, loss / 2)] for name, loss in (losses | rates).items()})
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["loss/discriminator", "loss/generator", "accuracy", "learning rate"]
    assert len(figure.axes[3].lines) == 1
    other = plots.learning_curve({name: [(1, rate), (2, rate)] for name, rate in {**rates, "lr/generator": 0.2}.items()})
    assert [line.get_label() for line in other.axes[0].lines] == ["generator", "discriminator"]


def test_confusion_of_the_digits_shows_every_count(digits):
    _, targets, predictions, _ = digits
    matrix = confusion_matrix(targets, predictions)
    figure = plots.confusion(matrix, [str(i) for i in range(10)])
    axes = figure.axes[0]
    assert [int(t.get_text()) for t in axes.texts] == matrix[matrix > 0].tolist()
    assert axes.get_title(loc="left") == f"{(targets == predictions).sum()} of 897 right"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


@pytest.mark.parametrize("classes", [2, 100])
def test_confusion_fits_long_and_foreign_names_and_leaves_the_counts_out_where_there_is_no_room(classes, tmp_path):
    names = [f"$^_{i} кошка 猫 of a very long name" for i in range(classes)]
    figure = plots.confusion(np.eye(classes, dtype=int) * 7, names)
    assert len(figure.axes[0].texts) == (2 if classes == 2 else 0)
    assert figure.axes[0].get_xticklabels()[0].get_text() == "$^_0 кошка 猫 of a v…"
    assert len(figure.axes[0].get_xticks()) == min(classes, 50)
    width, _ = size(figure, tmp_path / "confusion.png")
    assert width <= 1668


def test_reliability_of_the_digits_is_as_computed(digits):
    _, targets, predictions, confidence = digits
    figure = plots.reliability(confidence, targets == predictions)
    upper, lower = figure.axes
    counts = [bar.get_height() for bar in lower.patches]
    assert sum(counts) == 897
    assert len(counts) == 15
    last = confidence > 14 / 15
    points = upper.lines[1].get_xydata()
    assert points[-1] == pytest.approx([confidence[last].mean(), (targets == predictions)[last].mean()])
    assert upper.get_title(loc="left").startswith("expected calibration error 0.")


def test_samples_are_the_most_confident_mistakes_and_some_right_ones_with_their_names(digits):
    images, targets, predictions, confidence = digits
    names = [f"second half/of the digits/{i}.png" for i in range(900, 1797)]
    classes = [f"digit {i}" for i in range(10)]
    figure = plots.samples(images.__getitem__, names, targets, predictions, confidence, classes)
    mistakes = np.flatnonzero(targets != predictions)
    mistakes = mistakes[np.argsort(-confidence[mistakes], kind="stable")]
    for axes, i in zip(figure.axes[:18], mistakes, strict=False):
        percent = f"{100 * confidence[i]:.1f} %"
        assert axes.get_title() == f"predicted digit {predictions[i]}\n{percent}, true digit {targets[i]}"
        assert axes.texts[0].get_text() == f"…d half/of the digits/{i + 900}.png"
        assert np.array_equal(axes.images[0].get_array(), images[i, 0])
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 24
    assert all(axes.get_title().count(axes.get_title().split(" ")[-1]) == 2 for axes in shown[18:])
    said = f"{len(mistakes)} mistakes in 897 tested, 18 of them here, the most confident first; 6 right ones last"
    assert said in texts(figure)


def test_samples_without_a_mistake_or_without_a_right_one(digits):
    images, targets, _, confidence = digits
    names = [str(i) for i in range(10)]
    right = plots.samples(images.__getitem__, range(5), targets[:5], targets[:5], confidence[:5], names)
    assert sum(bool(axes.get_title()) for axes in right.axes) == 5
    wrong = plots.samples(images.__getitem__, [7], targets[:1], (targets[:1] + 1) % 10, confidence[:1], names)
    assert [axes.texts[0].get_text() for axes in wrong.axes if axes.get_title()] == ["sample 7"]
    assert "1 mistake in 1 tested, the most confident first; 0 right ones last" in texts(wrong)


def test_pictures_of_any_shape_are_whole_and_in_equal_squares(digits):
    wide = np.zeros((3, 40, 100), np.uint8)
    targets = np.array([1, 0])
    figure = plots.samples(lambda i: (wide, digits[0][0])[i], ["wide.jpg", "digit.png"], targets, 1 - targets, [0.9, 0.8], "ab")
    for axes, width, height in zip(figure.axes, (100, 8), (40, 8), strict=False):
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert left <= -0.5 < width - 0.5 <= right
        assert top <= -0.5 < height - 0.5 <= bottom
        assert right - left == bottom - top == max(width, height)


@pytest.mark.parametrize(("channels", "shape"), [(1, (26, 26)), (2, (26, 26)), (3, (26, 26, 3))])
def test_grid_lays_images_row_by_row_on_white(digits, channels, shape):
    images = np.repeat(digits[0][:8], channels, axis=1)
    (axes,) = plots.grid(images).axes
    field = np.asarray(axes.images[0].get_array()).reshape(*shape[:2], -1)[..., 0]
    assert axes.images[0].get_array().shape == shape
    assert np.array_equal(field[:8, 9:17], images[1, 0])
    assert (field[18:, 18:] == 255).all()
    assert (field[8] == 255).all()


def test_grid_takes_floats(digits, tmp_path):
    assert size(plots.grid(digits[0][:4].astype(np.float32) / 255), tmp_path / "grid.png") == (720, 720)


def test_forecast_shows_the_last_step_ahead_and_each_error_beside_that_of_the_baseline():
    """The mean grey of the digits in their order, as a series."""
    values = load_digits().data.mean(1)
    target = np.stack([values[1:-1], values[2:]], 1)
    naive = np.stack([values[:-2]] * 2, 1)
    interval = (target - 1, np.where(np.arange(len(target)) % 4 == 0, -1, 17)[:, None] + np.zeros_like(target))
    figure = plots.forecast(target, target + 0.5, naive, interval=interval, level="80 %", title="ink", unit="mean grey")
    upper, near, lower = figure.axes
    assert upper.get_title(loc="left") == "ink, 2 steps ahead"
    assert upper.get_ylabel() == "mean grey"
    assert upper.lines[0].get_ydata().tolist() == target[:, 1].tolist()
    last, whole = (np.sqrt(np.mean((naive[:, steps] - target[:, steps]) ** 2)) for steps in (1, slice(None)))
    assert [line.get_label() for line in upper.lines] == [
        "truth",
        f"baseline, RMSE of all steps {whole:.4g}, of this one {last:.4g}",
        "forecast, RMSE of all steps 0.5, of this one 0.5",
    ]
    assert near.lines[0].get_xdata().tolist() == list(range(len(target) - 60, len(target)))
    assert upper.collections[0].get_label() == "80 % interval, holds 75 %"
    difference = 0.5 - np.abs(naive - target)[:, 1]
    for area, part in zip(lower.collections, (np.minimum(difference, 0), np.maximum(difference, 0)), strict=True):
        drawn = area.get_paths()[0].vertices[:, 1]
        assert (drawn.min(), drawn.max()) == pytest.approx((part.min(), part.max()))
        assert np.isin(part.round(9), drawn.round(9)).all()
    closer, farther = (round(100 * part.mean()) for part in (difference < 0, difference > 0))
    said = f"the forecast is closer to the truth in {closer} % of 1,795 samples, the baseline in {farther} %"
    assert lower.get_title(loc="left") == said


def test_the_error_of_each_step():
    target = np.arange(12.0).reshape(4, 3)
    figure = plots.horizon(target, target + np.arange(3), target - 1, interval=(target - 2, target + 2), level="80 %")
    last, errors = figure.axes
    assert last.lines[0].get_ydata().tolist() == [9, 10, 11]
    assert len(plots.horizon(target, target, target, last_one=False).axes) == 1
    assert errors.lines[1].get_ydata().tolist() == [0, 1, 2]
    assert errors.lines[0].get_ydata().tolist() == [1, 1, 1]


@pytest.mark.parametrize("costs", [None, (20.0, 1.0)])
@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_the_legend_of_thresholds_hides_no_line(costs, rate):
    random = np.random.default_rng(0)
    positive = random.random(500) < rate
    scores = random.random(500) + positive
    figures = [
        plots.operating_points(scores, positive, 1.0, name="fraud", costs=costs),
        plots.threshold_curve(scores, positive, 1.0),
    ]
    for figure in figures:
        figure.draw_without_rendering()
        for axes in figure.axes:
            assert axes.get_legend().get_window_extent().y1 < axes.bbox.y0


def by_series(errors: dict[str, tuple[float, float]], samples: int = 5, steps: int = 2):
    """A figure of series with given errors of forecast and baseline at every step."""
    names = np.repeat([*errors], samples)
    own, naive = np.repeat(np.array([*errors.values()]), samples, 0).T[..., None]
    target = np.arange(len(names) * steps, dtype=float).reshape(-1, steps)
    # Samples of the series in turns, as of a data set in the order of time.
    order = np.arange(len(names)).reshape(len(errors), -1).T.ravel()
    interval = (target[order] - 9, target[order] + 9)
    return target, plots.forecast_by_series(
        names[order],
        target[order],
        (target + own)[order],
        (target + naive)[order],
        interval=interval,
        level="80 %",
        title="sold",
    )


def test_each_series_has_a_forecast_of_its_own(tmp_path):
    target, figure = by_series({"b": (2, 1), "a": (1, 4)})
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "a, RMSE 1, of the baseline 4",
        "its last forecast",
        "b, RMSE 2, of the baseline 1",
        "its last forecast",
        "better than the baseline in 1 of 2 series",
    ]
    first, last, second = figure.axes[:3]
    assert first.lines[0].get_ydata().tolist() == target[5:, 1].tolist()
    assert first.lines[2].get_ydata().tolist() == (target[5:, 1] + 1).tolist()
    assert last.lines[0].get_ydata().tolist() == target[-1].tolist()
    assert second.lines[0].get_ydata().tolist() == target[:5, 1].tolist()
    assert len(first.collections) == 1
    assert figure.axes[-1].lines[1].get_ydata().tolist() == [0.25, 2]
    assert size(figure, tmp_path / "forecast.png")[0] == 1152


def test_of_many_series_the_best_the_median_and_the_worst_are_drawn():
    """By errors relative to those of the baseline; a series that the baseline forecasts without an error has no such."""
    errors = {f"shop {i}": (10.0**i * (i + 1), 10.0**i * 4) for i in range(7)}
    _, figure = by_series({**errors, "constant": (0, 0), "nearly": (1, 0)}, steps=1)
    assert [axes.get_title(loc="left").partition(",")[0] for axes in figure.axes[:-1]] == [
        "best: shop 0",
        "median: shop 3",
        "worst: shop 6",
    ]
    assert figure.get_suptitle() == "sold, 3 of 9 series by RMSE relative to that of the baseline"
    told = "better than the baseline in 3 of 9 series; 2 without this ratio are not shown"
    assert figure.axes[-1].get_title(loc="left") == told
    _, figure = by_series({str(i): (0, 0) for i in range(5)})
    assert len(figure.axes) == 9


def test_forecast_takes_one_value_a_sample(tmp_path):
    figure = plots.forecast([1.0, 2.0, 4.0], [1.0, 2.0, 3.0], [1.0, 1.0, 2.0])
    assert figure.axes[0].get_title(loc="left") == "one step ahead"
    assert figure.axes[0].lines[2].get_label() == "forecast, RMSE 0.5774"
    assert size(figure, tmp_path / "forecast.png") == (1080, 1008)


def test_the_same_figure_gives_the_same_bytes(digits, tmp_path):
    for name in ("first.png", "second.png"):
        plots.save(plots.reliability(digits[3], digits[1] == digits[2]), tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    with Image.open(tmp_path / "first.png") as image:
        assert set(image.info) == {"dpi"}


def test_no_global_state_of_matplotlib_is_touched():
    code = """
import sys, matplotlib
before = matplotlib.rcParams.copy()
from dlframe import plots
plots.confusion([[1, 0], [0, 1]], ["a", "b"])
assert matplotlib.rcParams.copy() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
