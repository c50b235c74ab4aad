from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from tests.samples import batch_of
from torch import nn

from dlframe.config import load
from dlframe.data.interactions import interactions
from dlframe.jobs.evaluate import evaluate_run
from dlframe.jobs.train import load_data, run
from dlframe.jobs.verify_resume import verify
from dlframe.registry import models, plugins, tasks
from dlframe.runs.exported_model import Predictor
from dlframe.serving.model import Model
from dlframe.tasks.negatives import hashed, popular, uniform
from dlframe.tasks.ranks import ranks_of, top, without
from dlframe.types import ConfigError, DataError, Dataset, Ragged, TrainingError

plugins.discover()


class Given(nn.Module):
    """Scores (users, items) that are known."""

    scores: torch.Tensor

    def __init__(self, scores: np.ndarray):
        super().__init__()
        self.register_buffer("scores", torch.from_numpy(scores).float())

    def forward(self, inputs):
        return self.scores[inputs["user"]]


def ragged(rows: list[list[int]]) -> Ragged:
    return Ragged(
        torch.tensor([item for row in rows for item in row], dtype=torch.int64), torch.tensor([0, *map(len, rows)]).cumsum(0)
    )


def small(tmp_path: Path, *, ratings: bool = False) -> Dataset:
    """12 users with 20 of 30 items each, the test items those of the last fifth."""
    random = np.random.default_rng(0)
    lines = ["user,item,rating,time"] if ratings else ["user,item,time"]
    for user in range(12):
        for time, item in enumerate(random.permutation(30)[:20]):
            lines.append(f"u{user},i{item},{f'{random.integers(0, 6)},' if ratings else ''}{time}")
    (tmp_path / "log.csv").write_text("\n".join(lines), encoding="utf-8")
    return interactions(path=str(tmp_path / "log.csv"))


def scored(task: Any, dataset: Dataset) -> dict[str, Any]:
    with torch.no_grad():
        return task.score(batch_of(dataset.test, dataset.spec))


# --- ranks


@pytest.mark.parametrize("levels", [1000, 4, 1])
def test_ranks_and_lists_are_those_of_a_stable_sort(levels, monkeypatch):
    """Equal scores are in the order of the items; with one level, all scores are equal."""
    monkeypatch.setattr("dlframe.tasks.ranks.ELEMENTS", 100)
    random = np.random.default_rng(0)
    scores = torch.from_numpy(random.integers(0, levels, (40, 30))).float()
    split = [np.split(random.permutation(30), [random.integers(1, 12), 20]) for _ in range(40)]
    seen, targets = (ragged([own[i].tolist() for own in split]) for i in (0, 2))
    free = without(scores, seen)
    ranks, (items, values) = ranks_of(free, targets), top(free, 15)
    expected = []
    for user, (own, _, wanted) in enumerate(split):
        order = [i for i in sorted(range(30), key=lambda i: (-scores[user, i].item(), i)) if i not in own]
        expected += [order.index(item) + 1 for item in wanted]
        assert items[user].tolist()[: len(order)] == order[:15]
        assert values[user].tolist()[: len(order)] == scores[user, order[:15]].tolist()
    assert ranks.tolist() == expected


def test_an_item_that_cannot_be_listed_has_no_rank():
    free = without(torch.tensor([[3.0, 2.0, 1.0]]), ragged([[1]]))
    assert ranks_of(free, ragged([[0, 1, 2]])).tolist() == [1, 4, 2]


# --- metrics


