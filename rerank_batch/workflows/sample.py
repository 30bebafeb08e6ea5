"""Write the sample: a real collection from the documentation of installed packages."""

from pathlib import Path

from rerank_batch.sample import write_sample
from rerank_batch.schema import JsonObject


def sample(out: Path, docs: int, queries: int, seed: int, test_share: float) -> JsonObject:
    """Write corpus, query log, judgements and clicks under ``out`` and return the summary."""
    written = write_sample(out, docs=docs, queries=queries, seed=seed, test_share=test_share)
    return {"out": str(out), **vars(written)}
