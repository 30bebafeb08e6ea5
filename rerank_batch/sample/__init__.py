"""A real test collection without a download: the documentation of the installed packages.

The first paragraph of a docstring asks, the rest of it answers.
"""

from rerank_batch.sample.folder import SampleSummary, harvest_docstrings, write_sample

__all__ = ["SampleSummary", "harvest_docstrings", "write_sample"]
