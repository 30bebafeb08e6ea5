"""The query log: its rows from every format it may have, each good or with a reason why not."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from rerank_batch.config import QueriesConfig
from rerank_batch.data.lines import read_jsonl
from rerank_batch.data.log_columns import TIME, log_columns, named_columns
from rerank_batch.data.parquet import ParquetTable, first_of
from rerank_batch.data.query_text import as_read, match_keys
from rerank_batch.data.topics import detect_format, read_topics, read_tsv
from rerank_batch.data.values import as_ids, as_strings, json_id, json_text
from rerank_batch.errors import InputError
from rerank_batch.remarks import Remark
from rerank_batch.storage import InputFile, input_files
from rerank_batch.storage.layouts import SUFFIXES as LAYOUT_SUFFIXES

SUFFIXES = LAYOUT_SUFFIXES["queries"]
_IDS, _TEXTS = ("query_id", "_id", "id"), ("query", "text")
_JSON_IDS, _JSON_TEXTS = ("_id", "query_id", "id"), ("text", "query")


_WITHOUT = {"ts": pa.scalar(None, TIME), "bad_time": pa.scalar(False), "weight": pa.scalar(1.0)}
"""What the rows of a log have that has no such column."""


def log_format(config: QueriesConfig) -> str:
    """What the log is written in: parquet, beir, trec-topics or tsv."""
    return _format(config, input_files(config.path, SUFFIXES, "queries")[0])


def log_batches(
    config: QueriesConfig,
    more: Mapping[str, str] | None = None,
    remarks: list[Remark] | None = None,
) -> Iterator[pa.RecordBatch]:
    """The rows that pass the filter: query_id and query as they are, and where there are, ts (with
    bad_time) and weight.

    ``more`` are further columns of a Parquet log, new name: name there. When all is read,
    ``remarks`` has what looks wrong about the columns.
    """
    files = input_files(config.path, SUFFIXES, "queries")
    format = _format(config, files[0])
    if format != "parquet":
        yield from _text_batches(config, files, format)
        return
    table = ParquetTable(config.path, "queries")
    read = {
        "query_id": table.column(config.id, *_IDS) or "",
        "query": table.column(config.text, *_TEXTS) or "",
    }
    further = {new: table.column(name, required=False) or "" for new, name in (more or {}).items()}
    found = log_columns(table, config)
    columns = {**read, **found.columns, **further}
    for batch in table.batches(columns, config.filter, found.absent):
        yield found.converted(batch)
    if remarks is not None:
        remarks.extend((*table.remarks, *found.remarks))


def _text_batches(
    config: QueriesConfig, files: Sequence[InputFile], format: str
) -> Iterator[pa.RecordBatch]:
    if config.filter:
        raise InputError(f"queries: filter works on Parquet logs, not on {format}")
    missing = dict(named_columns(config).columns)
    for file in files:
        beir = format == "beir"
        batch = _read_beir(file, config) if beir else _read_text(file, config, format)
        empty = {name for name in missing if batch.column(name).null_count == batch.num_rows}
        missing = {name: key for name, key in missing.items() if name in empty}
        yield batch
    if missing:
        keys = " and no ".join(map(repr, missing.values()))
        raise InputError(f"queries: no line of {config.path} has {keys}, which is named")


def _format(config: QueriesConfig, file: InputFile) -> str:
    if config.format != "auto":
        return config.format
    return {"parquet": "parquet", "jsonl": "beir"}.get(file.kind) or detect_format(file)


def _read_beir(file: InputFile, config: QueriesConfig) -> pa.RecordBatch:
    id_key, text_key = config.id or "", config.text or ""
    ids: list[bytes | None] = []
    texts: list[bytes | None] = []
    named = named_columns(config)
    more: dict[str, list[Any]] = {name: [] for name in named.columns}
    for number, row in enumerate(read_jsonl(file, "queries"), start=1):
        id_key = id_key or first_of(_JSON_IDS, row)
        text_key = text_key or first_of(_JSON_TEXTS, row)
        if id_key not in row or text_key not in row:
            raise InputError(
                f"queries: {file} query {number} lacks {id_key!r} or {text_key!r}; "
                f"it has {', '.join(map(repr, row))}"
            )
        try:
            key = id_key
            ids.append(json_id(row[key]))
            key = text_key
            texts.append(json_text(row[key]))
        except ValueError as error:
            raise InputError(f"queries: {file} query {number}: {key!r} {error}") from None
        for name, column in named.columns.items():
            more[name].append(row.get(column))
    return named.converted(named.added(_batch(ids, texts), more, str(file)))


def _read_text(file: InputFile, config: QueriesConfig, format: str) -> pa.RecordBatch:
    topics = format == "trec-topics"
    if config.id or (config.text and not topics):
        settings = "queries.id" if topics else "queries.id and queries.text"
        raise InputError(f"queries: {format} has its place for them; leave out {settings}")
    if named_columns(config).columns:
        raise InputError(
            f"queries: {format} has no times and no weights; leave out queries.time and "
            "queries.weight"
        )
    rows = list(read_topics(file, config.text) if topics else read_tsv(file))
    return _batch([row[0] for row in rows], [row[1] for row in rows])


def _batch(ids: Sequence[bytes | None], texts: Sequence[bytes | None]) -> pa.RecordBatch:
    columns = {"query_id": pa.array(ids, pa.binary()), "query": pa.array(texts, pa.binary())}
    return pa.RecordBatch.from_pydict(columns)


def check_rows(
    batch: pa.RecordBatch, max_chars: int, first_row: int
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Good rows with their text and matching key, and bad rows with a reason each.

    ``row`` of the good ones counts from ``first_row``.
    """
    ids, bad_ids = as_ids(batch.column("query_id"), "queries: ids")
    raw, bad_texts = as_strings(batch.column("query"), "queries: texts")
    texts, cut = as_read(raw, max_chars)
    frame = pl.DataFrame(
        {
            "query_id": pl.from_arrow(ids),
            "query": pl.from_arrow(texts),
            "key": pl.from_arrow(match_keys(texts)),
            "cut": pl.from_arrow(cut),
            "bad_id": pl.from_arrow(bad_ids),
            "bad_text": pl.from_arrow(bad_texts),
            "raw_empty": pl.from_arrow(pc.equal(raw, "")),
            **{name: _column(batch, name) for name in _WITHOUT},
        }
    ).with_columns(row=pl.int_range(first_row, first_row + batch.num_rows, dtype=pl.Int64))
    reason = (
        pl.when(pl.col("bad_id"))
        .then(pl.lit("invalid_query_id"))
        .when(pl.col("query_id").is_null() | (pl.col("query_id") == ""))
        .then(pl.lit("missing_query_id"))
        .when(pl.col("bad_text"))
        .then(pl.lit("invalid_utf8"))
        .when(pl.col("query").is_null())
        .then(pl.lit("null_query"))
        .when(pl.col("raw_empty"))
        .then(pl.lit("empty_query"))
        .when(pl.col("query") == "")
        .then(pl.lit("blank_query"))
        .when(pl.col("weight").is_null() | ~pl.col("weight").is_finite() | (pl.col("weight") <= 0))
        .then(pl.lit("bad_weight"))
        .when(pl.col("bad_time"))
        .then(pl.lit("bad_time"))
    )
    frame = frame.with_columns(reason=reason)
    good = frame.filter(pl.col("reason").is_null()).with_columns(rows=pl.lit(1, pl.Int64))
    one = pl.lit(1, pl.Int64).alias("rows")
    bad = frame.filter(pl.col("reason").is_not_null()).select("query_id", "reason", one, "query")
    return good, bad


def _column(batch: pa.RecordBatch, name: str) -> pl.Series:
    if name in batch.schema.names:
        return pl.Series(pl.from_arrow(batch.column(name)))
    return pl.Series(pl.from_arrow(pa.repeat(_WITHOUT[name], batch.num_rows)))
