"""A finished run as a serving system wants it: one row for each query key, sorted, found by a look.

The key is the query as it is compared everywhere: NFKC, white space as one blank, in lower case.
The Parquet file is sorted by the bytes of the key and cut into row groups that know their smallest
and largest key, so that a look-up reads one of them. DynamoDB and Redis get the same rows as lines.
"""

import json
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rerank_batch.data.query_text import match_key, match_keys
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.runs import Run
from rerank_batch.storage import open_file

ServingFormat = Literal["serving", "dynamodb", "redis"]

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

ROWS_PER_GROUP = 5_000
ROWS_IN_MEMORY = 500_000
DYNAMODB_KEY_BYTES = 2_048
DYNAMODB_ITEM_BYTES = 400_000
"""Limits of DynamoDB: a partition key, and an item with the names of its attributes."""

_RUN = b"rerank_batch.run"
_READ = ["query_id", "query_ids", "query", "weight", "results"]


@dataclass(frozen=True)
class Exported:
    """What was written: rows and bytes.

    ``merged`` rows had the key of another, heavier one (without ``queries.dedupe``); ``too_large``
    ones are beyond what the target can hold.
    """

    rows: int
    bytes: int
    merged: int = 0
    too_large: int = 0


def export_serving(
    run: Run,
    format: ServingFormat,
    out: Path,
    prefix: str = "rerank:",
    rows_in_memory: int = ROWS_IN_MEMORY,
    rows_per_group: int = ROWS_PER_GROUP,
) -> Exported:
    """Write every query of a complete run once, by its key.

    ``serving`` is Parquet for `look_up`. ``dynamodb`` writes lines for DynamoDB's import from S3,
    ``redis`` commands for ``redis-cli --pipe``, whose keys begin with ``prefix``. About
    ``rows_in_memory`` rows are held at a time, and the keys of all of them.

    Raises:
        RunConflict: the run is not complete.
        ConfigError: it is a comparison of systems: which of them would be served?
    """
    final = run.finished()
    if run.spec.systems:
        raise ConfigError(f"run {run.run_id} compares systems; export a run of `rerank`")
    out.parent.mkdir(parents=True, exist_ok=True)
    staged = out.with_name(f".{out.name}.part")
    about = {"run_id": run.run_id, "job": run.spec.job, "created": final["created"]}
    try:
        with tempfile.TemporaryDirectory(prefix="serving-", dir=out.parent) as folder:
            parts = _Parts(run, Path(folder), rows_in_memory)
            if format == "serving":
                rows, too_large = _write_parquet(parts, staged, about, rows_per_group), 0
            else:
                write = _dynamodb if format == "dynamodb" else _redis
                rows, too_large = _write_lines(parts, staged, lambda row: write(row, prefix))
        size = staged.stat().st_size
        staged.replace(out)
    finally:
        staged.unlink(missing_ok=True)
    return Exported(rows, size, parts.merged, too_large)


def look_up(uri: str, query: str) -> dict[str, Any] | None:
    """The row of a query in a file that `export_serving` wrote; None where there is none.

    Reads the footer, the keys of a row group, and of that group the other columns where one fits.

    Raises:
        InputError: the file was written by something else.
        StorageError: it cannot be opened.
    """
    key = match_key(query)
    try:
        file = pq.ParquetFile(open_file(uri))
    except pa.ArrowInvalid as error:
        raise InputError(f"{uri} is no Parquet file: {error}") from None
    if _RUN not in (file.schema_arrow.metadata or {}):
        raise InputError(f"{uri} was not written by `runs export --format serving`")
    for group in _groups(file, key):
        keys = file.read_row_group(group, columns=[KEY]).column(KEY)
        place = pc.index(keys, key).as_py()
        if place >= 0:
            row: dict[str, Any] = file.read_row_group(group).slice(place, 1).to_pylist()[0]
            return {**row, **json.loads(file.schema_arrow.metadata[_RUN])}
    return None


