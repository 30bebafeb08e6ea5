"""Where models lie, which weights exactly, and the deltas of small ones."""
