"""Columns of the query log that segment an evaluation: their values in the rows of some queries.

A row counts here exactly where it counts in the plan, so that the weights of a query's values add
up to the query's weight. Only rows of the wanted queries are kept: of a log of any length memory
holds what the judged queries need.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from rerank_batch.config import QueriesConfig
from rerank_batch.data.parquet import ParquetTable
from rerank_batch.data.query_log import check_rows, log_batches, log_format
from rerank_batch.data.values import as_ids, as_strings
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.evaluation.segments.groupings import ColumnValues
from rerank_batch.remarks import Remark

NOT_UTF8 = "(not UTF-8)"
"""In place of a value whose bytes are no text."""

_COMPACT_ROWS = 2_000_000


def check_segments(config: QueriesConfig | None, columns: Sequence[str]) -> tuple[Remark, ...]:
    """See that the log has the columns, before anything is run; remarks on those that only some of
    its files have.

    Raises:
        ConfigError: there is no log, it is not Parquet, or which columns it has instead.
        InputError: the types of a column do not go together over the files.
    """
    if not columns:
        return ()
    if config is None:
        raise ConfigError("evaluation.segments names columns of the log: it needs queries.path")
    if (format := log_format(config)) != "parquet":
        raise ConfigError(
            f"evaluation.segments names columns of a Parquet log; {config.path} is {format}, which "
            "has none. Leave the setting out"
        )
    table = ParquetTable(config.path, "queries")
    there = table.columns
    if missing := [name for name in columns if name not in there]:
        raise ConfigError(
            f"evaluation.segments: {config.path} has no column {', '.join(map(repr, missing))}; "
            f"it has {', '.join(there)}"
        )
    for name in columns:
        table.column(name, required=False)
    return table.remarks


def read_segments(
    config: QueriesConfig | None, columns: Sequence[str], query_ids: Sequence[Sequence[str]]
) -> dict[str, ColumnValues]:
    """What each of the columns holds in the rows of n queries, which are given by their log ids.

    Ids that the log does not hold have no entries; no id may stand for two of the queries.

    Raises:
        ConfigError: see `check_segments`; or a column holds no plain values.
    """
    check_segments(config, columns)
    if config is None or not columns:
        return {}
    places = [place for place, ids in enumerate(query_ids) for _ in ids]
    wanted = pl.DataFrame(
        {"query_id": [query_id for ids in query_ids for query_id in ids], "query_place": places},
        schema={"query_id": pl.String, "query_place": pl.Int64},
    )
    kept = pl.DataFrame()
    for rows in _counted_rows(config, columns, wanted["query_id"].to_arrow()):
        kept = pl.concat([kept, _compact(rows, columns)]) if len(kept) else _compact(rows, columns)
        if len(kept) > _COMPACT_ROWS:
            kept = _compact(kept, columns)
    if kept.is_empty():
        empty = np.empty(0, np.int64)
        return dict.fromkeys(columns, ColumnValues((), empty, empty, np.empty(0)))
    # Of an id that stands for several texts the plan keeps the first.
    first = pl.col("row").min().over("query_id", "key") == pl.col("row").min().over("query_id")
    found = _compact(kept, columns).filter(first).join(wanted, on="query_id")
    return {name: _values(found, _column(number)) for number, name in enumerate(columns)}


def _counted_rows(
    config: QueriesConfig, columns: Sequence[str], wanted: pa.Array
) -> Iterator[pl.DataFrame]:
    """The good rows of the wanted ids: row, query_id, key, weight, and the values as texts."""
    seen = 0
    more = {_column(number): name for number, name in enumerate(columns)}
    for batch in log_batches(config, more):
        ids, _ = as_ids(batch.column("query_id"), "queries: ids")
        batch = batch.filter(pc.is_in(ids, value_set=wanted))
        good, _ = check_rows(batch, config.max_chars, seen)
        taken = good["row"].to_numpy() - seen
        seen += batch.num_rows
        yield good.select("row", "query_id", "key", "weight").with_columns(
            _texts(batch.column(new), name).gather(taken).alias(new) for new, name in more.items()
        )


def _compact(rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """One row per id, text and values."""
    named = [_column(number) for number in range(len(columns))]
    return (
        rows.sort("row")
        .group_by("query_id", "key", *named, maintain_order=True)
        .agg(pl.col("row").min(), pl.col("weight").sum())
    )


def _values(rows: pl.DataFrame, column: str) -> ColumnValues:
    summed = (
        rows.sort("row")
        .group_by("query_place", column, maintain_order=True)
        .agg(pl.col("weight").sum())
        .sort("query_place", column)
    )
    values = summed[column].unique().sort()
    places = pl.DataFrame({column: values, "place": np.arange(len(values))})
    coded = summed.join(places, on=column, nulls_equal=True, maintain_order="left")
    return ColumnValues(
        tuple(values.to_list()),
        coded["query_place"].to_numpy(),
        coded["place"].to_numpy(),
        coded["weight"].to_numpy(),
    )


def _texts(values: pa.Array, name: str) -> pl.Series:
    try:
        texts, bad = as_strings(values, f"queries: {name}")
    except InputError:
        raise ConfigError(
            f"evaluation.segments: column {name!r} of the log is {values.type}; a segment has one "
            "plain value"
        ) from None
    return pl.Series(pl.from_arrow(pc.if_else(bad, NOT_UTF8, texts)))


def _column(number: int) -> str:
    """A name that no column of the plan has."""
    return f"segment_{number}"
