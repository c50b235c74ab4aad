"""Recommendation: ranking of all items for each user."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.readers.interactions import in_order, read_interactions
from dlframe.registry import Count, tasks
from dlframe.statistics.metrics.ranking import METRICS, Gain, at_k, gains_of
from dlframe.tasks.base import Scores, Task, Totals
from dlframe.tasks.negatives import ATTEMPTS, hashed, popular, uniform
from dlframe.tasks.ranks import owners, ranks_of, top, without
from dlframe.types import (
    Batch,
    ConfigError,
    DataError,
    Dataset,
    DataSpec,
    Field,
    Ragged,
    Split,
    TrainingError,
    nearest,
    say,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@tasks.register(
    "ranking",
    targets=("item", "value"),
    requires=("item",),
    scores=("ranks", "gains", "top", "tied"),
    metrics={
        "ndcg": {"better": "max", "low": 0.0, "high": 1.0},
        "precision": {"better": "max", "low": 0.0, "high": 1.0},
        "recall": {"better": "max", "low": 0.0, "high": 1.0},
        "mrr": {"better": "max", "low": 0.0, "high": 1.0},
        "hit": {"better": "max", "low": 0.0, "high": 1.0},
        "coverage": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "popularity": {"better": "min", "low": 0.0, "high": 1.0, "unit": "fraction"},
    },
    headline="ndcg",
    sample={"name": "interactions"},
)
class Ranking(Task):
    """Lists of the k best items of each user, among all items that the user has not seen.

    A sample is a user: the history are the items before the split, the targets those in it. Metrics are means over users,
    each with equal weight; items are never sampled for scoring (Krichene and Rendle 2020). Equal scores are ranked in the
    order of the data's items. In training, each item of the history is predicted: by softmax over all items or those of the
    batch, or against unseen items that are drawn for it, pairwise (BPR, Rendle et al. 2009, arXiv 1205.2618) or pointwise (log
    loss).

    Args:
        k: Length of the lists.
        gain: Gain of a target in the ndcg: 1 (binary), its rating (linear), or 2**rating - 1 (exponential).
        negatives: Unseen items drawn for each item of the history, where the model's loss needs them.
        sampling: Distribution of the drawn items: uniform, or by popularity to the power 0.75 (Mikolov et al. 2013).
    """

    popularity: Tensor
    sampling_seed: Tensor

    def __init__(
        self,
        spec: DataSpec,
        model: nn.Module,
        *,
        k: Count = 10,
        gain: Literal["binary", "linear", "exponential"] = "binary",
        negatives: Count = 1,
        sampling: Literal["uniform", "popularity"] = "uniform",
    ) -> None:
        super().__init__(spec, model)
        self.items = spec.inputs["history"].names
        if k > len(self.items):
            raise ConfigError(f"task.k: must be at most {len(self.items):,}, the number of items. Received: {k}.", "task.k")
        if gain != "binary" and "rating" not in spec.targets:
            raise ConfigError(f"task.gain={gain}: needs ratings, which data={spec.name} does not have.", "task.gain")
        self.k, self.negatives, self.sampling = k, negatives, sampling
        self.gain: Gain = gain
        self.epoch = 0
        self.histories: dict[int, np.ndarray] = {}
        self.register_buffer("popularity", torch.zeros(len(self.items)))
        self.register_buffer("sampling_seed", torch.randint(2**62, ()))

    def prepare(self, train: Split) -> None:
        """Take the fraction of training users who have seen each item, and the histories, for predictions by user.

        A model may have a `prepare(train)` of its own.
        """
        history = train["history"]
        counts = np.bincount(history.values, minlength=len(self.items))
        self.popularity.copy_(torch.from_numpy(counts / len(train)))
        if callable(hook := getattr(self.model, "prepare", None)):
            hook(train)
        self.histories = {int(user): items for user, items in zip(train["user"], history, strict=True)}

    def get_extra_state(self) -> dict[str, Tensor]:
        history = Ragged.of([*self.histories.values()] or [np.empty(0, np.int64)])
        arrays = {"user": np.array([*self.histories], np.int64), "items": history.values, "offsets": history.offsets}
        return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}

    def set_extra_state(self, state: Any) -> None:
        users, items, offsets = (state[name].cpu().numpy() for name in ("user", "items", "offsets"))
        self.histories = dict(zip(users.tolist(), np.split(items, offsets[1:-1]), strict=False))

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Draw other unseen items."""
        self.epoch = epoch

    # --- learning

    def counts(self, batch: Batch) -> Totals:
        """Count the items to predict."""
        return {"items": len(batch["history"].values)}

    def loss(self, batch: Batch, network: str, totals: Totals) -> Tensor:
        """Return the loss of the items of the histories, each predicted from those before it.

        A model that only scores all items has a multinomial loss: softmax of the user's scores.
        """
        model: Any = self.model
        history = batch["history"]
        if not hasattr(model, "states"):
            logits = model(self.normalize(batch))[owners(history)]
            return functional.cross_entropy(logits, history.values, reduction="sum") / totals["items"]
        states = model.states(self.normalize(batch))
        if model.criterion == "softmax":
            return functional.cross_entropy(model.match(states), history.values, reduction="sum") / totals["items"]
        if model.criterion == "in_batch":
            return self.in_batch(model.match(states), history).sum() / totals["items"]
        others = self.draw(batch["user"], history)
        scores = model.match(states, torch.cat([history.values[:, None], others], 1))
        if model.criterion == "bpr":
            loss = functional.softplus(scores[:, 1:] - scores[:, :1])
        else:
            loss = functional.softplus(torch.cat([-scores[:, :1], scores[:, 1:]], 1))
        return loss.sum() / (totals["items"] * loss.shape[1])

    def in_batch(self, scores: Tensor, history: Ragged) -> Tensor:
        """Return the losses (elements,) of a softmax over the items of a batch, corrected for their frequencies.

        An item that is in the batch n times and makes up the fraction q of the training data has the weight n / q. Items of
        the user's own history other than the element are left out.

        Args:
            scores: (elements, items) of each element of the histories.
            history: Items of each user.
        """
        owner, own = owners(history), history.values
        seen = torch.zeros(len(history), scores.shape[1], dtype=torch.bool, device=own.device)
        seen[owner, own] = True
        frequency = self.popularity.to(scores) / self.popularity.sum()
        weight = (own.bincount(minlength=scores.shape[1]) / frequency.clamp(min=torch.finfo(scores.dtype).tiny)).log()
        target = (scores - frequency.clamp(min=torch.finfo(scores.dtype).tiny).log()).gather(1, own[:, None])
        others = (scores + weight).masked_fill(seen[owner], -torch.inf)
        return torch.cat([target, others], 1).logsumexp(1) - target.squeeze(1)

    def draw(self, user: Tensor, history: Ragged) -> Tensor:
        """Return unseen items (elements, negatives), which depend on seed, epoch, user and element only."""
        owner = owners(history)
        element = torch.arange(len(owner), device=owner.device) - history.offsets[:-1].to(owner.device)[owner]
        number = torch.arange((1 + ATTEMPTS * (self.sampling == "popularity")) * self.negatives, device=owner.device)
        draws = hashed(self.sampling_seed, self.epoch, user[owner, None], element[:, None], number)
        first = uniform(draws[:, : self.negatives], history, len(self.items))
        if self.sampling == "uniform":
            return first
        others = draws[:, self.negatives :].unflatten(1, (ATTEMPTS, self.negatives)).transpose(0, 1)
        return popular(others, first, history, self.popularity.double() ** 0.75)

    def partial_fit(self, batch: Batch) -> None:
        self.model.partial_fit(self.normalize(batch))  # type: ignore[operator]

    # --- scoring

    def begin_scoring(self) -> None:
        if callable(hook := getattr(self.model, "begin_scoring", None)):
            hook()

    def candidates(self, batch: Batch) -> Tensor:
        """Return the scores of all items, (batch, items), -inf for those that the user has seen."""
        scores = self.model(self.normalize(batch)).float()
        if bad := scores.isnan().any(1).nonzero()[:1].tolist():
            name = self.spec.inputs["user"].names[int(batch["user"][bad[0][0]])]
            raise TrainingError(f"model: scores must not be NaN. Received: NaN for user '{name}'. Try a smaller optimizer.lr.")
        return without(scores, batch["history"])

    def score(self, batch: Batch) -> Scores:
        """Return ranks and gains of the targets, the k best items (-1 for no item), and whether the k-th is a tie."""
        return self.ranked(self.candidates(batch), batch["items"], batch["rating"] if self.gain != "binary" else None)

    def ranked(self, scores: Tensor, targets: Ragged, ratings: Ragged | None) -> Scores:
        """As `score`, of the scores of all items, -inf for those that are left out."""
        items, values = top(scores, min(self.k + 1, scores.shape[1]))
        last = values[:, self.k - 1 : self.k + 1]
        gains = torch.ones(len(targets.values), dtype=torch.float64)
        if ratings is not None:
            gains = torch.from_numpy(gains_of(ratings.values.cpu().numpy(), self.gain))
        return {
            "ranks": targets.like(ranks_of(scores, targets)),
            "gains": targets.like(gains.to(scores.device)),
            "top": items.masked_fill(values == -torch.inf, -1)[:, : self.k],
            "tied": (last[:, 0] == last[:, -1]) & (last[:, -1] > -torch.inf) & (last.shape[1] > 1),
        }

    def by_user(self, scores: Scores, k: int | None = None) -> dict[str, np.ndarray]:
        """Return the metrics of each user, (users,)."""
        ranks, gains = scores["ranks"], scores["gains"]
        return at_k(ranks.values.numpy(), ranks.offsets.numpy(), k or self.k, gains.values.double().numpy())

    def ndcg_within(self, scores: Scores, inside: np.ndarray) -> np.ndarray:
        """Return the NDCG of each user (users,), with no relevant items but those targets (targets,) bool.

        The lists stay those of all items. Users without such a target have none.
        """
        gains = scores["gains"]
        return self.by_user(scores | {"gains": gains.like(gains.values * torch.from_numpy(inside))})["ndcg"]

    def metrics(self, scores: Scores) -> dict[str, float]:
        """Compute means over users, the fraction of all items in any list, and the mean popularity of listed items."""
        means = {name: mean(values) for name, values in self.by_user(scores).items()}
        listed = scores["top"][scores["top"] >= 0]
        coverage = len(listed.unique()) / len(self.items)
        return {**means, "coverage": coverage, "popularity": self.popularity.cpu()[listed].double().mean().item()}

    def outputs(self) -> dict[str, Field]:
        names = self.items
        return {
            "items": Field(kind="class", dtype="int64", shape=(None,), names=names),
            "score": Field(kind="value", dtype="float32", shape=(None,), along="items"),
        }

    def lookup(self, text: str) -> list[tuple[str, dict[str, np.ndarray]]]:
        """Return a user of the training split with its history, or the users of a file of interactions with theirs.

        Raises:
            DataError: There is no such user, the file cannot be read, or the model needs users that it was trained with.
        """
        names = self.spec.inputs["user"].names
        if not Path(text).exists():
            user = names.index(text) if text in names else -1
            if user not in self.histories:
                raise DataError(f"predict: '{text}' is neither a file nor a user of the training split.{nearest(text, names)}")
            return [(text, {"user": np.array(user), "history": self.histories[user]})]
        read = in_order(read_interactions(Path(text)))
        known, code = {name: i for i, name in enumerate(names)}, {name: i for i, name in enumerate(self.items)}
        items = np.array([code.get(name, -1) for name in read.item_names])[read.items]
        if unknown := int((items < 0).sum()):
            say(f"{text}: {unknown:,} of {len(items):,} rows left out: the model does not know their items", error=True)
        found, new_users = [], getattr(self.model, "new_users", True)
        ends = np.searchsorted(read.users, np.arange(1, len(read.user_names)))
        for name, own in zip(read.user_names, np.split(items, ends), strict=True):
            if not (own >= 0).any():
                raise DataError(f"{text}: user '{name}' must have an item of the training. Received: none.")
            if name not in known and not new_users:
                raise DataError(f"{text}: user '{name}' is new, and the model has states of the users of its training only.")
            found.append((name, {"user": np.array(known.get(name, -1)), "history": own[own >= 0]}))
        return found

    def predict(self, batch: Batch) -> dict[str, Ragged]:
        """Return the k best items of each user and their scores, fewer where all others have been seen.

        Raises:
            DataError: There is no such item or user.
        """
        users, new = len(self.spec.inputs["user"].names), getattr(self.model, "new_users", True)
        limits = (("history", batch["history"].values, 0, len(self.items)), ("user", batch["user"], -1 if new else 0, users))
        for name, values, low, end in limits:
            if len(bad := values[(values < low) | (values >= end)]):
                raise DataError(f"inputs: '{name}' must be from {low} to {end - 1}. Received: {bad[0]}.")
        items, values = top(self.candidates(batch), self.k)
        listed = values > -torch.inf
        offsets = functional.pad(listed.sum(1).cumsum(0), (1, 0))
        return {"items": Ragged(items[listed], offsets), "score": Ragged(values[listed], offsets)}

    # --- results

    def popular_scores(self, dataset: Dataset) -> Scores:
        """Return the scores of the most popular items of the training split."""
        test, counts = dataset.test, np.bincount(dataset.train["history"].values, minlength=len(self.items))
        parts = []
        for index in np.split(np.arange(len(test)), range(256, len(test), 256)):
            columns = {name: test[name].take(index) for name in test.columns if name != "user"}
            tensors = {name: Ragged(*map(torch.from_numpy, (c.values, c.offsets))) for name, c in columns.items()}
            scores = without(torch.from_numpy(counts).float().expand(len(index), -1), tensors["history"])
            parts.append(self.ranked(scores, tensors["items"], tensors.get("rating") if self.gain != "binary" else None))
        offsets = torch.from_numpy(test["items"].offsets)
        joined = {name: Ragged(torch.cat([part[name].values for part in parts]), offsets) for name in ("ranks", "gains")}
        return {**joined, **{name: torch.cat([part[name] for part in parts]) for name in ("top", "tied")}}

    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        return "most popular", self.metrics(self.popular_scores(dataset))

    def baseline_predictions(self, dataset: Dataset) -> dict[str, list]:
        scores = self.popular_scores(dataset)
        metrics = {name: values.tolist() for name, values in self.by_user(scores).items()}
        return {"prediction": self.named(scores["top"]), **metrics}

    def forms(self) -> dict[str, dict[str, Any]]:
        return {name: {"form": "mean", "column": name, "undefined": "skip"} for name in METRICS}

    def notes(self, scores: Scores) -> list[str]:
        users = len(scores["top"])
        told = [f"at k={self.k}, means over users, among all {len(self.items):,} items less those of the user's history"]
        if self.gain != "binary":
            told.append(f"ndcg with {self.gain} gain")
        if undefined := int(np.isnan(self.by_user(scores)["ndcg"]).sum()):
            told.append(f"left out: {undefined:,} of {users:,} users, without a relevant item")
        if tied := int(scores["tied"].sum()):
            told.append(f"{tied:,} of {users:,} lists end within equal scores, ranked in the order of the data's items")
        return told

    def named(self, items: Tensor) -> list[list[str]]:
        """Return the names of listed items (users, k)."""
        names = np.array(self.items, dtype=object)
        return [names[row[row >= 0]].tolist() for row in items.numpy()]

    def table(self, scores: Scores, split: Split) -> dict[str, list]:
        """Return targets (JSON), recommended items, the metrics of each user and, as score, the ndcg."""
        names = np.array(self.items, dtype=object)
        metrics = {name: values.tolist() for name, values in self.by_user(scores).items()}
        return {
            "target": [json.dumps(names[items].tolist(), ensure_ascii=False) for items in split["items"]],
            "prediction": self.named(scores["top"]),
            "score": metrics["ndcg"],
            **metrics,
        }

    def samples(self, scores: Scores, split: Split) -> list[Any]:
        """Return four users with their lists: those at the quartiles of the NDCG, and the best one."""
        from dlframe.plots import UserList

        ndcg = self.by_user(scores)["ndcg"]
        order = np.argsort(np.nan_to_num(ndcg, nan=-1.0), kind="stable")
        chosen = dict.fromkeys(order[(np.array([0.25, 0.5, 0.75, 1.0]) * (len(order) - 1)).astype(int)].tolist())
        users, names = self.spec.inputs["user"].names, np.array(self.items, dtype=object)
        found = []
        for i in chosen:
            listed = scores["top"][i].numpy()
            listed = listed[listed >= 0]
            history, targets = split["history"][i], split["items"][i]
            name = users[int(split["user"][i])]
            hits = np.isin(listed, targets)
            found.append(UserList(name, names[history].tolist(), names[listed].tolist(), hits, len(targets), float(ndcg[i])))
        return found

    def figures(self, scores: Scores, dataset: Dataset) -> dict[str, Figure]:
        """Plot the recall over k, and metrics by activity of users and popularity of items, beside the most popular items."""
        from dlframe import plots

        test, popularity = dataset.test, self.popularity.cpu().numpy()
        both = (scores, self.popular_scores(dataset))
        lengths = np.unique(np.geomspace(1, len(self.items), 40).astype(int))
        recall = [[mean(self.by_user(each, k)["recall"]) for k in lengths] for each in both]
        return {
            **super().figures(scores, dataset),
            "lists": plots.user_lists(self.samples(scores, test), k=self.k, title=self.spec.name),
            "recall": plots.recall(lengths, *recall, k=self.k, title=self.spec.name),
            "by_activity": plots.by_slice(
                test["history"].lengths,
                *(self.by_user(each)["ndcg"].__getitem__ for each in both),
                metric=f"NDCG@{self.k}",
                of="items in the history",
                unit="users",
                title=self.spec.name,
            ),
            "by_popularity": plots.by_slice(
                popularity[test["items"].values] * 100,
                *(partial(self.ndcg_within, each) for each in both),
                metric=f"NDCG@{self.k} of these targets alone",
                of="training users who have seen the target, %",
                unit="users",
                title=self.spec.name,
            ),
        }


def mean(values: np.ndarray) -> float:
    """Return the mean of the defined values; NaN without any."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
