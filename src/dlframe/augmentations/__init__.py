"""Augmentations of training batches, drawn per sample, on the device."""
