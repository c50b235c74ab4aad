"""Examples that one model gets right and another wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlframe.analysis.comparison import Comparison, Row
from dlframe.analysis.predictions import shown_predictions
from dlframe.analysis.runs import Run
from dlframe.config import load_saved
from dlframe.storage.known import is_known
from dlframe.types import DlframeError, Ragged

MOST = 12
"""Examples of a gallery."""
LONGEST = 300
"""Letters of a text that are shown."""


@dataclass(frozen=True)
class Gallery:
    """Test samples that the best model gets right, or less wrong, and the second one does not.

    Attributes:
        best: Label of the best model.
        other: Label of the second one.
        ids: Of the samples.
        rows: Target and what both say, of each sample: of the first run of each model.
        texts: The input of each as text; empty where it is none.
        images: Each (channels, height, width) uint8; None where the inputs are none, or are not at hand.
    """

    best: str
    other: str
    ids: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: Sequence[str]
    images: Sequence[np.ndarray] | None


def gallery(found: Comparison) -> Gallery | None:
    """Return examples in favor of the best model; None without any, or for a metric that is not of single samples."""
    if len(found.rows) < 2:
        return None
    best, other = found.rows[:2]
    if best.each is None or other.each is None:
        return None
    gap = (best.each - other.each) * (1.0 if found.metrics[found.metric].better == "max" else -1.0)
    chosen = np.argsort(-gap, kind="stable")[:MOST]
    chosen = chosen[gap[chosen] > 0]
    if not len(chosen):
        return None
    ids = found.ids[chosen]
    mine, theirs = (shown_predictions(row.runs[0], ids) for row in (best, other))
    if mine is None or theirs is None:
        return None
    told = [
        [f"{text}{_share(row, each)}" for (_, text), each in zip(own, column[chosen], strict=True)]
        for row, own, column in ((best, mine, best.each), (other, theirs, other.each))
    ]
    rows = [(target, *both) for (target, _), *both in zip(mine, *told, strict=True)]
    texts, images = _inputs(best.runs[0], ids)
    return Gallery(best.label, other.label, [str(name) for name in ids], rows, texts, images)


def _share(row: Row, each: float) -> str:
    """Say how many runs of a model are right, where they differ."""
    right = each * len(row.runs)
    is_count = math.isclose(right, round(right), abs_tol=1e-9) and 0 < each < 1
    return f" ({round(right)}/{len(row.runs)} right)" if is_count else ""


def _inputs(run: Run, ids: np.ndarray) -> tuple[list[str], Sequence[np.ndarray] | None]:
    """Return test inputs as texts or images, where this user has made the run and the data are as they were."""
    nothing: tuple[list[str], Sequence[np.ndarray] | None] = ([""] * len(ids), None)
    if not is_known(run=run.folder.resolve()):
        return nothing  # its config may name any file
    from dlframe.jobs.data import load_data

    try:
        dataset = load_data(load_saved(run.folder / "config.yaml"))
    except (DlframeError, OSError, ValueError):
        return nothing
    if dataset.fingerprint != run.fingerprint:
        return nothing
    places = {str(name): i for i, name in enumerate(dataset.test.ids.tolist())}
    rows = [places[str(name)] for name in ids]
    spec = dataset.spec
    for name, field in spec.inputs.items():
        column: Any = dataset.test[name]
        if field.kind == "tokens" and field.names and isinstance(column, Ragged):
            texts = [" ".join(field.names[i] for i in column[row].tolist()) for row in rows]
            return [text if len(text) <= LONGEST else f"{text[:LONGEST]}…" for text in texts], None
        if field.kind == "image" and isinstance(column, np.ndarray) and column.dtype == np.uint8:
            return nothing[0], [dataset.picture(name, row) for row in rows]
    return nothing
