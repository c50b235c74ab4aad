"""How files become columns."""
