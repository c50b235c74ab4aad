"""Random changes to training batches, drawn per sample, applied on the device."""
