"""Figures of a run. Only this folder imports matplotlib."""

from dlframe.plots.anomalies.scores import event_scores, heat_maps, score_histograms, threshold_curve
from dlframe.plots.classification import ReadText, by_class, confusion, operating_points, reliability, words
from dlframe.plots.comparisons import (
    critical_difference,
    differences,
    power_curves,
    right_and_wrong,
    seed_curves,
    seed_values,
    variance_split,
)
from dlframe.plots.curves import by_slice, learning_curve, lr_range, recall
from dlframe.plots.forecasts import forecast, forecast_by_series, horizon, predictions
from dlframe.plots.pictures.detection import ALARM, HIT, IGNORED, MISS, Drawn, detections, drawn, found_by, precision_recall
from dlframe.plots.pictures.images import grid, samples
from dlframe.plots.pictures.lists import UserList, user_lists
from dlframe.plots.spaces import Dimension, importance, parallel_coordinates, slices
from dlframe.plots.speech.transcripts import Heard, error_rates, spectrograms, worst_utterances
from dlframe.plots.studies import intermediate_values, optimization_history, pareto_front
from dlframe.plots.style import save

__all__ = [
    "ALARM",
    "HIT",
    "IGNORED",
    "MISS",
    "Dimension",
    "Drawn",
    "Heard",
    "ReadText",
    "UserList",
    "by_class",
    "by_slice",
    "confusion",
    "critical_difference",
    "detections",
    "differences",
    "drawn",
    "error_rates",
    "event_scores",
    "forecast",
    "forecast_by_series",
    "found_by",
    "grid",
    "heat_maps",
    "horizon",
    "importance",
    "intermediate_values",
    "learning_curve",
    "lr_range",
    "operating_points",
    "optimization_history",
    "parallel_coordinates",
    "pareto_front",
    "power_curves",
    "precision_recall",
    "predictions",
    "recall",
    "reliability",
    "right_and_wrong",
    "samples",
    "save",
    "score_histograms",
    "seed_curves",
    "seed_values",
    "slices",
    "spectrograms",
    "threshold_curve",
    "user_lists",
    "variance_split",
    "words",
    "worst_utterances",
]
