"""Measurements, each against what one would use otherwise, in turn and in one process tree."""
