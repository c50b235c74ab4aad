"""Lightning callbacks by name."""
