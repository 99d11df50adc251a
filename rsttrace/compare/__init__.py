"""Two vantage points of the same connections, compared."""
