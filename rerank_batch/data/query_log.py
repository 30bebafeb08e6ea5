"""The plan: a raw query log in, one row per distinct query out, and a reason for everything else.

Every log row ends in exactly one place: merged into a planned query (its weight counts), in the
rejects with a reason code, or counted as left out where ``queries.head`` cuts the tail off. Knows
nothing of models, indexes or Ray.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rerank_batch import schema
from rerank_batch.config import HeadConfig, QueriesConfig
from rerank_batch.data.lines import read_jsonl
from rerank_batch.data.log_columns import TIME, log_columns, named_columns
from rerank_batch.data.parquet import ParquetTable, first_of
from rerank_batch.data.topics import detect_format, read_topics, read_tsv
from rerank_batch.data.values import as_ids, as_strings, json_id, json_text
from rerank_batch.errors import InputError
from rerank_batch.remarks import Remark
from rerank_batch.storage import InputFile, input_files
from rerank_batch.storage.layouts import SUFFIXES as LAYOUT_SUFFIXES

SUFFIXES = LAYOUT_SUFFIXES["queries"]
_IDS, _TEXTS = ("query_id", "_id", "id"), ("query", "text")
_JSON_IDS, _JSON_TEXTS = ("_id", "query_id", "id"), ("text", "query")

QUERY_CUT = "query_cut"
"""Flag of a query longer than ``queries.max_chars``, of which only the beginning is used."""

_COMPACT_ROWS = 2_000_000
_HASH_ROWS = 1_000_000
_SPACES = r"[\s\v\x{85}\p{Z}]+"
_WITHOUT = {"ts": pa.scalar(None, TIME), "bad_time": pa.scalar(False), "weight": pa.scalar(1.0)}
"""What the rows of a log have that has no such column."""


@dataclass(frozen=True)
class LeftOut:
    """What a cut-off left out: distinct queries, the log rows they stand for, their weight."""

    queries: int = 0
    rows: int = 0
    weight: float = 0.0


@dataclass(frozen=True)
class Plan:
    """Planned queries, numbered by ``qidx`` from 0 in the order of their ids (of their texts where
    equal ones are not merged), the rejects, and what looks wrong about the log."""

    queries: pa.Table  # schema.PLAN
    rejects: pa.Table  # schema.REJECTS
    log_rows: int
    left_out: LeftOut = LeftOut()
    remarks: tuple[Remark, ...] = ()

    def reject_counts(self) -> dict[str, int]:
        """Log rows rejected, by reason."""
        counts: dict[str, int] = {}
        for row in self.rejects.to_pylist():
            counts[row["reason"]] = counts.get(row["reason"], 0) + row["rows"]
        return dict(sorted(counts.items()))

    def fingerprint(self) -> str:
        """sha256 over what is planned, so that a resume never mixes two plans of one log."""
        checksum = hashlib.sha256()
        for start in range(0, self.queries.num_rows, _HASH_ROWS):
            sink = pa.BufferOutputStream()
            pq.write_table(self.queries.slice(start, _HASH_ROWS), sink, compression="none")
            checksum.update(sink.getvalue())
        return checksum.hexdigest()


def make_plan(config: QueriesConfig, judged: Collection[str] | None = None) -> Plan:
    """Read the log and plan it; with ``judged_only`` only queries whose id is in ``judged``.

    Raises:
        InputError: unreadable log, wrong columns, ids that stand for several queries, or nothing
            left to do.
    """
    kept, rejected = pl.DataFrame(), pl.DataFrame()
    log_rows = 0
    remarks: list[Remark] = []
    for batch in log_batches(config, remarks=remarks):
        good, bad = check_rows(batch, config.max_chars, first_row=log_rows)
        log_rows += batch.num_rows
        kept = pl.concat([kept, _compact(good)]) if len(kept) else _compact(good)
        rejected = pl.concat([rejected, bad]) if len(rejected) else bad
        if len(kept) > _COMPACT_ROWS:
            kept = _compact(kept)
    if log_rows == 0:
        raise InputError(f"queries: no row of {config.path} passes the filter")
    kept, repeated = _resolve_repeated_ids(_compact(kept), config)
    rejected = pl.concat([rejected, repeated]) if len(rejected) else repeated
    queries, left_out = _head(_merge(kept, config.dedupe), config.head)
    if config.judged_only:
        queries = _only_judged(queries, judged or ())
        rejected = rejected.filter(pl.col("query_id").is_in(list(judged or ())))
    if queries.is_empty():
        reasons = ", ".join(sorted(set(rejected["reason"]))) if len(rejected) else "not judged"
        reasons = "all left out by queries.head" if left_out.queries else reasons
        raise InputError(f"queries: none of {config.path} can be used ({reasons})")
    rejects = _reject_table(rejected, config.keep_rejected_texts)
    return Plan(_number(queries, config.dedupe), rejects, log_rows, left_out, tuple(remarks))


def normalise(texts: pa.Array) -> pa.Array:
    """Queries as models read them: Unicode NFKC, runs of white space as one blank, trimmed."""
    folded = pc.utf8_normalize(texts, form="NFKC")
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(folded, _SPACES, " "))


def as_read(texts: pa.Array, max_chars: int) -> tuple[pa.Array, pa.Array]:
    """Queries normalised and cut at ``max_chars``, and which were cut; two whose lower case is the
    same are one query wherever texts are compared."""
    whole = normalise(texts)
    cut = pc.greater(pc.utf8_length(whole), max_chars)
    return pc.utf8_trim_whitespace(pc.utf8_slice_codeunits(whole, 0, max_chars)), cut


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
            "key": pl.from_arrow(pc.utf8_lower(texts)),
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


def _compact(rows: pl.DataFrame) -> pl.DataFrame:
    """One row per (id, text); sums and extremes, so that compacting again changes nothing."""
    return (
        rows.sort("row")
        .group_by("query_id", "key", maintain_order=True)
        .agg(
            pl.col("query").max(),  # of two spellings the one in lower case, in any row order
            pl.col("cut").any(),
            pl.col("row").first(),
            pl.col("rows").sum(),
            pl.col("weight").sum(),
            first_seen=pl.col("first_seen" if "first_seen" in rows.columns else "ts").min(),
            last_seen=pl.col("last_seen" if "last_seen" in rows.columns else "ts").max(),
        )
    )


def _resolve_repeated_ids(
    kept: pl.DataFrame, config: QueriesConfig
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """An id may repeat for the same text (a log); for different texts it names two queries.

    Returns what stays, and as rejects what ``duplicates: first`` leaves out.
    """
    texts_per_id = pl.len().over("query_id")
    conflict = texts_per_id > 1 if config.dedupe else (texts_per_id > 1) | (pl.col("rows") > 1)
    if config.duplicates == "first":
        first = pl.col("row") == pl.col("row").min().over("query_id")
        reason = pl.lit("repeated_query_id").alias("reason")
        return kept.filter(first), kept.filter(~first).select("query_id", reason, "rows", "query")
    repeated = kept.filter(conflict)["query_id"].unique(maintain_order=True)
    if len(repeated):
        several = "with different texts" if config.dedupe else "more than once"
        raise InputError(
            f"queries: {len(repeated)} query ids of {config.path} stand {several}, first "
            f"{', '.join(repeated.head(5))}. Mend the log, or set queries.duplicates: first"
        )
    return kept, kept.clear().select("query_id", pl.lit("").alias("reason"), "rows", "query")


def _merge(kept: pl.DataFrame, dedupe: bool) -> pl.DataFrame:
    """Queries with the same text but for case and white space become one, with all their ids.

    The smallest id names it and gives the spelling, so that the order of the log's files and rows
    does not matter.
    """
    ordered = kept.sort("query_id")
    group = ordered.group_by("key" if dedupe else "query_id", maintain_order=True)
    return group.agg(
        *([pl.col("query_id").first()] if dedupe else []),
        query_ids=pl.col("query_id"),
        query=pl.col("query").first(),
        weight=pl.col("weight").sum(),
        rows=pl.col("rows").sum(),
        first_seen=pl.col("first_seen").min(),
        last_seen=pl.col("last_seen").max(),
        cut=pl.col("cut").any(),
    ).sort("query_id")


def _head(queries: pl.DataFrame, head: HeadConfig | None) -> tuple[pl.DataFrame, LeftOut]:
    """The heaviest queries, and what was left out. Never nothing of something but by min_weight."""
    if head is None:
        return queries, LeftOut()
    ordered = queries.sort("weight", "query_id", descending=[True, False])
    weights = ordered["weight"].to_numpy()
    keep = len(weights)
    if head.max_queries is not None:
        keep = min(keep, head.max_queries)
    if head.min_weight is not None:
        keep = min(keep, int((weights >= head.min_weight).sum()))
    if head.share is not None and keep:
        running = weights.cumsum()
        keep = min(keep, int((running < head.share * running[-1]).sum()) + 1)
    rest = ordered.slice(keep)
    left_out = LeftOut(rest.height, int(rest["rows"].sum()), float(rest["weight"].sum()))
    return ordered.head(keep).sort("query_id"), left_out


def _only_judged(queries: pl.DataFrame, judged: Collection[str]) -> pl.DataFrame:
    asked = pl.DataFrame({"query_ids": list(judged)}, schema={"query_ids": pl.String})
    hits = queries.select("query_id", "query_ids").explode("query_ids").join(asked, on="query_ids")
    return queries.filter(pl.col("query_id").is_in(hits["query_id"].implode()))


def _number(queries: pl.DataFrame, dedupe: bool) -> pa.Table:
    """The plan in the order of ids. Where equal texts stay several queries they stand side by side,
    and so in one block, which scores them once."""
    queries = queries.sort("query_id" if dedupe else ("query", "query_id"))
    flags = [[QUERY_CUT] if cut else [] for cut in queries["cut"]]
    numbered = queries.with_row_index(schema.QIDX)
    table = numbered.select(
        pl.col(schema.QIDX).cast(pl.Int64),
        "query_id",
        "query_ids",
        "query",
        "weight",
        "first_seen",
        "last_seen",
    ).to_arrow()
    table = table.append_column(schema.FLAGS, pa.array(flags, pa.list_(pa.string())))
    return table.cast(schema.PLAN)


def _reject_table(rejected: pl.DataFrame, keep_texts: bool) -> pa.Table:
    if rejected.is_empty():
        return schema.REJECTS.empty_table()
    counted = (
        rejected.group_by("query_id", "reason")
        .agg(pl.col("rows").sum(), pl.col("query").min())
        .sort("reason", "query_id")
        .with_columns(
            pl.lit(None, pl.Int64).alias(schema.QIDX),
            pl.col("query") if keep_texts else pl.lit(None, pl.String).alias("query"),
        )
    )
    return counted.select(schema.REJECTS.names).to_arrow().cast(schema.REJECTS)
