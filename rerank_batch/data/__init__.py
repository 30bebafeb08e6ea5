"""What others wrote: logs, corpora, judgements, runs; how it is read."""
