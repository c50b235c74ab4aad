"""Intervals, calibration, Pareto fronts, races over seeds; imports neither torch nor dlframe."""