def look_up_run(run: Run, query: str) -> dict[str, Any] | None:
    """The same in the results of a run as they are: every file's queries are read."""
    key = match_key(query)
    final = run.finished()
    for uri in run.results_paths():
        with open_file(uri) as source:
            file = pq.ParquetFile(source)
            keys = _keys(file.read(columns=["query"]).column("query"))
            place = pc.index(keys, key).as_py()
            if place >= 0:
                table = file.read(columns=_READ).slice(place, 1)
                (row,) = _serving_rows(table).to_pylist()
                about = {"run_id": run.run_id, "job": run.spec.job, "created": final["created"]}
                return {**{name: row[name] for name in SCHEMA.names}, **about}
    return None


class _Parts:
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
            yield pl.Series(KEY, pl.from_arrow(_keys(queries)))

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
        return _serving_rows(pq.read_table(source, columns=_READ))


def _serving_rows(table: pa.Table) -> pa.Table:
    """`SCHEMA` and query_id, in the order of the run."""
    listed = table.column("results").combine_chunks()
    hits = listed.flatten()
    offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(listed).to_numpy())])
    offsets = pa.array(offsets, pa.int32())
    return pa.table(
        {
            "query_id": table.column("query_id"),
            KEY: _keys(table.column("query")),
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


def _keys(queries: pa.ChunkedArray) -> pa.Array:
    return match_keys(queries.combine_chunks())


def _write_parquet(parts: _Parts, out: Path, about: dict[str, Any], rows_per_group: int) -> int:
    schema = SCHEMA.with_metadata({_RUN: json.dumps(about).encode()})
    rows = 0
    options = {
        "compression": "zstd",
        "write_page_checksum": True,
        "write_page_index": True,
        "sorting_columns": [pq.SortingColumn(0)],
    }
    with pq.ParquetWriter(out, schema, **options) as writer:
        for table in parts:
            writer.write_table(table.replace_schema_metadata(schema.metadata), rows_per_group)
            rows += table.num_rows
    return rows


def _groups(file: pq.ParquetFile, key: str) -> Iterator[int]:
    """Row groups that may hold a key: one, by their statistics; keys of 4 KiB have none."""
    for group in range(file.metadata.num_row_groups):
        found = file.metadata.row_group(group).column(0).statistics
        if found is None or not found.has_min_max or found.min <= key <= found.max:
            yield group


def _write_lines(parts: _Parts, out: Path, line: Any) -> tuple[int, int]:
    rows = too_large = 0
    with out.open("wb") as file:
        for table in parts:
            for batch in table.to_batches(max_chunksize=ROWS_PER_GROUP):
                for row in batch.to_pylist():
                    written = line(row)
                    too_large += written is None
                    rows += written is not None
                    file.write(written or b"")
    return rows, too_large


def _dynamodb(row: dict[str, Any], _: str) -> bytes | None:
    """An item in DynamoDB JSON, a line for its import from S3; None where it holds none."""
    item = {
        KEY: {"S": row[KEY]},
        "query": {"S": row["query"]},
        "doc_ids": {"L": [{"S": name} for name in row["doc_ids"]]},
        "scores": {"L": [{"N": _number(score)} for score in row["scores"]]},
    }
    line = json.dumps({"Item": item}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    # The line is longer than what DynamoDB counts: to be beyond the limit here is to be near it.
    if len(row[KEY].encode()) > DYNAMODB_KEY_BYTES or len(line) > DYNAMODB_ITEM_BYTES:
        return None
    return line


def _redis(row: dict[str, Any], prefix: str) -> bytes:
    """SET of the key to a JSON value, in Redis' own protocol, which no text can break out of."""
    listed = [[name, score] for name, score in zip(row["doc_ids"], row["scores"], strict=True)]
    value = json.dumps({"query": row["query"], "results": listed}, ensure_ascii=False)
    words = (b"SET", (prefix + row[KEY]).encode(), value.encode())
    return b"*3\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def _number(score: float) -> str:
    """All digits of a float32, few enough for DynamoDB."""
    return f"{score:.9g}"
