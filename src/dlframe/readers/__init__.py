"""Readers from files to columns."""
