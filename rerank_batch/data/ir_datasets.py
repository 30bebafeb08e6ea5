"""A dataset of ir_datasets as a folder of Parquet files, written once per node.

The package is an extra, imported when a dataset of it is asked for. Knows its interface; not what
the folder is used for.
"""

import importlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from rerank_batch.errors import ConfigError, InputError, StorageError

PREFIX = "ir_datasets:"

_ROWS = 10_000
# What it raises where a download fails, a format needs one more package, or a row has no text.
_FAILURES = (OSError, RuntimeError, ImportError, AttributeError, ValueError, pa.ArrowException)
_CORPUS = pa.schema([("doc_id", pa.string()), ("title", pa.string()), ("text", pa.string())])
_QUERIES = pa.schema([("query_id", pa.string()), ("query", pa.string())])
_QRELS = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("relevance", pa.int64())])


def copy_dataset(name: str, cache: Path) -> Path:
    """The folder with corpus.parquet, queries.parquet and qrels.parquet of a dataset.

    It holds those that the dataset has, and is made now unless it is there from before.

    The folder belongs to the dataset and the version of the package, so that another version, which
    may read the dataset in another way, does not meet it.

    Raises:
        ConfigError: the package is not installed, or knows no such dataset.
        InputError: the dataset cannot be had or read.
        StorageError: the cache cannot be written.
    """
    try:
        package = importlib.import_module("ir_datasets")
    except ImportError:
        raise ConfigError(
            f"collection: {PREFIX}{name} needs the package ir_datasets: "
            "pip install 'rerank-batch[ir-datasets]'"
        ) from None
    folder = cache / "ir_datasets" / f"{quote(name, safe='')}-{package.__version__}"
    if folder.is_dir():
        return folder
    try:
        dataset = package.load(name)
    except KeyError:
        raise ConfigError(f"collection: ir_datasets knows no dataset {name!r}") from None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    except OSError as error:
        raise StorageError(f"the node cache {cache} cannot be used: {error}") from None
    try:
        _write_all(name, dataset, staged)
        _publish(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


def _write_all(name: str, dataset: Any, folder: Path) -> None:
    parts: dict[str, tuple[str, Callable[[Any], tuple[Any, ...]], pa.Schema]] = {
        "corpus": ("docs_iter", _document, _CORPUS),
        "queries": ("queries_iter", _query, _QUERIES),
        "qrels": ("qrels_iter", _judgement, _QRELS),
    }
    for part, (iterator, row_of, schema) in parts.items():
        if not hasattr(dataset, iterator):
            continue
        try:
            # Asking for the first row makes the package download what it has not got.
            _write(map(row_of, getattr(dataset, iterator)()), schema, folder / f"{part}.parquet")
        except _FAILURES as error:
            cause = f"collection: reading the {part} of {PREFIX}{name} failed"
            raise InputError(f"{cause}: {error}") from error


def _write(rows: Iterable[tuple[Any, ...]], schema: pa.Schema, out: Path) -> None:
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for some in _some(iter(rows)):
            columns = zip(*some, strict=True)
            arrays = [pa.array(c, kind) for c, kind in zip(columns, schema.types, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _some(rows: Iterator[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    while some := list(islice(rows, _ROWS)):
        yield some


def _document(row: Any) -> tuple[str, str, str]:
    """Title and text where it has both, else what the package takes for its text."""
    if hasattr(row, "text"):
        return row.doc_id, getattr(row, "title", ""), row.text
    return row.doc_id, "", row.default_text()


def _query(row: Any) -> tuple[str, str]:
    return row.query_id, row.text if hasattr(row, "text") else row.default_text()


def _judgement(row: Any) -> tuple[str, str, int]:
    return row.query_id, row.doc_id, row.relevance


def _publish(staged: Path, folder: Path) -> None:
    """Show the whole folder at once; that of another process, if it was first, is as good."""
    staged.chmod(0o755)
    try:
        staged.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
