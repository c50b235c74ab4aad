"""Metrics of a task, beyond those of torchmetrics."""
