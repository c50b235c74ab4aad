"""Optimizers: torch's own and others'."""
