"""Optimizers of torch and timm."""
