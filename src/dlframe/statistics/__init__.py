"""Intervals and calibration; imports neither torch nor dlframe."""
