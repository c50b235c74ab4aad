import numpy as np

from dlframe import plots


def test_slices_hold_all_samples_and_their_means():
    random = np.random.default_rng(0)
    values, model, baseline = random.integers(0, 50, 400), random.random(400), random.random(400)
    model[7] = np.nan
    both = (model.__getitem__, baseline.__getitem__)
    figure = plots.by_slice(values, *both, metric="NDCG@10", of="items", unit="users", title="films")
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.get_xticklabels()]
    counts = [int(text.split("\n")[1].removesuffix(" users")) for text in texts]
    ends = [[float(end) for end in text.split("\n")[0].split(" to ")] for text in texts]
    assert sum(counts) == 399
    heights = [bar.get_height() for bar in axes.containers[3]]
    for (low, high), count, height in zip(ends, counts, heights, strict=True):
        inside = (values >= low) & (values <= high)
        assert np.isfinite(model[inside]).sum() == count
        assert np.isclose(height, np.nanmean(model[inside]))
    assert axes.get_legend_handles_labels()[1] == ["most popular", "model"]
    figure.draw_without_rendering()


def test_equal_values_are_one_slice():
    both = (np.arange(9.0).__getitem__, np.zeros(9).__getitem__)
    figure = plots.by_slice(np.full(9, 3), *both, metric="recall", of="items", unit="users")
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["3\n9 users"]


def test_recall_is_drawn_over_the_length_of_the_list():
    lengths = np.array([1, 10, 100, 1000])
    figure = plots.recall(lengths, lengths / 1000, lengths / 2000, k=10, title="films")
    (axes,) = figure.axes
    assert np.asarray(axes.lines[1].get_ydata()).tolist() == [0.001, 0.01, 0.1, 1.0]
    figure.draw_without_rendering()
    assert "100" in [text.get_text() for text in axes.get_xticklabels()]
