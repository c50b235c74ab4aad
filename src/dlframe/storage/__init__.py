"""Local storage: cache, downloads, archives, checkpoints."""
