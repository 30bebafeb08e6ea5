"""Reranking over HTTP: one careful client, what calls cost, and the cap on it."""
