"""The rows of a run for serving: one for each key, in the order of keys, some at a time."""

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rerank_batch.data.query_text import match_keys
from rerank_batch.runs import Run
from rerank_batch.storage import open_file

KEY = "key"

SCHEMA = pa.schema(
    [
        pa.field(KEY, pa.string(), nullable=False),
        pa.field("query", pa.string(), nullable=False),
        pa.field("query_ids", pa.list_(pa.string()), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("doc_ids", pa.list_(pa.string()), nullable=False),
        pa.field("scores", pa.list_(pa.float32()), nullable=False),
    ]
)

READ = ["query_id", "query_ids", "query", "weight", "results"]

ROWS_IN_MEMORY = 500_000


class ServingRows:
    """The rows of a run in the order of their keys, some at a time.

    The keys alone are sorted first; the run is then read once and cut at every so many of them.
    """

    def __init__(self, run: Run, folder: Path, rows: int) -> None:
        self.merged = 0
        self._paths = run.results_paths()
        self._folder = folder
        keys = pl.concat([pl.Series(KEY, [], pl.String), *self._all_keys()]).sort()
        self._bounds: list[str] = keys.gather(np.arange(rows, len(keys), rows)).to_list()

    def __iter__(self) -> Iterator[pa.Table]:
        if not self._bounds:
            yield self._sorted(pa.concat_tables([_EMPTY, *map(_read, self._paths)]))
            return
        self._cut()
        for number in range(len(self._bounds) + 1):
            with pa.memory_map(str(self._part(number))) as source:
                yield self._sorted(pa.ipc.open_stream(source).read_all())

    def _all_keys(self) -> Iterator[pl.Series]:
        for path in self._paths:
            with open_file(path) as source:
                queries = pq.read_table(source, columns=["query"]).column("query")
            yield pl.Series(KEY, pl.from_arrow(match_keys(queries.combine_chunks())))

    def _cut(self) -> None:
        """A file for each part; a key lies in one of them, whatever its rows."""
        writers = [
            pa.ipc.new_stream(str(self._part(number)), _EMPTY.schema)
            for number in range(len(self._bounds) + 1)
        ]
        try:
            for path in self._paths:
                table = _read(path)
                places = np.array(
                    [bisect_right(self._bounds, key) for key in table.column(KEY).to_pylist()]
                )
                for number in np.unique(places):
                    writers[number].write_table(table.filter(pa.array(places == number)))
        finally:
            for writer in writers:
                writer.close()

    def _part(self, number: int) -> Path:
        return self._folder / f"{number}.arrow"

    def _sorted(self, table: pa.Table) -> pa.Table:
        """Of rows with one key the heaviest stays, of equal ones that with the smallest id."""
        rows = table.sort_by(
            [(KEY, "ascending"), ("weight", "descending"), ("query_id", "ascending")]
        )
        keys = rows.column(KEY).combine_chunks()
        if len(keys) > 1:
            first = pc.not_equal(keys[1:], keys[:-1])
            kept = rows.filter(pa.chunked_array([pa.array([True]), first]))
            self.merged += rows.num_rows - kept.num_rows
            rows = kept
        return rows.select(SCHEMA.names).cast(SCHEMA)


def _read(path: str) -> pa.Table:
    with open_file(path) as source:
        return serving_rows(pq.read_table(source, columns=READ))


def serving_rows(table: pa.Table) -> pa.Table:
    """The columns `READ` of a run as `SCHEMA` and query_id, in the order of the run."""
    listed = table.column("results").combine_chunks()
    hits = listed.flatten()
    offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(listed).to_numpy())])
    offsets = pa.array(offsets, pa.int32())
    return pa.table(
        {
            "query_id": table.column("query_id"),
            KEY: match_keys(table.column("query").combine_chunks()),
            "query": table.column("query"),
            "query_ids": table.column("query_ids"),
            "weight": table.column("weight"),
            "doc_ids": pa.ListArray.from_arrays(offsets, pc.struct_field(hits, "doc_id")),
            "scores": pa.ListArray.from_arrays(offsets, pc.struct_field(hits, "score")),
        },
        schema=_EMPTY.schema,
    )


_EMPTY = pa.schema(
    [pa.field("query_id", pa.string()), *(field.with_nullable(True) for field in SCHEMA)]
).empty_table()
