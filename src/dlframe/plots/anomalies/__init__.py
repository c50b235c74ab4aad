"""Figures of anomaly detection."""
