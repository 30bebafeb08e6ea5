"""What became of queries after retrieval."""
