"""Studies: grids, searches, and what continues, shares and shows them."""
