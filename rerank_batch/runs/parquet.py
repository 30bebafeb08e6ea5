"""Parquet files of runs: published whole, and read back with their checksums."""

import os
import tempfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rerank_batch import schema
from rerank_batch.errors import (
    StorageError,
)
from rerank_batch.runs.objects import plan_key, run_key
from rerank_batch.storage import DataFile, Root

_WRITER = {"compression": "zstd", "use_dictionary": False, "write_page_checksum": True}


def publish_parquet(
    root: Root, prefix: str, key: str, table: pa.Table | Iterable[pa.Table]
) -> DataFile:
    """Write a table, or at least one after the other, to a local file, publish it, and return what
    was stored.

    Raises:
        StorageError: the local disk or the root cannot be written.
    """
    handle, name = tempfile.mkstemp(suffix=".parquet")
    os.close(handle)
    local = Path(name)
    try:
        parts = iter([table] if isinstance(table, pa.Table) else table)
        first = next(parts)
        rows = 0
        with pq.ParquetWriter(local, first.schema, **_WRITER) as writer:
            for part in chain([first], parts):
                writer.write_table(part)
                rows += part.num_rows
        stored = root.publish(prefix + key, local)
    except OSError as error:
        raise StorageError(f"cannot write {key} to the local disk: {error}") from None
    finally:
        local.unlink(missing_ok=True)
    return DataFile(key, stored.bytes, stored.sha256, rows)


def parse_parquet(raw: bytes, where: str) -> pa.Table:
    """A Parquet file's table; `StorageError` where it is damaged."""
    try:
        return pq.read_table(pa.BufferReader(raw), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(f"{where} is damaged: {error}") from None


def read_block(root: Root, run_id: str, number: int, expected: pa.Schema = schema.PLAN) -> pa.Table:
    """A block of a run's plan; one that says more of a query than `schema.PLAN` is ``expected``."""
    key = run_key(run_id, plan_key(number))
    raw = root.read(key)
    if raw is None:
        raise StorageError(f"{key} is missing")
    return schema.check(parse_parquet(raw, key), expected, key)
