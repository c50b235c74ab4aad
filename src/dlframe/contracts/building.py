"""Entries built for a contract, and models trained for a few steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlframe.contracts.edges import edges
from dlframe.contracts.samples import batch_of, digits, suitable, takes
from dlframe.engine.evaluation import Evaluation
from dlframe.engine.loader import BatchLoader, Order, ProcessContext
from dlframe.registry import GROUPS, REGISTRIES, Entry
from dlframe.registry.parameters import REQUIRED
from dlframe.tasks.base import Scores, Task
from dlframe.types import Batch, Dataset, DataSpec, Estimate, Field, Ragged, Split

# --- entries


def required(entry: Entry) -> dict[str, Any]:
    """Values for the options that have no default, and random weights for a model: a test downloads nothing."""
    needed = {name: edges(p.annotation)[0] for name, p in entry.parameters.items() if p.default is REQUIRED}
    found = {name: next(value for value in allowed if value != "") for name, allowed in needed.items()}
    return found | ({"weights": "none"} if entry.group == "model" and "weights" in entry.parameters else {})


def build(entry: Entry, *, seed: int = 0, options: Mapping[str, Any] | None = None, **injected: Any) -> Any:
    """An entry with its defaults, or with `options`."""
    torch.manual_seed(seed)
    return REGISTRIES[entry.group].build({"name": entry.name, **required(entry), **(options or {})}, **injected)


def injected(entry: Entry) -> dict[str, Any]:
    """What an entry is given when it is built, besides its options."""
    if entry.group == "optimizer":
        return {"params": groups_of(small_model())}
    if entry.group == "scheduler":
        return {"optimizer": torch.optim.SGD(small_model().parameters(), lr=0.1), "steps": 10}
    if entry.group == "sampler":
        return {"seed": 0, "number": 0}
    if entry.group == "pruner":
        return {"epochs": 30}
    if entry.group in ("callback", "executor"):
        return {}
    if entry.group == "metric":
        return {"spec": suitable(tasks_for_metric(entry)[0])[0].spec}
    data = suitable(entry)[0]
    if entry.group == "task":
        return {"spec": data.spec, "model": build(models_for(entry, data)[0], spec=data.spec)}
    return {"spec": data.spec}


def small_model() -> nn.Module:
    """What an optimizer or a schedule is tried on: matrices, biases, a norm."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 10))


def groups_of(model: nn.Module) -> list[dict]:
    """Parameter groups as the learner makes them: no weight decay for vectors."""
    parameters = list(model.parameters())
    vectors = [p for p in parameters if p.ndim < 2]
    return [{"params": [p for p in parameters if p.ndim >= 2]}, {"params": vectors, "weight_decay": 0.0}]