@pytest.mark.parametrize("gain", ["binary", "linear", "exponential"])
def test_metrics_are_those_of_a_loop_over_users(tmp_path, gain):
    dataset = small(tmp_path, ratings=True)
    scores = np.random.default_rng(1).normal(size=(12, 30))
    task = tasks.build({"name": "ranking", "k": 5, "gain": gain}, spec=dataset.spec, model=Given(scores))
    metrics = task.metrics(scored(task, dataset))
    ndcg, recall, mrr, listed = [], [], [], set()
    test = dataset.test
    for user, history, items, ratings in zip(test["user"], test["history"], test["items"], test["rating"], strict=True):
        order = [i for i in np.argsort(-scores[user], kind="stable").tolist() if i not in set(history.tolist())]
        gains = {"binary": np.ones(len(items)), "linear": ratings, "exponential": 2.0**ratings - 1}[gain]
        found = [order.index(item) for item in items]
        discount = 1 / np.log2(np.arange(30) + 2)
        ideal = (np.sort(gains)[::-1][:5] * discount[: min(5, len(gains))]).sum()
        positive = [place for place, g in zip(found, gains, strict=True) if g > 0]
        ndcg.append(sum(g * discount[place] for place, g in zip(found, gains, strict=True) if place < 5) / ideal)
        recall.append(np.mean([place < 5 for place in positive]))
        mrr.append(1 / (1 + min(positive)) if min(positive) < 5 else 0)
        listed |= set(order[:5])
    assert metrics["ndcg"] == pytest.approx(np.mean(ndcg), abs=1e-6)
    assert metrics["recall"] == pytest.approx(np.mean(recall))
    assert metrics["mrr"] == pytest.approx(np.mean(mrr))
    assert metrics["coverage"] == len(listed) / 30


def test_the_ndcg_of_a_slice_has_its_targets_alone_as_relevant(tmp_path):
    """Lists and ranks stay; the best list has those targets first; who has none of them is left out."""
    dataset = small(tmp_path)
    model = Given(np.random.default_rng(1).normal(size=(12, 30)))
    task = tasks.build({"name": "ranking", "k": 5}, spec=dataset.spec, model=model)
    scores, items = scored(task, dataset), dataset.test["items"]
    inside = items.values % 3 == 0
    found = task.ndcg_within(scores, inside)
    assert np.isnan(found).tolist() == [not (own % 3 == 0).any() for own in items]
    for value, ranks, own in zip(found, scores["ranks"], items, strict=True):
        places = [rank for rank, item in zip(ranks.tolist(), own.tolist(), strict=True) if item % 3 == 0]
        ideal = sum(1 / np.log2(place + 2) for place in range(min(5, len(places))))
        if places:
            assert value == pytest.approx(sum(1 / np.log2(rank + 1) for rank in places if rank <= 5) / ideal)
    assert task.ndcg_within(scores, np.ones(len(inside), bool)).tolist() == task.by_user(scores)["ndcg"].tolist()
    task.prepare(dataset.train)
    (axes,) = task.figures(scores, dataset)["by_popularity"].axes
    assert axes.get_ylabel() == "NDCG@5 of these targets alone"
    targets = items.values
    popularity = np.bincount(dataset.train["history"].values, minlength=30)[targets] / 12
    low = popularity < np.quantile(popularity, 0.2)
    users = int(np.isfinite(task.ndcg_within(scores, low)).sum())
    assert axes.get_xticklabels()[0].get_text().endswith(f"\n{users} users")


