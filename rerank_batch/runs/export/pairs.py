"""Pairs of a query and a document as Parquet, a row each."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rerank_batch.schema import TableRow

_QUERIES_PER_ROW_GROUP = 2_000
_PAIRS = pa.schema(
    [
        ("query_id", pa.string()),
        ("query", pa.string()),
        ("doc_id", pa.string()),
        ("rank", pa.int32()),
        ("score", pa.float32()),
    ]
)


def write_pairs(rows: Iterator[TableRow], out: Path) -> int:
    """Write the rankings of queries and return the number of pairs."""
    count = 0
    with pq.ParquetWriter(out, _PAIRS, compression="zstd") as writer:
        while some := list(islice(rows, _QUERIES_PER_ROW_GROUP)):
            pairs = [
                {"query_id": row["query_id"], "query": row["query"], **hit}
                for row in some
                for hit in row["ranking"]
            ]
            writer.write_table(pa.Table.from_pylist(pairs, schema=_PAIRS))
            count += len(pairs)
    return count
