"""Figures of speech recognition."""