def test_the_rank_is_among_all_items(tmp_path):
    """One target, ranked 31st of 201 items: no item is sampled."""
    lines = [f"u,i{i},{i}" for i in range(3)] + [f"v,i{i},{i}" for i in range(201)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time", *lines]), encoding="utf-8")
    dataset = interactions(path=str(tmp_path / "log.csv"), split="last")
    scores = np.arange(201)[::-1].astype(float)
    scores[[0, 1]] = 500  # seen
    scores[2] = 200 - 31.5  # better than 31 others, of which one was seen
    task = tasks.build({"name": "ranking", "k": 50}, spec=dataset.spec, model=Given(np.stack([scores, scores])))
    ranks = scored(task, dataset)["ranks"]
    assert ranks[0].tolist() == [1 + sum(scores[i] > scores[2] for i in range(2, 201))]
    assert ranks[0].tolist() == [30]


def test_users_without_relevant_items_are_left_out_and_told(tmp_path):
    dataset = small(tmp_path, ratings=True)
    dataset.test["rating"].values[dataset.test["rating"].offsets[3] : dataset.test["rating"].offsets[4]] = 0
    model = Given(np.random.default_rng(1).normal(size=(12, 30)))
    task = tasks.build({"name": "ranking", "gain": "linear"}, spec=dataset.spec, model=model)
    scores = scored(task, dataset)
    assert np.isnan(task.by_user(scores)["ndcg"]).tolist() == [user == 3 for user in range(12)]
    assert "left out: 1 of 12 users, without a relevant item" in task.notes(scores)
    assert task.forms()["ndcg"]["undefined"] == "skip"


def test_lists_that_end_within_equal_scores_are_told(tmp_path):
    dataset = small(tmp_path)
    task = tasks.build({"name": "ranking", "k": 5}, spec=dataset.spec, model=Given(np.zeros((12, 30))))
    assert any(note.startswith("12 of 12 lists end within equal scores") for note in task.notes(scored(task, dataset)))
    other = tasks.build(
        {"name": "ranking", "k": 5}, spec=dataset.spec, model=Given(np.random.default_rng(1).normal(size=(12, 30)))
    )
    assert not any("equal scores" in note for note in other.notes(scored(other, dataset)))


def test_scores_that_are_no_numbers_are_refused(tmp_path):
    dataset = small(tmp_path)
    scores = np.zeros((12, 30))
    scores[7, 3] = np.nan
    task = tasks.build({"name": "ranking"}, spec=dataset.spec, model=Given(scores))
    with pytest.raises(TrainingError, match=r"^model: scores must not be NaN\. Received: NaN for user 'u7'\."):
        scored(task, dataset)


def test_options_that_do_not_fit_the_data_are_refused(tmp_path):
    dataset = small(tmp_path)
    with pytest.raises(ConfigError, match=r"^task\.k: must be at most 30, the number of items\. Received: 31\."):
        tasks.build({"name": "ranking", "k": 31}, spec=dataset.spec, model=nn.Identity())
    with pytest.raises(ConfigError, match=r"^task\.gain=linear: needs ratings, which data=log does not have\."):
        tasks.build({"name": "ranking", "gain": "linear"}, spec=dataset.spec, model=nn.Identity())


# --- drawn items


def test_uniform_draws_are_of_unseen_items_each_with_equal_probability():
    """A grid of draws gives each unseen item equally often."""
    seen = ragged([[4, 0, 9], [1], [2, 3, 5, 6, 7]])
    grid = (torch.arange(2100, dtype=torch.float64) + 0.5) / 2100
    found = uniform(grid.expand(9, -1), seen, 10)
    for element, own in enumerate([{4, 0, 9}] * 3 + [{1}] + [{2, 3, 5, 6, 7}] * 5):
        items, counts = found[element].unique(return_counts=True)
        assert set(items.tolist()) == set(range(10)) - own
        assert counts.max() - counts.min() <= 1


def test_of_a_user_who_has_seen_all_items_one_is_drawn_all_the_same():
    assert uniform(torch.tensor([[0.0, 0.99]]).expand(3, -1), ragged([[0, 1, 2]]), 3).unique().tolist() == [2]


def test_draws_by_popularity_avoid_seen_items():
    seen, weights = ragged([[0], [1, 2]]), torch.tensor([8.0, 1.0, 1.0, 0.0])
    draws = hashed(0, torch.arange(8)[:, None, None], torch.arange(3)[None, :, None], torch.arange(500))
    fallback = torch.full((3, 500), 3)
    found = popular(draws, fallback, seen, weights)
    assert set(found[0].tolist()) <= {1, 2, 3}
    assert (found[0] == 3).float().mean() < 0.3, "0.8 ** 8 of the draws"
    assert set(found[1:].unique().tolist()) == {0}


def test_a_hash_is_uniform_and_independent_of_the_batch():
    whole = hashed(3, 1, torch.arange(1000)[:, None], torch.arange(100))
    assert torch.equal(whole[500:], hashed(3, 1, torch.arange(500, 1000)[:, None], torch.arange(100)))
    assert not torch.equal(whole, hashed(3, 2, torch.arange(1000)[:, None], torch.arange(100)))
    counts = torch.histc(whole.float(), 20, 0, 1)
    assert ((counts - 5000) ** 2 / 5000).sum() < 50, "chi-squared with 19 degrees of freedom"
    assert abs(torch.corrcoef(torch.stack([whole[:, :-1].flatten(), whole[:, 1:].flatten()]))[0, 1]) < 0.01


@pytest.mark.parametrize("criterion", ["bpr", "pointwise", "softmax"])
def test_the_loss_is_that_of_a_loop(tmp_path, criterion):
    dataset = small(tmp_path)
    torch.manual_seed(0)
    model = models.build({"name": "matrix_factorization", "width": 4, "loss": criterion}, spec=dataset.spec)
    task = tasks.build({"name": "ranking", "negatives": 3}, spec=dataset.spec, model=model)
    batch = batch_of(dataset.train, dataset.spec)
    history = batch["history"]
    drawn = task.draw(batch["user"], history)
    losses = []
    for user, own, others in zip(batch["user"].tolist(), history, drawn.split(history.lengths.tolist()), strict=True):
        for item, negatives in zip(own.tolist(), others.tolist(), strict=True):
            assert not set(negatives) & set(own.tolist())
            score = lambda i, user=user: model.user.weight[user] @ model.item.weight[i]  # noqa: E731
            if criterion == "softmax":
                losses.append(-(score(item) - torch.logsumexp(model.item.weight @ model.user.weight[user], 0)))
            elif criterion == "bpr":
                losses += [-torch.log(torch.sigmoid(score(item) - score(i))) for i in negatives]
            else:
                losses += [-torch.log(torch.sigmoid(score(item))), *(-torch.log(torch.sigmoid(-score(i))) for i in negatives)]
    totals = {"samples": len(batch), **task.counts(batch)}
    assert task.loss(batch, "model", totals).item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


# --- runs


OWN = ["task=recommendation", "tracking=none", "figures=none"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return run(load([*OWN, "model.length=20", "model.width=16", "epochs=3", f"runs={folder}"]))


def test_a_run_keeps_the_metrics_of_each_user(trained):
    assert trained.baseline[0] == "most popular"
    table = pyarrow.parquet.read_table(trained.folder / "predictions.parquet").to_pydict()
    for name in ("ndcg", "precision", "recall", "mrr", "hit"):
        assert np.mean(table[name]) == pytest.approx(trained.metrics[name])
        assert trained.forms[name] == {"form": "mean", "column": name, "undefined": "skip"}
    assert table["precision"][5] == len(set(json.loads(table["target"][5])) & set(table["prediction"][5])) / 10
    assert evaluate_run(trained.folder).metrics == trained.metrics


def test_the_exported_model_lists_items_by_name(trained):
    test = load_data(load(OWN)).test
    outputs = Predictor(trained.folder / "model").predict({"user": test["user"], "history": test["history"]})
    table = pyarrow.parquet.read_table(trained.folder / "predictions.parquet").to_pydict()
    assert [items.tolist() for items in outputs["items"]] == table["prediction"]
    with pytest.raises(DataError, match=r"'history' must be from 0 to 299\. Received: 300"):
        Predictor(trained.folder / "model").predict({"user": np.zeros(1, np.int64), "history": [np.array([300])]})


def test_users_are_served_by_name_and_by_file(trained, tmp_path, capsys):
    model = Model(trained.folder)
    train = load_data(load(OWN)).train
    by_name = model.predict(["user 3", "user 7"])
    outputs = model.predict({"user": train["user"][[3, 7]], "history": train["history"].take(np.array([3, 7]))})
    assert [items.tolist() for items in by_name["items"]] == [items.tolist() for items in outputs["items"]]
    history = train["history"][7].tolist()
    rows = [f"stranger,item {item},{-time}" for time, item in enumerate(history)]  # latest first
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time", *rows[::-1], "stranger,no such item,1"]), encoding="utf-8")
    found = model.predict(str(tmp_path / "log.csv"))
    assert found["input"] == ["stranger"]
    assert not {f"item {item}" for item in history} & set(found["items"][0].tolist())
    assert "1 of" in capsys.readouterr().err
    with pytest.raises(
        DataError, match=r"^predict: 'user 3x' is neither a file nor a user of the training split\. Did you mean 'user"
    ):
        model.predict("user 3x")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["matrix_factorization", "lightgcn", "neumf", "gru4rec", "sasrec", "item_knn"])
def test_a_killed_training_ends_as_one_that_is_left_alone(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert verify([*OWN[:1], f"model={model}", "epochs=4", "batch_size=32", "accumulate_grad_batches=2"], kills=2, seed=0) == 0
