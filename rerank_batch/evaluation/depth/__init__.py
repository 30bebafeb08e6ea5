"""Results at smaller depths."""
