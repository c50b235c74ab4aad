"""Intervals, calibration, Pareto fronts; imports neither torch nor dlframe."""
