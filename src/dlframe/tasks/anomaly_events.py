"""Anomaly detection in series, with metrics by event."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import nn

from dlframe.registry import Probability, tasks
from dlframe.statistics.metrics.events import composite_f1, event_recall
from dlframe.tasks.anomaly import CLASSES, Anomaly
from dlframe.tasks.base import Scores
from dlframe.types import Batch, ConfigError, Dataset, DataSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@tasks.register(
    "anomaly_events",
    targets=("class", "event"),
    requires=("class", "event"),
    scores=("target", "score", "event"),
    metrics={
        "f1": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "precision": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "recall": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "auroc": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "average_precision": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "event_recall": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "event_f1": {"better": "max", "low": 0.0, "high": 1.0, "unit": "fraction"},
        "loss": {"better": "min"},
    },
    headline="event_f1",
    monitor="loss",
    trained_on="normal",
    extends="anomaly",
    sample={"name": "planted_events"},
)
class AnomalyEvents(Anomaly):
    """Anomaly scores of the steps of a series, from a model of normal windows.

    A sample is a window, whose score is that of its last step. As `anomaly`, and by event: event_recall is the fraction of
    events of which any step is flagged, event_f1 its harmonic mean with the precision of flagged steps (Garg et al. 2021, arXiv
    2109.11428). No step counts as flagged that is not, as by point adjustment.

    Args:
        anomalies: Names of the classes that are anomalies; empty for what the data say.
        quantile: Quantile of the scores of normal validation samples that is the threshold.
        headline: Primary metric.
    """

    def __init__(
        self,
        spec: DataSpec,
        model: nn.Module,
        *,
        anomalies: tuple[str, ...] = (),
        quantile: Probability = 0.999,
        headline: Literal["event_f1", "event_recall", "f1", "precision", "recall", "auroc", "average_precision"] = "event_f1",
    ) -> None:
        super().__init__(spec, model, anomalies=anomalies, quantile=quantile)
        if not spec.of_kind("event", spec.targets):
            raise ConfigError(
                f"task=anomaly_events: needs events, which data={spec.name} does not have. Try: task=anomaly_detection"
            )
        (self.event,) = spec.of_kind("event", spec.targets)

    def score(self, batch: Batch) -> Scores:
        return {**super().score(batch), "event": batch[self.event]}

    def metrics(self, scores: Scores) -> dict[str, float]:
        found = super().metrics(scores)
        if scores["score"].isnan().any():
            return found | dict.fromkeys(EVENTS, math.nan)
        flags, events = self.flagged(scores["score"]).numpy(), scores["event"].numpy()
        return found | {name: statistic(flags, events) for name, statistic in EVENTS.items()}

    def forms(self) -> dict[str, dict[str, Any]]:
        return super().forms() | {name: {"form": name, "positive": CLASSES[1]} for name in EVENTS}

    def baseline(self, dataset: Dataset) -> tuple[str, dict[str, float]]:
        name, found = super().baseline(dataset)
        flags, events = self._random_flags(dataset).numpy(), np.asarray(dataset.test[self.event])
        return name, found | {metric: statistic(flags, events) for metric, statistic in EVENTS.items()}

    def blocks(self, samples: int) -> int:
        """Return up to 20 blocks, none shorter than a window: windows overlap, and events last."""
        window = max(int(field.shape[0] or 1) for field in self.spec.inputs.values())
        return max(2, min(20, samples // max(5, window)))

    def notes(self, scores: Scores) -> list[str]:
        events = len(scores["event"][scores["event"] > 0].unique())
        few = "; an interval from so few means little" if events < 5 else ""
        return [*super().notes(scores), f"{events:,} events in {len(scores['event']):,} steps{few}"]

    def table(self, scores: Scores, split: Any) -> dict[str, list]:
        return {**super().table(scores, split), "event": scores["event"].tolist()}

    def figures(self, scores: Scores, dataset: Dataset) -> dict[str, Figure]:
        """Plot the scores over the series too."""
        from dlframe import plots

        drawn = super().figures(scores, dataset)
        (name, field), *_ = self.spec.inputs.items()
        series = dataset.test[name]
        if not isinstance(series, np.ndarray) or field.kind != "series" or scores["score"].isnan().any():
            return drawn
        score, target = scores["score"].numpy(), scores["target"].numpy()
        unit = field.names[0] if field.names else "value"
        drawn["events"] = plots.event_scores(
            series[:, -1, 0], score, target, self.threshold.item(), title=self.spec.name, unit=unit
        )
        return drawn


EVENTS = {"event_recall": event_recall, "event_f1": composite_f1}
"""Metrics by event, from flags and events."""
