"""Metrics beside those of a task, by name."""
