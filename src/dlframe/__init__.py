"""dlframe: config-driven deep-learning training with a plugin registry."""

__version__ = "0.1.0"
