"""The click log as counts: impressions and clicks of a query's document at a position.

Every row is either counted or rejected with a reason. Whole numbers are added and nothing else, so
that neither the order of rows nor how they are cut into files changes anything. Memory grows with
the distinct triples of query, document and position, not with the log.
"""

from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from rerank_batch.config import ClicksConfig, QueriesConfig
from rerank_batch.data.parquet import ParquetTable
from rerank_batch.data.plan import make_plan
from rerank_batch.data.query_text import as_read, match_keys
from rerank_batch.data.values import as_ids, as_strings
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.remarks import Remark

SUFFIXES = (".parquet",)

_PENDING_ROWS = 1_000_000
_LAST_POSITION = 2**31 - 1
_MOST_COUNTED = 2**40
_KEYS = ["query", "document", "position"]
_SUMS = ["impressions", "clicks", "rows"]


@dataclass(frozen=True)
class ClickLog:
    """What was read.

    ``counts`` has a row per triple: query (an id), document, position (int64), impressions, clicks
    and rows of the log, in that order. ``rejects``: rows by reason. ``joined_by``: in words.
    ``remarks``: what looks wrong about its columns.
    """

    counts: pl.DataFrame
    rows: int
    rejects: dict[str, int]
    joined_by: str
    remarks: tuple[Remark, ...] = ()


def read_click_log(config: ClicksConfig, queries: QueriesConfig | None) -> ClickLog:
    """Read and add up; ``queries`` is needed where clicks are joined by the text of the query.

    Raises:
        ConfigError: there are texts and no query log to join them with.
        InputError: unreadable log, wrong columns, positions from 0, nothing that can be used, or
            only clicked or only unclicked impressions.
    """
    table = ParquetTable(config.path, "clicks")
    columns, by_text = _columns(table, config)
    if by_text and queries is None:
        raise ConfigError(
            "clicks are joined with the queries by text, and there is no queries.path; give that, "
            "or clicks.id"
        )
    cut = queries.max_chars if by_text and queries else None
    last = len(config.propensity.table) or _LAST_POSITION
    pending: list[pl.DataFrame] = []
    counts = _add_up([])
    rows = zeros = 0
    rejects: dict[str, int] = {}
    for batch in table.batches(columns, config.filter, absent={"count": 1}):
        frame = _validate(batch, cut, last)
        rows += len(frame)
        zeros += int((frame["position"] == 0).sum())
        bad = frame.filter(pl.col("reason").is_not_null())
        for reason, number in bad.group_by("reason").len().iter_rows():
            rejects[reason] = rejects.get(reason, 0) + number
        pending.append(_add_up([frame.filter(pl.col("reason").is_null()).select(_KEYS + _SUMS)]))
        # No sooner than what is added up has doubled: each row is added up a few times in all.
        if sum(map(len, pending)) > max(_PENDING_ROWS, len(counts)):
            counts = _add_up([counts, *pending])
            pending = []
    counts = _add_up([counts, *pending])
    if rows == 0:
        raise InputError(f"clicks: no row of {config.path} passes the filter")
    _refuse_positions_from_zero(config.path, zeros, counts)
    if by_text and queries is not None:
        counts, unknown = _with_ids(counts, queries)
        rejects |= {"query_not_in_log": unknown} if unknown else {}
    _refuse_useless(config.path, rows, counts, rejects)
    joined_by = "text of the query" if by_text else "id of the query"
    rejects = dict(sorted(rejects.items()))
    return ClickLog(counts.sort(_KEYS), rows, rejects, joined_by, table.remarks)


def _columns(table: ParquetTable, config: ClicksConfig) -> tuple[dict[str, str], bool]:
    """New name -> column of the log, and whether the query column holds texts."""
    has_ids = config.id is not None or (config.text is None and "query_id" in table.columns)
    by_id = table.column(config.id, "query_id") if has_ids else None
    columns = {
        "query": by_id or table.column(config.text, "query"),
        "document": table.column(config.document, "doc_id"),
        "position": table.column(config.position, "position"),
        "clicked": table.column(config.clicked, "clicked"),
        "count": table.column(
            config.count, "count", required=False, otherwise="each row of it counts once"
        ),
    }
    return {name: column for name, column in columns.items() if column}, by_id is None


