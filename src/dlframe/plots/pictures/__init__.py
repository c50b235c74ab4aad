"""Figures of images, and of what was found in them."""
