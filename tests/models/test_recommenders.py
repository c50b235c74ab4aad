"""Models that rank items."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from tests.data.test_interactions import ml100k_or_skip
from tests.samples import batch_of
from torch import Tensor

from dlframe.data.interactions import interactions
from dlframe.models.sequences import Sequential
from dlframe.registry import models, plugins, tasks
from dlframe.statistics.metrics.ranking import at_k
from dlframe.tasks.ranks import ranks_of, without
from dlframe.types import Dataset, Ragged, Split

plugins.discover()


def build(dataset: Dataset, name: str, **options):
    torch.manual_seed(0)
    return models.build({"name": name, **options}, spec=dataset.spec).eval()


def inputs(dataset: Dataset, split: Split) -> dict:
    batch = batch_of(split, dataset.spec)
    return {"user": batch["user"], "history": batch["history"]}


def cosine(dataset: Dataset, neighbors: int, of: str) -> np.ndarray:
    """Item-based scores by NumPy alone."""
    train = dataset.train
    seen = np.zeros((len(dataset.spec.inputs["user"].names), len(dataset.spec.inputs["history"].names)))
    for user, items in zip(train["user"], train["history"], strict=True):
        seen[user, items] = 1
    norm = np.linalg.norm(seen, axis=0)
    similarity = seen.T @ seen / np.maximum(norm[:, None] * norm, 1e-12)
    np.fill_diagonal(similarity, 0)
    axis = 1 if of == "history" else 0
    worst = -np.sort(-similarity, axis=axis).take([neighbors - 1], axis=axis)
    return seen @ np.where(similarity >= worst, similarity, 0)


@pytest.mark.parametrize(("of", "ndcg", "precision"), [("target", 0.1724, 0.1452), ("history", 0.1808, None)])
def test_neighborhoods_are_those_of_an_independent_program(of, ndcg, precision):
    """On MovieLens-100K, from the training items alone; the figures are RecBole 1.2.1's and a NumPy program's."""
    dataset = ml100k_or_skip()
    model = build(dataset, "item_knn", of=of)
    model.partial_fit(inputs(dataset, dataset.train))
    model.begin_scoring()
    expected = cosine(dataset, 100, of)
    scores = model(inputs(dataset, dataset.train))
    users = batch_of(dataset.train, dataset.spec)["user"].numpy()
    # Items at the 100th place with equal similarity are chosen freely.
    assert np.mean(np.abs(scores.numpy() - expected[users]) > 1e-4) < 0.02
    batch = batch_of(dataset.test, dataset.spec)
    order = np.argsort(users)
    free = without(scores[order][batch["user"]], batch["history"])
    metrics = at_k(ranks_of(free, batch["items"]).numpy(), batch["items"].offsets.numpy(), 10)
    assert metrics["ndcg"].mean() == pytest.approx(ndcg, abs=6e-4)
    if precision:
        assert metrics["precision"].mean() == pytest.approx(precision, abs=6e-4)


@pytest.mark.parametrize("hidden", [(), (8,), (8, 6)])
def test_neumf_scores_all_items_as_pairs(hidden, monkeypatch):
    dataset = interactions()
    monkeypatch.setattr("dlframe.models.neumf.ELEMENTS", 5000)
    model = build(dataset, "neumf", width=4, hidden=hidden)
    given = inputs(dataset, dataset.test.take(np.arange(7)))
    states = model.last_states(given)
    every = model.match(states)
    assert torch.allclose(every, model.match(states, torch.arange(300).expand(7, -1)), atol=1e-6)
    user, item = model.user.weight[given["user"][2]], model.item.weight[11]
    x, parts = torch.cat([user[4:], item[4:]]), [user[:4] * item[:4]]
    for layer in model.layers:
        x = layer(x).relu()
    assert every[2, 11].item() == pytest.approx(model.head(torch.cat(parts + [x] * bool(hidden))).item(), abs=1e-6)


@pytest.mark.parametrize("name", ["gru4rec", "sasrec", "two_tower"])
def test_a_state_before_an_item_is_that_after_the_items_before_it(name):
    dataset = interactions()
    model = build(dataset, name, length=7 if name == "two_tower" else 60)
    given = inputs(dataset, dataset.train.take(np.arange(5)))
    states = model.states(given).split(given["history"].lengths.tolist())
    for user, items, own in zip(given["user"], given["history"], states, strict=True):
        for place in (1, 2, len(items) - 1):
            prefix = Ragged(items[:place], torch.tensor([0, place]))
            after = model.last_states({"user": user[None], "history": prefix})[0]
            assert torch.allclose(own[place], after, atol=1e-5)


class Windows(Sequential):
    """Returns what is read up to each place: the first item and the number of items."""

    def encode(self, items: Tensor) -> Tensor:
        number = torch.arange(1, items.shape[1] + 1).expand(len(items), -1)
        return torch.stack([items[:, :1].expand_as(items), number, items], -1).float()


def test_long_histories_are_cut_into_overlapping_windows():
    """Each item is predicted once, from a window of at most 6 items, and of at least 3 where there are as many before it."""
    dataset = interactions()
    model = Windows(dataset.spec, width=2, length=6, loss="softmax")
    lengths = [1, 5, 6, 7, 9, 10, 23]
    values = torch.cat([torch.arange(n) for n in lengths])  # item i is in place i
    history = Ragged(values, torch.tensor([0, *itertools.accumulate(lengths)]))
    states = model.states({"history": history})
    assert len(states) == len(values)
    for (first, number, last), place in zip(states.long().tolist(), values.tolist(), strict=True):
        assert last == (place - 1 if place else 300), "what is read last is the item before"
        begin = -1 if first == 300 else first
        assert number == place - begin
        assert 1 <= number <= 6
        assert number > 3 or place < 3
    ends = model.last_states({"history": history}).long().tolist()
    assert [last for *_, last in ends] == [n - 1 for n in lengths]
    assert [number for _, number, _ in ends] == [min(6, n + 1) for n in lengths]


def test_lightgcn_propagates_as_dense_matrices_do():
    """Scores, and the gradients of their squares."""
    dataset = interactions()
    model = build(dataset, "lightgcn", width=4, depth=3)
    model.prepare(dataset.train)
    users = len(dataset.spec.inputs["user"].names)
    adjacency = np.zeros((users + 300, users + 300))
    for user, items in zip(dataset.train["user"], dataset.train["history"], strict=True):
        adjacency[user, users + items] = adjacency[users + items, user] = 1
    degree = np.maximum(adjacency.sum(1), 1)
    normalized = torch.from_numpy(adjacency / np.sqrt(degree[:, None] * degree))
    weight = model.embedding.weight.detach().double().requires_grad_()
    layers = [weight]
    for _ in range(3):
        layers.append(normalized @ layers[-1])
    nodes = torch.stack(layers).mean(0)
    expected = nodes[torch.from_numpy(dataset.test["user"])] @ nodes[users:].T
    expected.square().sum().backward()
    scores = model(inputs(dataset, dataset.test))
    scores.square().sum().backward()
    assert torch.allclose(scores.double(), expected, atol=1e-6)
    assert weight.grad is not None
    assert (model.embedding.weight.grad - weight.grad).abs().max() < 1e-5 * weight.grad.abs().max()
    model.begin_scoring()
    with torch.no_grad():
        assert torch.allclose(model(inputs(dataset, dataset.test)), scores, atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.bfloat16, 2e-2)])
def test_lightgcn_propagates_in_each_precision(dtype, tolerance):
    """A CPU has no sparse products of bfloat16."""
    model = build(interactions(), "lightgcn", width=4)
    model.prepare(interactions().train)
    expected = model.propagate()
    nodes = model.to(dtype).propagate()
    nodes.sum().backward()
    assert nodes.dtype == model.embedding.weight.grad.dtype == dtype
    assert (nodes - expected).abs().max() < tolerance * expected.abs().max()


def test_the_loss_within_a_batch_is_that_of_a_loop():
    """Yi et al. 2019: each other element of the batch that the user has not seen, its logit less the log of its frequency."""
    dataset = interactions()
    model = build(dataset, "two_tower", width=4, hidden=(6,))
    task = tasks.build({"name": "ranking"}, spec=dataset.spec, model=model)
    task.prepare(dataset.train)
    batch = batch_of(dataset.train, dataset.spec, 6)
    with torch.no_grad():
        model.eval()
        loss = task.loss(batch, "model", {"samples": 6, **task.counts(batch)}).item()
        states, table = model.states(task.normalize(batch)), model.items()
    counts = np.bincount(dataset.train["history"].values, minlength=300)
    frequency = counts / counts.sum()
    histories = [items.tolist() for items in batch["history"]]
    elements = [(user, item) for user, items in enumerate(histories) for item in items]
    total = 0.0
    for (user, item), state in zip(elements, states.numpy(), strict=True):
        others = [j for _, j in elements if j not in histories[user]]
        logits = np.array([state @ table[j].numpy() - np.log(frequency[j]) for j in [item, *others]])
        total += np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[0]
    assert loss == pytest.approx(total / len(elements), rel=1e-4)


def test_two_towers_know_new_users_by_their_history():
    dataset = interactions()
    model = build(dataset, "two_tower")
    given = inputs(dataset, dataset.test.take(np.arange(3)))
    new = model({**given, "user": torch.full((3,), -1)})
    assert torch.equal(new, model({**given, "user": torch.full((3,), len(dataset.spec.inputs["user"].names))}))
    assert not torch.allclose(new, model(given))
    assert new.abs().max() <= 1 / model.temperature + 1e-4
