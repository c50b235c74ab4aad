"""Comparisons of finished runs: read from their folders, without torch."""
