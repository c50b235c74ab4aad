"""Arrays in, numbers out: intervals and tests. Knows neither torch nor the rest of dlframe."""