def _validate(batch: pa.RecordBatch, cut: int | None, last: int) -> pl.DataFrame:
    """The rows with a reason where they are wrong; ``cut`` is None where queries are ids."""
    queries, bad_queries = _queries(batch.column("query"), cut)
    documents, bad_documents = as_ids(batch.column("document"), "clicks: document ids")
    counted = "count" in batch.schema.names
    numbers = {
        name: _numbers(batch.column(name), name)
        for name in ("position", "clicked", *(["count"] if counted else []))
    }
    frame = pl.DataFrame(
        {
            "query": pl.from_arrow(queries),
            "document": pl.from_arrow(documents),
            "bad_query": pl.from_arrow(bad_queries),
            "bad_document": pl.from_arrow(bad_documents),
            "no_position": pl.from_arrow(pc.is_null(batch.column("position"))),
            "no_clicked": pl.from_arrow(pc.is_null(batch.column("clicked"))),
            **numbers,
        }
    ).with_columns(count=pl.col("count") if counted else pl.lit(1.0))
    missing, invalid = "missing_query_id", "invalid_query_id"
    if cut is not None:
        missing, invalid = "missing_query", "invalid_utf8"
    refused = {
        invalid: pl.col("bad_query"),
        missing: pl.col("query").is_null() | (pl.col("query") == ""),
        "invalid_doc_id": pl.col("bad_document"),
        "missing_doc_id": pl.col("document").is_null() | (pl.col("document") == ""),
        "null_position": pl.col("no_position"),
        "bad_position": ~_whole("position", 1, _LAST_POSITION),
        "position_beyond_table": pl.col("position") > last,
        "null_clicked": pl.col("no_clicked"),
        "bad_clicked": ~_whole("clicked", 0, 1),
        "bad_count": ~_whole("count", 1, _MOST_COUNTED),
    }
    reason = pl.coalesce(pl.when(wrong).then(pl.lit(reason)) for reason, wrong in refused.items())
    return frame.select(
        "query",
        "document",
        pl.col("position").cast(pl.Int64, strict=False),
        impressions=pl.col("count").cast(pl.Int64, strict=False),
        clicks=(pl.col("clicked") * pl.col("count")).cast(pl.Int64, strict=False),
        rows=pl.lit(1, pl.Int64),
        reason=reason,
    )


def _queries(column: pa.Array, cut: int | None) -> tuple[pa.Array, pa.Array]:
    """Ids, or texts as they are compared; and which are not UTF-8."""
    if cut is None:
        return as_ids(column, "clicks: query ids")
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()  # a query has a row per document shown: normalise once
    texts, bad = as_strings(column.dictionary, "clicks: queries")
    keys = match_keys(as_read(texts, cut)[0])
    return keys.take(column.indices), pc.fill_null(bad.take(column.indices), False)


def _numbers(column: pa.Array, name: str) -> pl.Series:
    """A column as float64, null where a value is no number; only ``clicked`` may be of bools."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        column = as_strings(column, f"clicks: {name}")[0]
    elif not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
        or (pa.types.is_boolean(kind) and name == "clicked")
    ):
        raise InputError(f"clicks: the {name} column holds {kind}, no whole numbers")
    if pa.types.is_decimal(kind):  # Polars knows no wide ones
        column = column.cast(pa.float64(), safe=False)
    return pl.Series(pl.from_arrow(column)).cast(pl.Float64, strict=False)


def _whole(name: str, least: int, most: int) -> pl.Expr:
    """Whether a float64 is a whole number within the bounds; null and NaN are not."""
    value = pl.col(name)
    return (value.is_between(least, most) & (value == value.floor())).fill_null(False)


def _add_up(frames: list[pl.DataFrame]) -> pl.DataFrame:
    empty = pl.DataFrame(
        schema={
            "query": pl.String,
            "document": pl.String,
            **dict.fromkeys(("position", *_SUMS), pl.Int64),
        }
    )
    return pl.concat([empty, *frames]).group_by(_KEYS).agg(pl.col(_SUMS).sum())


def _refuse_positions_from_zero(path: str, zeros: int, counts: pl.DataFrame) -> None:
    """Of positions from 0 only the first would be refused, all others taken for better ones."""
    first = int(counts.filter(pl.col("position") == 1)["rows"].sum())
    if zeros and zeros >= first:
        raise InputError(
            f"clicks: {path} has {zeros:,} rows of position 0 and {first:,} of position 1: its "
            "positions count from 0. Write them from 1 on"
        )


def _with_ids(counts: pl.DataFrame, queries: QueriesConfig) -> tuple[pl.DataFrame, int]:
    """Counts by the ids of the queries with that text, and how many rows have no such query."""
    plan = make_plan(queries.model_copy(update={"judged_only": False, "head": None})).queries
    ids = pl.DataFrame(
        {
            "query": pl.from_arrow(match_keys(plan.column("query"))),
            "query_id": pl.from_arrow(plan.column("query_id")),
        }
    )
    unknown = counts.join(ids, on="query", how="anti")["rows"].sum()
    known = counts.join(ids, on="query").drop("query").rename({"query_id": "query"})
    return known.select(_KEYS + _SUMS), int(unknown)


def _refuse_useless(path: str, rows: int, counts: pl.DataFrame, rejects: dict[str, int]) -> None:
    if counts.is_empty():
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in sorted(rejects.items()))
        raise InputError(f"clicks: none of the {rows:,} rows of {path} can be used ({reasons})")
    impressions, clicks = int(counts["impressions"].sum()), int(counts["clicks"].sum())
    if clicks in (0, impressions):
        lacking = "no impression that was clicked" if clicks == 0 else "clicked impressions only"
        raise InputError(
            f"clicks: {path} has {lacking}: what was shown and clicked, and what was shown and not "
            "clicked, both have to be there"
        )
