"""Runs that are trained further with other options: what may change, and what their folder says then."""
