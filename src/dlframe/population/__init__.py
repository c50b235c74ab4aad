"""Training of several models of one shape as one stacked model."""
