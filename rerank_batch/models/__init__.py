"""Files of models: where they lie, the pins of a run, and deltas of small models."""
