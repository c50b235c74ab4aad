"""Small specs and batches that several tests build."""

from __future__ import annotations

import numpy as np
import torch

from dlframe.types import Batch, DataSpec, Field, Ragged, Split


def image_spec(
    name: str, shape: tuple[int, ...], classes: tuple[str, ...], mean: tuple[float, ...] = (), std: tuple[float, ...] = ()
) -> DataSpec:
    """Images ("image") of one class each ("label"); without statistics they are taken as they are, in [0, 1]."""
    channels = shape[0]
    image = Field(kind="image", dtype="uint8", shape=shape, mean=mean or (0.0,) * channels, std=std or (1.0,) * channels)
    return DataSpec(name, {"image": image}, {"label": Field(kind="class", dtype="int64", names=classes)})


def series_spec(name: str, shape: tuple[int, ...], horizon: int) -> DataSpec:
    """Windows of a series ("window") and the values that follow ("future")."""
    window = Field(kind="series", dtype="float64", shape=shape)
    return DataSpec(name, {"window": window}, {"future": Field(kind="value", dtype="float64", shape=(horizon,))})


def batch_of(split: Split, spec: DataSpec, count: int | None = None) -> Batch:
    """The first samples of a split, as a task gets them from the loader."""
    part = split.take(np.arange(len(split) if count is None else count))
    columns = {name: _tensors(part[name]) for name in spec.fields}
    labelled = None if part.labelled is None else torch.from_numpy(part.labelled)
    return Batch(columns, torch.arange(len(part)), spec, labelled)


def _tensors(column: np.ndarray | Ragged) -> torch.Tensor | Ragged:
    if isinstance(column, Ragged):
        return Ragged(torch.from_numpy(column.values), torch.from_numpy(column.offsets))
    return torch.from_numpy(column)
