"""Samplers: what chooses the next trial of a search."""
