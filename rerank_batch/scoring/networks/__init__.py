"""The forward pass of a transformer, with one file for each architecture."""
