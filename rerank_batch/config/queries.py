"""The section ``queries``."""

import datetime
from typing import Literal

from pydantic import Field, model_validator

from rerank_batch.config.base import USUAL, FilterTerm, Location, Section

TimeUnit = Literal["s", "ms", "us", "ns"]


class HeadConfig(Section):
    """Which queries of a log are worth a night: the heaviest, up to a cut-off.

    All cut-offs that are given must hold. Of equal weights the smaller id goes first. The other
    queries are left out and counted.
    """

    max_queries: int | None = Field(default=None, ge=1)
    """At most so many queries, the heaviest first."""
    min_weight: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Queries of at least this weight."""
    share: float | None = Field(default=None, gt=0, le=1)
    """As few queries as make up this share of the weight of all."""

    @model_validator(mode="after")
    def _cuts_somewhere(self) -> "HeadConfig":
        if self.max_queries is None and self.min_weight is None and self.share is None:
            raise ValueError("give max_queries, min_weight or share")
        return self


class QueriesConfig(Section):
    """Where the query log is, what its columns are called, which rows count.

    In ``path`` and in the values of ``filter``, ``{date}`` stands for the day of the night, and
    ``{yesterday}`` for the day before it, written 2026-01-02 or as strftime has it:
    ``{yesterday:%Y/%m/%d}``. Rejects carry ids and reasons.
    """

    path: Location
    """The log: a file, a folder of Parquet files (hive partitions are columns) or a glob."""
    date: datetime.date | None = None
    """The day of the night, by default today in UTC; `--date` goes before it."""
    head: HeadConfig | None = None
    """Leaves rare queries out."""
    format: Literal["auto", "parquet", "beir", "trec-topics", "tsv"] = "auto"
    """How it is written; auto tells by the name."""
    id: str | None = None
    """The column of ids: query_id, _id or id in Parquet, _id, query_id or id in BEIR jsonl."""
    text: str | None = None
    """The column of texts: query or text in Parquet, text or query in BEIR jsonl. Of TREC topics
    the field that is the query, by default title (query or title in XML)."""
    time: str | None = USUAL
    """The column of times, by default ts where a Parquet log has it and it fits; null is none."""
    time_unit: TimeUnit | None = None
    """What times that are numbers count since 1970."""
    weight: str | None = USUAL
    """The column of weights, by default count where a Parquet log has it and it fits; null is none,
    and every row weighs 1."""
    dedupe: bool = True
    """Whether equal texts become one query with their total weight. Without it every row is a query
    of its own; a block scores equal pairs once, two blocks do not share them."""
    duplicates: Literal["error", "first"] = "error"
    """What becomes of an id that stands twice: an error, or the first row counts."""
    judged_only: bool = False
    """Whether only queries with judgements are read."""
    keep_rejected_texts: bool = False
    """Whether rejects keep the texts of queries, which are personal data."""
    filter: tuple[FilterTerm, ...] = ()
    """Conditions `[column, operator, value]` that must all hold; Parquet scans skip the rest."""
    max_chars: int = Field(default=20_000, ge=1)
    """How many characters of a query are read."""
