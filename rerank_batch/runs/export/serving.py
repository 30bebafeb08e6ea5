"""A finished run as a serving system wants it: one row for each query key, sorted, found by a look.

The key is the query as it is compared everywhere: NFKC, white space as one blank, in lower case.
The Parquet file is sorted by the bytes of the key and cut into row groups that know their smallest
and largest key, so that a look-up reads one of them. DynamoDB and Redis get the same rows as lines.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rerank_batch.data.query_text import match_key, match_keys
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.runs import Run
from rerank_batch.runs.export import dynamodb, redis
from rerank_batch.runs.export.rows import (
    KEY,
    READ,
    ROWS_IN_MEMORY,
    SCHEMA,
    ServingRows,
    serving_rows,
)
from rerank_batch.schema import TableRow
from rerank_batch.storage import open_file

ServingFormat = Literal["serving", "dynamodb", "redis"]

ROWS_PER_GROUP = 5_000

_RUN = b"rerank_batch.run"


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
            parts = ServingRows(run, Path(folder), rows_in_memory)
            if format == "serving":
                rows, too_large = _write_parquet(parts, staged, about, rows_per_group), 0
            else:
                line = (
                    dynamodb.item if format == "dynamodb" else partial(redis.command, prefix=prefix)
                )
                rows, too_large = _write_lines(parts, staged, line)
        size = staged.stat().st_size
        staged.replace(out)
    finally:
        staged.unlink(missing_ok=True)
    return Exported(rows, size, parts.merged, too_large)


def look_up(uri: str, query: str) -> TableRow | None:
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
            row: TableRow = file.read_row_group(group).slice(place, 1).to_pylist()[0]
            return {**row, **json.loads(file.schema_arrow.metadata[_RUN])}
    return None


def look_up_run(run: Run, query: str) -> TableRow | None:
    """The same in the results of a run as they are: every file's queries are read."""
    key = match_key(query)
    final = run.finished()
    for uri in run.results_paths():
        with open_file(uri) as source:
            file = pq.ParquetFile(source)
            keys = match_keys(file.read(columns=["query"]).column("query").combine_chunks())
            place = pc.index(keys, key).as_py()
            if place >= 0:
                table = file.read(columns=READ).slice(place, 1)
                (row,) = serving_rows(table).to_pylist()
                about = {"run_id": run.run_id, "job": run.spec.job, "created": final["created"]}
                return {**{name: row[name] for name in SCHEMA.names}, **about}
    return None


def _write_parquet(parts: ServingRows, out: Path, about: TableRow, rows_per_group: int) -> int:
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
        statistics = file.metadata.row_group(group).column(0).statistics
        if (
            statistics is None
            or not statistics.has_min_max
            or statistics.min <= key <= statistics.max
        ):
            yield group


def _write_lines(
    parts: ServingRows, out: Path, line: Callable[[TableRow], bytes | None]
) -> tuple[int, int]:
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
