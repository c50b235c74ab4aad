"""Training and evaluation with Lightning's Trainer."""
