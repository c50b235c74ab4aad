"""Listing and showing components."""
