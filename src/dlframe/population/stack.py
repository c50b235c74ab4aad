"""N models of one shape as one: their weights stacked, their losses, gradients and scores batched."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from dlframe.population.graphs import traced
from dlframe.tasks.base import Scores, Task
from dlframe.types import Batch, DataSpec, DlframeError

Columns = dict[str, Tensor | Any]


class NotStackableError(DlframeError):
    """Runs that cannot be trained as one; says why."""


class Masked(nn.Module):
    """Dropout whose mask comes from outside: one that each model draws with its own random numbers."""

    def __init__(self, masks: Iterator[Tensor], p: float) -> None:
        super().__init__()
        self.masks = masks
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        return values * next(self.masks) if self.training else values


class Mask:
    """Dropout masks of a training step (N, ...), overwritten by the next one.

    Each model's has the memory order of its layer's input, in which a layer of its own draws.

    Args:
        example: Input of the dropout layer of one model.
        p: Dropout probability.
        models: N.
    """

    def __init__(self, example: Tensor, p: float, models: int) -> None:
        self.p = p
        single = torch.empty_like(example)
        size = (models, *single.shape)
        self.values = torch.empty_strided(size, (single.numel(), *single.stride()), dtype=single.dtype).zero_()
        self.rows = self.values.unbind(0)


class _Masks:
    """The masks of one forward pass, in the order of the dropout layers."""

    def __init__(self) -> None:
        self.waiting: list[Tensor] = []

    def __iter__(self) -> _Masks:
        return self

    def __next__(self) -> Tensor:
        return self.waiting.pop(0)


class _Program(nn.Module):
    """What is computed with one model: a module, so that weights can be passed to it as arguments."""

    def __init__(self, task: Task, masks: _Masks) -> None:
        super().__init__()
        self.task = task
        self.masks = masks

    def forward(self, kind: str, masks: list[Tensor], raw: Batch, prepared: Batch | None) -> Any:
        self.masks.waiting = [*masks]
        if kind == "score":
            return self.task.score(self.task.features(raw))
        totals = {"samples": len(raw), **self.task.counts(raw)}
        return self.task.loss_part(self.task.features(raw) if prepared is None else prepared, "model", totals)


class Stack:
    """Weights and buffers of N tasks as tensors (N, ...), and functions of them.

    Weights are kept flat, (N, numbers), one tensor for each parameter group, so that an optimizer steps them at once.

    Args:
        tasks: Tasks with their models, of one shape.
        groups: Names of the trained parameters of each parameter group.
        spec: Of the data.
        functions: Traced computations, kept when a smaller or a changed stack takes this one's place.
    """

    def __init__(
        self, tasks: Sequence[Task], groups: Sequence[Sequence[str]], spec: DataSpec, functions: dict[Any, Callable[..., Any]]
    ) -> None:
        self.groups = groups
        self.spec = spec
        tensors = [{**dict(task.named_parameters()), **dict(task.named_buffers())} for task in tasks]
        self.shapes = {name: tensor.shape for name, tensor in tensors[0].items()}
        trained = [name for group in groups for name in group]
        others = [name for name in self.shapes if name not in set(trained)]
        sizes = [sum(self.shapes[name].numel() for name in group) for group in groups]
        dtypes = [tensors[0][group[0]].dtype for group in groups]
        self.flat = [torch.empty(len(tasks), size, dtype=dtype) for size, dtype in zip(sizes, dtypes, strict=True)]
        views = {name: view for group, flat in zip(groups, self.flat, strict=True) for name, view in self.split(group, flat)}
        self.weights = [views[name] for name in trained]
        self.rest = [torch.stack([own[name] for own in tensors]).detach() for name in others]
        # Of each task, the tensors that have copies here.
        self._weights = [[own[name].detach() for name in trained] for own in tensors]
        self._rest = [[own[name].detach() for name in others] for own in tensors]
        for own, row in zip(self._weights, zip(*self.weights, strict=True), strict=True):
            torch._foreach_copy_([*row], own)
        self._names = [f"task.{name}" for name in (*trained, *others)]
        self._masks = _Masks()
        self._program = _Program(self._template(tasks[0]), self._masks)
        self._functions = functions

    def __len__(self) -> int:
        return len(self._weights)

    def split(self, group: Sequence[str], flat: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield each parameter of a group, (N, ...), as a view of the group's numbers (N, numbers)."""
        start = 0
        for name in group:
            shape = self.shapes[name]
            yield name, flat[:, start : start + shape.numel()].view(len(flat), *shape)
            start += shape.numel()

    def load_buffers(self) -> None:
        """Copy what is not trained by gradients from the tasks."""
        if self.rest:
            for own, row in zip(self._rest, zip(*self.rest, strict=True), strict=True):
                torch._foreach_copy_([*row], own)

    def unload(self, number: int, *, buffers: bool = True) -> None:
        """Copy the weights and buffers of a model to its task."""
        torch._foreach_copy_(self._weights[number], [value[number] for value in self.weights])
        if buffers:
            self.unload_buffers(number)

    def unload_buffers(self, number: int) -> None:
        """Copy the buffers of a model to its task."""
        if self.rest:
            torch._foreach_copy_(self._rest[number], [value[number] for value in self.rest])

    def finite(self) -> list[bool]:
        """Return of each model whether the norm of its weights is finite, and no buffer has a NaN."""
        good = torch.stack([torch.linalg.vector_norm(flat, dim=1) for flat in self.flat]).norm(dim=0).isfinite()
        for values in self.rest:
            if values.is_floating_point():
                good &= ~values.isnan().flatten(1).any(1) if values.ndim > 1 else ~values.isnan()
        return good.tolist()

    def gradients(
        self,
        raw: Columns,
        index: Tensor,
        *,
        prepared: Columns | None = None,
        labelled: Tensor | None = None,
        masks: Sequence[Tensor] = (),
    ) -> tuple[list[Tensor], Tensor]:
        """Compute the gradients of a training step.

        Args:
            raw: Columns (N, batch, ...) as the loader gives them.
            index: (N, batch) positions in the split.
            prepared: Features after augmentation; None if there is none.
            labelled: (N, batch) whether a sample's targets may be used; None if all may.
            masks: Dropout masks (N, ...).

        Returns:
            The gradients (N, ...) of the trained parameters, and the losses (N,).

        Raises:
            NotStackableError: An operation of the model or the task has no batched form.
        """
        given: dict[str, Any] = {"raw": raw, "index": index, "masks": [*masks]}
        given |= {} if prepared is None else {"prepared": prepared}
        given |= {} if labelled is None else {"labelled": labelled}

        def loss(weights: list[Tensor], rest: list[Tensor], given: dict[str, Any]) -> Tensor:
            batches = [
                Batch(given[name], given["index"], self.spec, given.get("labelled")) if name in given else None
                for name in ("raw", "prepared")
            ]
            return self._call(weights, rest, "loss", given["masks"], *batches)

        return self._batched("loss", lambda: vmap(grad_and_value(loss)), given)

    def scores(self, batch: Batch) -> Scores:
        """Return the scores of a batch by all models: by name (N, batch, ...).

        Raises:
            NotStackableError: An operation of the model or the task has no batched form.
        """

        def score(weights: list[Tensor], rest: list[Tensor], given: dict[str, Any]) -> Scores:
            return self._call(weights, rest, "score", [], Batch(given["raw"], given["index"], self.spec), None)

        given = {"raw": dict(batch.columns), "index": batch.index}
        return self._batched("score", lambda: vmap(score, in_dims=(0, 0, None)), given)

    def find_masks(self, raw: Batch, prepared: Batch | None) -> list[Mask]:
        """Pass a batch through the first model in training mode and return the dropout masks that it needs.

        Raises:
            NotStackableError: It draws random numbers by other means than dropout layers, or cannot be called like this.
        """
        found: list[Mask] = []

        def note(module: Masked, arguments: tuple[Tensor]) -> None:
            (values,) = arguments
            found.append(Mask(values, module.p, len(self)))
            self._masks.waiting.append(torch.ones_like(values))

        layers = [module for module in self._program.modules() if isinstance(module, Masked)]
        hooks = [layer.register_forward_pre_hook(note) for layer in layers]  # type: ignore[arg-type]
        weights, rest = ([values[0].clone() for values in tensors] for tensors in (self.weights, self.rest))
        state = torch.get_rng_state()
        try:
            with torch.no_grad():
                self._program.train()
                self._call(weights, rest, "loss", [], raw, prepared)
        except Exception as error:
            raise NotStackableError(_reason(error)) from error
        finally:
            for hook in hooks:
                hook.remove()
        if not state.equal(torch.get_rng_state()):
            raise NotStackableError("the model draws random numbers in training by other means than dropout layers")
        return found

    def _call(self, weights: Sequence[Tensor], rest: Sequence[Tensor], kind: str, masks: list[Tensor], *batches: Any) -> Any:
        tensors = dict(zip(self._names, [*weights, *rest], strict=True))
        return functional_call(self._program, tensors, (kind, masks, *batches))

    def _batched(self, kind: str, function: Callable[[], Callable[..., Any]], given: dict[str, Any]) -> Any:
        columns = [given["raw"], given.get("prepared") or {}]
        key = (kind, len(self), *((name, c.shape, c.dtype) for each in columns for name, c in each.items()))
        if key not in self._functions:
            self._program.train(kind == "loss")
            try:
                # Tracing runs the function, and with it what it does to running statistics.
                rest = [values.clone() for values in self.rest]
                self._functions[key] = traced(function(), self.weights, rest, given)
            except Exception as error:
                raise NotStackableError(_reason(error)) from error
        with torch.no_grad():
            return self._functions[key](self.weights, self.rest, given)

    def _template(self, task: Task) -> Task:
        """Return a task without weights of its own, whose dropout layers take their masks from outside."""
        template = copy.deepcopy(task).to("meta")
        for module in [*template.modules()]:
            for name, child in module.named_children():
                if type(child) is nn.Dropout and child.p:
                    setattr(module, name, Masked(self._masks, child.p))
        return template


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
