"""Figures of a study: the values that they draw, and what they say of those that they leave out."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from dlframe import plots
from dlframe.plots import Dimension
from dlframe.types import Objective, TrialRecord

ACCURACY = Objective(metric="val/accuracy", better="max", unit="fraction")
LOSS = Objective(metric="val/loss", better="min")
SIZE = Objective(metric="parameters", better="min")
DIMENSIONS = (
    Dimension(key="model", values=("cnn", "vit")),
    Dimension(key="optimizer.lr", log=True),
    Dimension(key="model.patch", values=("8", "4", "16")),
)


def study(count: int, objective: Objective = ACCURACY, *, seed: int = 0) -> list[TrialRecord]:
    """Trials of a quadratic in the logarithm of the learning rate; every seventh is pruned, every eleventh has failed."""
    random = np.random.default_rng(seed)
    records = []
    for number in range(count):
        lr, model = float(10 ** random.uniform(-4, -1)), str(random.choice(["cnn", "vit"]))
        options = {"model": model, "optimizer.lr": repr(lr)}
        if model == "vit":
            options["model.patch"] = str(random.choice([4, 8, 16]))
        good = 0.95 - 0.1 * (math.log10(lr) + 2.5) ** 2 + random.normal(0, 0.01)
        value = float(good if objective.better == "max" else 1.2 - good)
        reported = tuple((epoch, value * epoch / 5) for epoch in range(1, 6))
        state = "failed" if number % 11 == 10 else "pruned" if number % 7 == 6 else "complete"
        values = (value, float(random.integers(1e3, 1e6))) if state == "complete" else ()
        done = 5 if state == "complete" else 2
        records.append(TrialRecord(number=number, state=state, options=options, values=values, reported=reported[:done]))
    return records


def trial(number: int, *values: float, state: Any = "complete", options: Any = None, reported: Any = ()) -> TrialRecord:
    return TrialRecord(number=number, state=state, options=options or {}, values=values, reported=reported)


def texts(figure: Figure) -> str:
    """All texts of a figure."""
    return "\n".join(t.get_text() for t in figure.findobj(lambda artist: hasattr(artist, "get_text")) if t.get_text())


def image(figure: Figure) -> Image.Image:
    """The figure, drawn."""
    file = io.BytesIO()
    plots.save(figure, file)
    return Image.open(file)


def offsets(figure: Figure, name: str, axes: int = 0) -> np.ndarray:
    """The points of a scatter by the beginning of its name."""
    (found,) = [c for c in figure.axes[axes].collections if str(c.get_label()).startswith(name)]
    return np.asarray(found.get_offsets())


# --- history


@pytest.mark.parametrize("objective", [ACCURACY, LOSS])
@pytest.mark.parametrize("count", [3, 1000])
def test_the_history_shows_each_value_and_the_running_best(count: int, objective: Objective) -> None:
    records = study(count, objective)
    figure = plots.optimization_history(records[::-1], objective)
    complete = [r for r in records if r.state == "complete"]
    values = np.array([r.values[0] for r in complete])
    best = (np.maximum if objective.better == "max" else np.minimum).accumulate(values)
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "best so far"]
    assert line.get_xdata()[:-1].tolist() == [r.number for r in complete]
    assert line.get_ydata()[:-1].tolist() == best.tolist()
    assert line.get_drawstyle() == "steps-post"
    assert f"best {objective.read.text(best[-1])}, trial {complete[[*values].index(best[-1])].number}" in texts(figure)
    points = offsets(figure, f"{len(complete):,} complete")
    hidden = sum(len(c.get_offsets()) for c in figure.axes[0].collections if "worse than" in str(c.get_label()))
    pruned = len(offsets(figure, f"{count // 7 - count // 77:,} pruned")) if count > 7 else 0
    assert len(points) + pruned + hidden == sum(r.state != "failed" for r in records)
    assert {tuple(point) for point in points} <= {(r.number, r.values[0]) for r in complete}
    assert image(figure).size == (960, 528)


def test_the_history_shows_pruned_trials_where_they_were_and_failed_ones_at_the_edge() -> None:
    records = [
        trial(0, 0.7),
        trial(1, state="pruned", reported=((1, 0.4), (2, 0.5), (3, math.nan))),
        trial(2, state="failed", reported=((1, 0.9),)),
        trial(3, math.nan),
        trial(4, state="running", reported=((1, 0.99),)),
        trial(5, state="pruned"),
    ]
    figure = plots.optimization_history(records, ACCURACY)
    assert offsets(figure, "1 pruned").tolist() == [[1, 0.5]]
    assert offsets(figure, "1 failed").tolist() == [[2, 0]]
    assert offsets(figure, "1 complete").tolist() == [[0, 0.7]]
    said = texts(figure)
    assert "Not shown: 1 with a value that is not finite, 1 running." in said
    assert "1 pruned trial had reported no finite value." in said


def test_far_values_do_not_press_the_others_into_a_line() -> None:
    values = [*np.linspace(0.2, 0.4, 20), 1e6, 1e12]
    figure = plots.optimization_history([trial(i, v) for i, v in enumerate(values)], LOSS)
    assert figure.axes[0].get_ylim()[1] < 0.5
    assert offsets(figure, "2 worse than 0.4").tolist() == [[20, 1], [21, 1]]


@pytest.mark.parametrize("values", [[], [0.0], [-1e308, 1e308], [math.inf], [5e-324, 0.0], [1.0] * 50])
@pytest.mark.parametrize("objective", [ACCURACY, LOSS])
def test_values_at_the_limits_of_floats_are_drawn(values: list[float], objective: Objective) -> None:
    records = [trial(i, v, v, options={"a": repr(v)}, reported=((1, v),)) for i, v in enumerate(values)]
    dimensions = [Dimension(key="a", log=True)]
    image(plots.optimization_history(records, objective))
    image(plots.intermediate_values(records, objective))
    image(plots.pareto_front(records, (objective, SIZE)))
    image(plots.parallel_coordinates(records, dimensions, objective))
    image(plots.slices(records, dimensions, objective))


# --- learning curves


def test_learning_curves_are_those_reported_and_their_ends_are_marked() -> None:
    records = study(22)
    figure = plots.intermediate_values(records, ACCURACY)
    curves = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)]
    drawn = {str(c.get_label()): [s.tolist() for s in c.get_segments()] for c in curves}
    expected: dict[str, list] = {}
    for record in records:
        expected.setdefault(record.state, []).append([[*map(float, pair)] for pair in record.reported])
    assert drawn == {f"{len(expected[state])} {state}": expected[state] for state in expected}
    crosses = [line.get_xydata().tolist() for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert crosses == [[curve[-1] for curve in expected[state]] for state in ("pruned", "failed")]
    best = max((r for r in records if r.values), key=lambda r: r.values[0])
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == f"trial {best.number}"]
    assert line.get_xydata().tolist() == [[*pair] for pair in best.reported]


def test_of_many_learning_curves_some_are_drawn_and_the_best_is_among_them() -> None:
    records = study(1000)
    figure = plots.intermediate_values(records, ACCURACY)
    drawn = sum(len(c.get_segments()) for c in figure.axes[0].collections if isinstance(c, LineCollection))
    assert drawn in (200, 201)
    assert f"{drawn} of 1,000 trials drawn." in texts(figure)
    best = max((r for r in records if r.values), key=lambda r: r.values[0])
    assert f"trial {best.number}" in [line.get_label() for line in figure.axes[0].lines]


def test_gaps_of_learning_curves_are_told() -> None:
    records = [trial(0, 0.5, reported=((1, 0.1), (2, math.nan), (3, math.inf), (4, 0.5))), trial(1, state="failed")]
    figure = plots.intermediate_values(records, ACCURACY)
    curve = figure.axes[0].lines[-1].get_ydata()
    assert np.isnan(curve).tolist() == [False, True, True, False]
    assert "1 trial reported no finite value. 2 values not finite, left out." in texts(figure)


# --- Pareto front


@pytest.mark.parametrize("first", [ACCURACY, LOSS])
def test_the_front_is_the_one_found_by_comparing_all(first: Objective) -> None:
    records = study(300, first)
    figure = plots.pareto_front(records, (first, SIZE))
    complete = [r for r in records if r.values]

    def dominated(a: TrialRecord) -> bool:
        costs = [(-first.sign * r.values[0], r.values[1]) for r in (a, *complete)]
        return any(c[0] <= costs[0][0] and c[1] <= costs[0][1] and c != costs[0] for c in costs[1:])

    front = sorted(r.values for r in complete if not dominated(r))
    (line,) = figure.axes[0].lines
    assert [tuple(point) for point in line.get_xydata()] == front
    # At any first value, the staircase has the second one that is reached at least as well.
    assert line.get_drawstyle() == ("steps-pre" if first.better == "max" else "steps-post")
    assert len(offsets(figure, f"{len(complete) - len(front)} dominated")) == len(complete) - len(front)
    assert "Without values: " in texts(figure)
    numbers = {r.number for r in complete if not dominated(r)}
    assert {int(t.get_text()) for t in figure.axes[0].texts} <= numbers


def test_what_has_no_two_finite_values_is_not_on_the_front() -> None:
    records = [trial(0, 0.5, 10.0), trial(1, math.nan, 1.0), trial(2, 0.9), trial(3, state="running")]
    figure = plots.pareto_front(records, (ACCURACY, SIZE))
    assert offsets(figure, "1 on the front").tolist() == [[0.5, 10]]
    assert "Not shown: 2 with a value that is not finite." in texts(figure)


# --- options


def lines_of(figure: Figure) -> list[np.ndarray]:
    return [segment for c in figure.axes[0].collections if isinstance(c, LineCollection) for segment in c.get_segments()]


def test_parallel_coordinates_lead_through_the_options_to_the_value() -> None:
    records = [
        trial(0, 0.5, options={"model": "cnn", "optimizer.lr": "1e-4"}),
        trial(1, 0.7, options={"model": "vit", "optimizer.lr": "1e-2", "model.patch": "16"}),
        trial(2, 0.9, options={"model": "vit", "optimizer.lr": "1e-3", "model.patch": "8"}),
        trial(3, state="pruned", options={"model": "cnn", "optimizer.lr": "1e-2"}),
        trial(4, state="failed", options={"model": "cnn", "optimizer.lr": "1e-4"}),
        trial(5, math.nan, options={"model": "cnn", "optimizer.lr": "1e-4"}),
    ]
    figure = plots.parallel_coordinates(records, DIMENSIONS, ACCURACY)
    below, lower = -0.13, -0.23
    expected = [
        [0, 1, below, below],
        [0, 0, below, lower],
        [0, 0, below, 0],
        [1, 1, 1, 0.5],  # patches in the order of numbers
        [1, 0.5, 0.5, 1],
    ]
    band = 0.01  # lines of one value are side by side
    assert [line[:, 1].tolist() for line in lines_of(figure)] == [pytest.approx(line, abs=band) for line in expected]
    said = texts(figure)
    for text in ("cnn", "vit", "0.001", "16", "not used", "pruned", "failed", "val/accuracy\n(higher is better)", "88 %"):
        assert text in said
    assert said.count("not used") == 1
    assert "Not shown: 1 with a value that is not finite." in said


def test_of_many_lines_the_best_are_drawn() -> None:
    records = [trial(i, float(i), options={"a": str(i % 7)}) for i in range(3000)]
    figure = plots.parallel_coordinates(records, [Dimension(key="a")], ACCURACY)
    heights = [line[-1, 1] for line in lines_of(figure)]
    assert len(heights) == 1000
    assert heights[-100:] == pytest.approx(np.arange(2900, 3000) / 2999)
    assert "1,000 of 3,000 complete trials drawn." in texts(figure)


def test_the_best_line_is_on_top_in_either_direction() -> None:
    for objective, best in ((ACCURACY, 1.0), (LOSS, 0.0)):
        figure = plots.parallel_coordinates(study(50, objective), DIMENSIONS, objective)
        assert lines_of(figure)[-1][-1, 1] == best
        lines = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)][-1]
        (strip,) = figure.axes[0].images
        image(figure)
        colors = np.asarray(strip.cmap(strip.norm(strip.get_array())))[:, 0, :3]  # upwards
        drawn = lines.get_colors()[:, :3]
        assert colors[-1 if best else 0] == pytest.approx(drawn[-1])
        assert colors[0 if best else -1] == pytest.approx(drawn[0])


def test_an_option_without_choices_may_have_any_text() -> None:
    records = [trial(i, float(i), options={"a": text}) for i, text in enumerate(["1", "null", "nan", "$x_{", "猫\n\x1b[31m"])]
    figure = plots.parallel_coordinates(records, [Dimension(key="a", log=True)], LOSS)
    assert {"1", "null", "nan", "$x_{", "猫\\n\\x1b[31m"} <= {*texts(figure).splitlines()}
    image(figure)
    image(plots.slices(records, [Dimension(key="a", log=True)], LOSS))


def test_importance_is_ranked_and_what_is_small_is_put_together() -> None:
    shares = {f"option_{i}": 2.0**-i for i in range(1, 31)} | {"unknown": math.nan}
    figure = plots.importance(dict(reversed(shares.items())))
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths[:20] == [2.0**-i for i in range(1, 21)]
    assert widths[20] == pytest.approx(sum(2.0**-i for i in range(21, 31)))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[0] == "option_1"
    assert labels[20] == "10 others together"
    assert "Not shown: 1 option of unknown importance." in texts(figure)
    assert "importance unknown" in texts(plots.importance({}))
    image(figure)


def test_slices_have_a_panel_an_option_and_a_point_a_trial() -> None:
    records = study(100)
    figure = plots.slices(records, DIMENSIONS, ACCURACY)
    complete = [r for r in records if r.values]
    model, lr, patch = figure.axes[:3]
    assert [axes.get_xlabel() for axes in (model, lr, patch)] == [d.key for d in DIMENSIONS]
    assert lr.get_xscale() == "log"
    drawn = [np.concatenate([np.asarray(c.get_offsets()) for c in axes.collections[:2]]) for axes in (model, lr, patch)]
    assert [len(points) for points in drawn] == [
        len(complete),
        len(complete),
        sum("model.patch" in r.options for r in complete),
    ]
    rates = {float(r.options["optimizer.lr"]) for r in complete}
    assert {point[0] for point in drawn[1]} == rates
    names = [["cnn", "vit"].index(r.options["model"]) for r in complete]
    assert np.sort(np.round(drawn[0][:, 0])).tolist() == sorted(names)
    assert [label.get_text() for label in patch.get_xticklabels()] == ["4", "8", "16"]
    assert f"not used in {sum('model.patch' not in r.options for r in complete)} trials" in texts(figure)


def test_options_with_long_names_and_many_of_them_fit() -> None:
    keys = [f"augmentation.a_policy_with_a_long_name.option_number_{i}.of_a_group" for i in range(30)]
    records = [trial(i, float(i), options={key: "a value that is long" * 5 + str(i) for key in keys}) for i in range(5)]
    dimensions = [Dimension(key=key) for key in keys]
    figure = plots.slices(records, dimensions, LOSS)
    assert "16 of 30 options shown." in texts(figure)
    assert image(figure).width < 2000
    lines = plots.parallel_coordinates(records, dimensions, LOSS)
    assert "14 of 30 options shown." in texts(lines)
    assert image(lines).width < 2800


def test_a_study_without_trials_has_empty_figures() -> None:
    for figure in (
        plots.optimization_history([], ACCURACY),
        plots.parallel_coordinates([], DIMENSIONS, ACCURACY),
        plots.slices([], DIMENSIONS, ACCURACY),
        plots.slices([], [], ACCURACY),
        plots.pareto_front([], (ACCURACY, SIZE)),
    ):
        assert "no complete trial yet" in texts(figure)
        image(figure)
    assert "no value reported yet" in texts(plots.intermediate_values([], ACCURACY))
