"""The plan: a raw query log in, one row per distinct query out, and a reason for everything else.

Every log row ends in exactly one place: merged into a planned query (its weight counts), in the
rejects with a reason code, or counted as left out where ``queries.head`` cuts the tail off. Knows
nothing of models, indexes or Ray.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rerank_batch import schema
from rerank_batch.config import HeadConfig, QueriesConfig
from rerank_batch.data.query_log import check_rows, log_batches
from rerank_batch.errors import InputError
from rerank_batch.remarks import Remark

QUERY_CUT = "query_cut"
"""Flag of a query longer than ``queries.max_chars``, of which only the beginning is used."""


_COMPACT_ROWS = 2_000_000


_HASH_ROWS = 1_000_000


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
    judged_ids = pl.DataFrame({"query_ids": list(judged)}, schema={"query_ids": pl.String})
    hits = (
        queries.select("query_id", "query_ids")
        .explode("query_ids")
        .join(judged_ids, on="query_ids")
    )
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
