"""Figures of a run. Only this folder imports matplotlib."""

from dlframe.plots.classification import confusion, reliability
from dlframe.plots.curves import learning_curve
from dlframe.plots.forecasts import forecast
from dlframe.plots.images import grid, samples
from dlframe.plots.style import save

__all__ = ["confusion", "forecast", "grid", "learning_curve", "reliability", "samples", "save"]
