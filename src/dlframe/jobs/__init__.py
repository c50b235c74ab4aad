"""What a command runs: one training, a grid, a verification."""
