"""Intervals and calibration of arrays. Imports neither torch nor the rest of dlframe."""
