"""The forward passes: which device, which micro-batches, which numbers come out."""
