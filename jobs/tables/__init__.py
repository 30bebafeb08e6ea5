"""Summaries as tables for a terminal."""
