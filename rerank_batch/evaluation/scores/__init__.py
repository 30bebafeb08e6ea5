"""Scores: their distribution and their calibration."""