def optimize(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    """Losses before each of some steps on handwritten digits."""
    batch, losses = as_task().features(batch_of(digits().train, digits().spec)), []
    for _ in range(steps):
        optimizer.zero_grad()
        value = functional.cross_entropy(model(as_task().normalize(batch)), batch.targets)
        losses.append(value.item())
        value.backward()
        optimizer.step()
    return losses


# --- which entries go together


def models_for(entry: Entry, data: Dataset) -> list[Entry]:
    """The models that a task takes with these data, one of each kind of training: small ones where there is a choice.

    A model of several networks, or of none, needs more of a task than a loss: it is tried if it comes with the task or
    names it.
    """
    kinds = {role: {field.kind for field in getattr(data.spec, role).values()} for role in ("inputs", "targets")}
    fitting = [
        model
        for model in GROUPS["model"]
        if takes(model, kinds)
        and model.facts["task"] in (entry.name, entry.facts["extends"], "")
        and (model.facts["networks"] == ("model",) or entry.origin == model.origin or model.facts["task"])
    ]

    def rank(model: Entry) -> tuple:
        return (
            model.facts["task"] != entry.name,
            model.origin != entry.origin,
            model.name not in ("mlp", "dlinear"),
            model.name,
        )

    ranked = sorted(fitting, key=rank)
    if not ranked:
        pytest.skip(
            f"task={entry.name} was not tried: no model here takes the columns of {data.spec.name}. Register one beside it."
        )
    return list({model.facts["networks"]: model for model in reversed(ranked)}.values())


def tasks_for_metric(entry: Entry) -> list[Entry]:
    """The tasks that give the scores which a metric sees, those of its own plugin first."""
    found = [task for task in GROUPS["task"] if set(entry.facts["scores"]) <= set(task.facts["scores"])]
    if not found:
        pytest.skip(f"metric={entry.name} was not tried: no task here has the scores {', '.join(entry.facts['scores'])}")
    return sorted(found, key=lambda task: task.origin != entry.origin)


def _task_of(entry: Entry, data: Dataset) -> Entry | None:
    """The task in which a model is tried; None for one that answers with logits or values, one row for each sample."""
    if name := entry.facts["task"]:
        return GROUPS["task"].get(name)
    if _is_plain(data.spec):
        return None
    kinds = {"inputs": (), "targets": {field.kind for field in data.spec.targets.values()}}
    # Those that are trained on normal samples have models of their own.
    found = [task for task in GROUPS["task"] if takes(task, kinds) and task.facts["trained_on"] == "all"]
    if not found:
        pytest.skip(f"model={entry.name} was not tried: no task here takes the targets of {data.spec.name}")
    return min(found, key=lambda task: task.origin != entry.origin)


def _is_plain(spec: DataSpec) -> bool:
    """Whether data have one input of one shape, and a class or some values for each sample."""
    if len(spec.inputs) != 1 or len(spec.targets) != 1 or spec.input.ragged or spec.target.ragged:
        return False
    return (spec.target.kind, len(spec.target.shape)) in (("class", 0), ("value", 1))


# --- models


class AsTask(Task):
    """What every task does to a batch before its model sees it."""

    def score(self, batch: Batch) -> Scores:
        raise NotImplementedError

    def metrics(self, scores: Scores) -> dict[str, float]:
        raise NotImplementedError

    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        raise NotImplementedError

    def interval(self, metric: str, scores: Scores, groups: Any = None) -> Estimate:
        raise NotImplementedError

    def table(self, scores: Scores, split: Split) -> dict[str, list]:
        raise NotImplementedError

    def outputs(self) -> dict[str, Field]:
        raise NotImplementedError

    def predict(self, batch: Batch) -> dict[str, Any]:
        raise NotImplementedError


def as_task(spec: DataSpec | None = None) -> AsTask:
    """For data of that spec, or for handwritten digits."""
    return AsTask(spec or digits().spec, nn.Identity())


def task_for(data: Dataset) -> Task:
    """A task that makes features of sounds; of other data, what every task does to a batch."""
    if not data.spec.of_kind("audio", data.spec.inputs):
        return as_task(data.spec)
    kinds = {"inputs": (), "targets": {field.kind for field in data.spec.targets.values()}}
    known = sorted(GROUPS["task"], key=lambda task: task.facts["trained_on"] != "all")  # the usual ones first
    task = next(task for task in known if takes(task, kinds) and task.facts["requires"])
    return build(task, spec=data.spec, model=build(models_for(task, data)[0], spec=data.spec))


class Trial:
    """A model on a handful of samples, by itself or in the task that it needs.

    Args:
        entry: The model.
        data: The samples.
        seed: Of its weights.
    """

    def __init__(self, entry: Entry, data: Dataset, seed: int = 0) -> None:
        self.entry = entry
        self.data = data
        self.networks: tuple[str, ...] = entry.facts["networks"]
        self.model: nn.Module = build(entry, seed=seed, spec=data.spec)
        chosen = _task_of(entry, data)
        self.task: Task | None = build(chosen, spec=data.spec, model=self.model) if chosen else None
        if self.task:
            self.task.prepare(data.train)
        self.batch = (self.task or as_task(data.spec)).features(batch_of(data.train, data.spec))

    @property
    def inputs(self) -> Any:
        """What a model without a task of its own is called with."""
        return as_task(self.data.spec).normalize(self.batch)

    @property
    def targets(self) -> Tensor:
        """Classes (samples,), or values (samples, horizon) in standard deviations of the input."""
        field, target = self.data.spec.input, self.batch.targets
        if self.data.spec.target.kind == "value" and field.mean:
            return (target - torch.tensor(field.mean[:1])) / torch.tensor(field.std[:1])
        return target

    def network(self, name: str) -> nn.Module:
        """One of the networks that the model declares."""
        return self.model if name == "model" else getattr(self.model, name)

    def answers(self) -> Any:
        """What the model makes of the samples: outputs, or the scores of its task."""
        with torch.no_grad():
            if self.task:
                return scored(self.task.eval(), self.data.train, self.data.spec, len(self.batch))
            return self.model.eval()(self.inputs)

    def loss(self) -> Tensor:
        """Of all samples, as they are; of several networks, the loss of the first: a GAN answers by its discriminator."""
        if self.task:
            return step_loss(self.task, [self.batch], self.networks[0] if self.networks else "model")
        output = self.model(self.inputs)
        return functional.cross_entropy(output, self.targets) if self.data.spec.classes else self._squared_error(output)

    def _squared_error(self, output: Tensor) -> Tensor:
        return functional.mse_loss(output, self.targets)

    def train(self, steps: int, *, lr: float = 2e-3, enough: float = -math.inf) -> list[float]:
        """Losses of up to `steps` steps of Adam, fewer where one is below `enough`.

        Without networks: the losses before and after it has seen the samples.
        """
        if not self.networks:
            before = self.loss().item()
            with torch.no_grad():
                if self.task:
                    self.task.partial_fit(self.batch)
                else:
                    self.model.partial_fit(self.inputs, self.targets)  # type: ignore[operator]
            return [before, self.loss().item()]
        parameters = [p for p in self.network(self.networks[0]).parameters() if p.requires_grad]
        optimizer, losses = torch.optim.Adam(parameters, lr), []
        for _ in range(steps):
            optimizer.zero_grad()
            value = self.loss()
            losses.append(value.item())
            if losses[-1] < enough:
                break
            value.backward()
            optimizer.step()
        return losses


# --- tasks


def scored(task: Task, split: Split, spec: DataSpec, size: int) -> Scores:
    """The scores of a split in its order, scored in batches of `size`."""
    loader = BatchLoader(split, spec, Order(size), context=lambda: ProcessContext(torch.device("cpu")))
    evaluation = Evaluation(task)
    with torch.no_grad():
        evaluation.begin()
        for batch in (batch for chunk in loader for step in chunk for batch in step.batches):
            evaluation.add(batch)
        evaluation.finish(1, lambda tensor: tensor[None])
    return evaluation.scores


def rows(score: Any, index: np.ndarray) -> Any:
    """The scores of some samples."""
    if not isinstance(score, Ragged):
        return score[torch.from_numpy(index)]
    chosen = Ragged(score.values.numpy(), score.offsets.numpy()).take(index)
    return Ragged(torch.from_numpy(chosen.values), torch.from_numpy(chosen.offsets))


def step_loss(task: Any, parts: list[Batch], network: str) -> Tensor:
    """The loss of an optimizer step of several batches, as the learner adds it up."""
    totals: dict[str, Any] = {"samples": sum(map(len, parts))}
    for part in parts:
        for name, count in task.counts(part).items():
            totals[name] = totals.get(name, 0) + count
    return torch.stack([task.loss_part(part, network, totals) for part in parts]).sum()


# --- comparison


def equal(left: Any, right: Any) -> bool:
    """Whether nested containers of tensors and plain values are equal to the bit."""
    if isinstance(left, Ragged):
        return isinstance(right, Ragged) and equal((left.values, left.offsets), (right.values, right.offsets))
    if isinstance(left, Tensor):
        return isinstance(right, Tensor) and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


def difference(left: Any, right: Any, *, rtol: float = 1e-5, atol: float = 1e-5) -> str:
    """How two tensors, or two of varying length, differ; empty where they are close."""
    if isinstance(left, Ragged):
        if not torch.equal(left.offsets, right.offsets):
            return "other lengths"
        left, right = left.values, right.values
    try:
        torch.testing.assert_close(left, right, rtol=rtol, atol=atol, equal_nan=True)
    except AssertionError as error:
        return " ".join(str(error).split())
    return ""
