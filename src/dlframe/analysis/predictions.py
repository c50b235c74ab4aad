"""Predictions of runs, paired by the ids of test samples."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dlframe.analysis.columns import BASELINE, Columns, needed, values_of
from dlframe.analysis.runs import Run
from dlframe.registry import GROUPS, plugins
from dlframe.statistics.comparison.differences import mean as mean_of
from dlframe.statistics.comparison.differences import scores
from dlframe.statistics.comparison.jackknife import groups_of
from dlframe.statistics.comparison.predicted import Form
from dlframe.types import ConfigError, DataError, Estimate, Metric, Ragged, opened

PREDICTIONS = "predictions.parquet"
LARGEST = 2**33
"""Bytes of a table of predictions that is read."""


class Values(NamedTuple):
    """A metric of a run.

    Attributes:
        value: The metric.
        deleted: (groups,) the metric without each group of test samples.
        losses: (samples,) the loss of each forecast, in order; None of other metrics and where samples are no series.
        each: (samples,) what each sample adds, in the direction of the metric; None of metrics of lists.
    """

    value: float
    deleted: np.ndarray
    losses: np.ndarray | None
    each: np.ndarray | None = None


class Paired:
    """The test samples that all runs on one data set have in common: all of them, in the order of the first run.

    Args:
        first: The run whose order and targets the others must have.
        metrics: Metrics that are compared.

    Raises:
        DataError: Its predictions cannot be read, or an id is there twice.
        ConfigError: A metric does not follow from its predictions.
    """

    def __init__(self, first: Run, metrics: Sequence[str] = ()) -> None:
        self.first = first
        self.metrics = metrics
        self.columns = Columns()
        forms = [self.form(first, metric) for metric in metrics]
        table = _read(first, ("target",))
        self.ids = _ids(table, first)
        target = self.columns.column(
            table, "target", first.folder / PREDICTIONS, is_ragged=any(form.is_ragged for form in forms)
        )
        if target is None:
            raise DataError(f"{first.folder / PREDICTIONS}: targets must be classes, numbers or lists of them")
        self.target = target
        groups = values_of(table["group"]) if "group" in table.column_names else None
        blocks = 0 if groups is not None else first.result.blocks
        self.is_series = blocks > 0
        most = min((form.most_groups for form in forms if form.most_groups), default=None)
        self.groups = groups_of(len(self.ids), groups, blocks, most=most)
        self.are_random = groups is None and not blocks and int(self.groups.max()) + 1 < len(self.ids)
        self.unit = "groups" if groups is not None else f"blocks of {len(self.ids) // blocks} neighbors" if blocks else ""

    def __len__(self) -> int:
        return len(self.ids)

    def values(self, run: Run, metrics: Sequence[str], *, baseline: bool = False) -> dict[str, Values] | None:
        """Return metrics of a run.

        Args:
            run: A run on the same test samples.
            metrics: Names; the first one must be defined, also without any group.
            baseline: Of the trivial baseline in the table of the run; None where it has none.

        Raises:
            ConfigError: It was tested on other samples, or lacks a metric.
            DataError: Its predictions cannot be read, or do not give the metric in its result.
        """
        forms = {metric: self.form(run, metric) for metric in metrics}
        if baseline:  # which lacks columns of models, such as scores and the width of intervals
            told = run.result.baseline[1]
            forms = {metric: form for metric, form in forms.items() if "column" not in form.options or metric in told}
        if metrics[0] not in forms:
            return None
        table = _read(run, needed([*forms.values()]), baseline=baseline)
        order = self._order(table, run)
        columns = self.columns.of(table, [*forms.values()], run.folder / PREDICTIONS, order, baseline=baseline)
        if columns is None:
            return None
        if not _equal(columns.get("target"), self.target):
            raise ConfigError(f"compare: {run.folder} has other targets than {self.first.folder} for the same test samples")
        found = {}
        for metric, form in forms.items():
            try:
                value, deleted = form.values(columns, self.groups)
            except KeyError as error:
                raise DataError(f"{run.folder / PREDICTIONS}: has no column {error}, which {metric} requires") from None
            except (ValueError, TypeError) as error:
                raise DataError(f"{run.folder / PREDICTIONS}: does not give {metric}: {error}") from None
            told = run.result.baseline[1].get(metric) if baseline else run.result.metrics.get(metric)
            if told is not None and not np.isclose(value, told, rtol=form.tolerance, atol=1e-9, equal_nan=True):
                raise DataError(f"{run.folder / PREDICTIONS}: gives {metric} {value:.6g}. {run.folder} says {told:.6g}")
            if metric == metrics[0] and not (np.isfinite(deleted).all() and np.isfinite(value)):
                if baseline:
                    return None
                raise ConfigError(f"compare: {metric} of {run.folder} is undefined, or is without some of the test samples")
            found[metric] = Values(value, deleted, form.losses(columns) if self.is_series else None, form.each(columns))
        return found

    def form(self, run: Run, metric: str) -> Form:
        """Return how a metric of a run follows from its predictions.

        Raises:
            ConfigError: It does not.
            DataError: The result of the run is damaged.
        """
        forms = run.result.forms
        if forms and metric not in forms:
            forms = {**_registered(), **forms}
        if metric not in forms:
            known = (
                f"Choose from: {', '.join(run.result.forms)}"
                if forms
                else "It was trained by an earlier version: train it again"
            )
            raise ConfigError(f"compare: no metric '{metric}' follows from the predictions of {run.folder}. {known}")
        try:
            return form_of(forms[metric], self.columns)
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{run.folder}: its result is damaged: {error}") from None

    def _order(self, table: Any, run: Run) -> np.ndarray:
        """Return the rows of a table in the order of the first run."""
        ids = _ids(table, run)
        if len(ids) == len(self.ids) and (ids == self.ids).all():
            return np.arange(len(ids))
        mine, theirs = np.argsort(self.ids, kind="stable"), np.argsort(ids, kind="stable")
        if len(ids) != len(self.ids) or not (ids[theirs] == self.ids[mine]).all():
            only = len(np.setdiff1d(ids, self.ids)), len(np.setdiff1d(self.ids, ids))
            raise ConfigError(
                f"compare: {run.folder} was tested on other samples than {self.first.folder}: "
                f"{only[0]:,} are only in the first, {only[1]:,} only in the second"
            )
        order = np.empty(len(ids), dtype=np.int64)
        order[mine] = theirs
        return order


def shown_predictions(run: Run, ids: np.ndarray) -> list[tuple[str, str]] | None:
    """Return target and prediction of test samples as text; None where they are not single words or numbers."""
    import pyarrow
    import pyarrow.compute as arrow

    table = _read(run, ("target", "prediction"))
    if not {"target", "prediction"} <= set(table.column_names):
        return None
    wanted = pyarrow.array(ids.tolist(), type=table["id"].type)
    place = arrow.index_in(  # type: ignore[attr-defined]
        wanted, value_set=table["id"].combine_chunks()
    )
    rows = table.take(place).select(["target", "prediction"]).to_pylist()
    return [(_shown(row["target"]), _shown(row["prediction"])) for row in rows]


def _shown(value: Any) -> str:
    """Write a target or a prediction, in at most 60 letters."""
    values = value if isinstance(value, list) else [value]
    text = ", ".join(f"{item:.5g}" if isinstance(item, float) else str(item) for item in values)
    return text if len(text) <= 60 else f"{text[:59]}…"


def estimate(table: Any, options: Mapping[str, Any], *, value: float, read: Metric, blocks: int = 0) -> Estimate:
    """Return a metric of a run with its interval over test samples: that of a comparison of runs with one seed.

    Args:
        table: Arrow table of its predictions.
        options: Form of the metric, as a result has it.
        value: The metric.
        read: How it is read.
        blocks: Number of blocks of neighbors that depend on each other; 0 for none.

    Returns:
        The metric, with NaN bounds where it is undefined without some of the samples, or for a single group.
    """
    columns = Columns()
    form = form_of(options, columns)
    groups = values_of(table["group"]) if "group" in table.column_names else None
    numbers = groups_of(len(table), groups, 0 if groups is not None else blocks, most=form.most_groups)
    found = columns.of(table, [form], Path(PREDICTIONS))
    try:
        _, deleted = form.values(found or {}, numbers)
        own = scores([value], [deleted])
    except ValueError:  # such as NaN among the predictions of a network that has diverged
        return Estimate(value, math.nan, math.nan)
    mean = mean_of(own, low=read.low, high=read.high, is_proportion=form.is_proportion)
    return Estimate(value, mean.low, mean.high)


def form_of(options: Mapping[str, Any], columns: Columns) -> Form:
    """Return a form from what a result says of it.

    Raises:
        KeyError: It has no name.
        ValueError: There is none of that name.
    """
    own = dict(options)
    name = own.pop("form")
    if "positive" in own:
        own["positive"] = columns.words.setdefault(own["positive"], len(columns.words))
    return Form(name, own)


@functools.cache
def _registered() -> dict[str, dict[str, Any]]:
    """Return the forms of registered metrics, with their defaults: each follows from any predictions with its columns."""
    plugins.discover()
    found = {}
    for entry in GROUPS["metric"]:
        if form := entry.facts["form"]:
            found[entry.name] = {"form": form, **{name: p.default for name, p in entry.parameters.items()}}
    return found


def declared(run: Run, metric: str) -> Metric:
    """Return how a metric of a run is read, also of one that it has not computed."""
    if metric not in run.result.declared and metric in _registered():
        facts = GROUPS["metric"].get(metric).facts
        return Metric(**{name: facts[name] for name in ("better", "low", "high", "unit")})
    return run.result.metric(metric)


def _read(run: Run, wanted: Iterable[str], *, baseline: bool = False) -> Any:
    """Return the columns of a table of predictions that are needed, and ids and groups; words as dictionaries."""
    import pyarrow
    import pyarrow.parquet

    path = run.folder / PREDICTIONS
    wanted = {"id", "group", *wanted}
    try:
        with opened(path, inside=run.folder) as file:
            source = pyarrow.parquet.ParquetFile(file)
            schema = source.schema_arrow
            names = [name for name in schema.names if name in wanted or (baseline and name.startswith(BASELINE))]
            words = [field.name for field in schema if pyarrow.types.is_string(field.type) and field.name != "id"]
            size = sum(source.metadata.row_group(i).total_byte_size for i in range(source.metadata.num_row_groups))
            if size > LARGEST:
                raise DataError(f"{path}: must unpack to at most {LARGEST:,} bytes. Received: {size:,}")
            return pyarrow.parquet.ParquetFile(file, read_dictionary=words).read(names)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None


def _ids(table: Any, run: Run) -> np.ndarray:
    """Return the ids of the test samples as text or integers.

    Raises:
        DataError: There are none, or one is there twice.
    """
    if "id" not in table.column_names or not len(table):
        raise DataError(f"{run.folder / PREDICTIONS}: has no ids of test samples")
    ids = values_of(table["id"])
    if repeated := len(ids) - len(np.unique(ids)):
        raise DataError(f"{run.folder / PREDICTIONS}: {repeated:,} ids of test samples are there twice")
    return ids


def _equal(one: Any, other: np.ndarray | Ragged) -> bool:
    if isinstance(other, Ragged):
        return isinstance(one, Ragged) and np.array_equal(one.offsets, other.offsets) and _equal(one.values, other.values)
    if one is None or isinstance(one, Ragged) or one.shape != other.shape:
        return False
    return bool((one == other).all()) if one.dtype.kind in "iub" else bool(np.allclose(one, other, rtol=1e-9, equal_nan=True))
