"""Comparison of training procedures over seeds and test examples; arrays in, numbers out."""
