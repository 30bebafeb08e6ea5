"""Readers of files that others wrote: logs, corpora, judgements, runs, outcomes."""
