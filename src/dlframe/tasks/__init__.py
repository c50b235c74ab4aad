"""Tasks, one file per kind; base.py has the base class."""
