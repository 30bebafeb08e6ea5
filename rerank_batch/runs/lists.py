"""The lists of a run by the text of their query, so that two runs can be compared."""

from collections.abc import Iterator, Sequence

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rerank_batch.runs import Run
from rerank_batch.score_cache import text_keys
from rerank_batch.storage import open_file


def lists_by_query(run: Run) -> Iterator[tuple[pl.Series, pa.ListArray]]:
    """Read a run file by file: digests of 16 bytes of the queries, and ids of results, best first.

    Raises:
        StorageError: a file cannot be read.
    """
    for uri in run.results_paths():
        with open_file(uri) as file:
            table = pq.read_table(file, columns=["query", "results"])
        listed = table.column("results").combine_chunks()
        ids = pa.ListArray.from_arrays(listed.offsets, listed.values.field("doc_id"))
        yield digests(table.column("query").to_pylist()), ids


def digests(texts: Sequence[str]) -> pl.Series:
    """16 bytes for each text."""
    return pl.Series([key.tobytes() for key in text_keys(texts)], dtype=pl.Binary)
