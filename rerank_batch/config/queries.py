"""The section ``queries``."""

import datetime
from typing import Literal

from pydantic import Field, model_validator

from rerank_batch.config.base import USUAL, FilterTerm, Location, Section

TimeUnit = Literal["s", "ms", "us", "ns"]


class HeadConfig(Section):
    """Which queries of a log are worth a night: the heaviest, up to a cut-off; all that are given
    must hold.

    The heaviest ``max_queries``; those of at least ``min_weight``; as few as make up ``share`` of
    the weight of all. Of equal weights the smaller id goes first. The rest is left out and counted.
    """

    max_queries: int | None = Field(default=None, ge=1)
    min_weight: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    share: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _cuts_somewhere(self) -> "HeadConfig":
        if self.max_queries is None and self.min_weight is None and self.share is None:
            raise ValueError("give max_queries, min_weight or share")
        return self


class QueriesConfig(Section):
    """Where the query log is, how its columns are called, which rows count.

    ``id`` and ``text`` default to query_id (or _id, or id) and query (or text) in Parquet, to _id
    (or query_id, or id) and text (or query) in BEIR jsonl; of TREC topics the query is the field
    that ``text`` names, by default title, and of topics as XML query or title.
    ``time`` and ``weight`` default to ts and count, which are used where a Parquet log has them and
    they fit; null is neither. Times that are numbers count ``time_unit`` since 1970. ``filter`` is
    a list of ``[column, operator, value]`` that must all hold; it is pushed down to the Parquet
    scan.
    Rejects carry ids and reasons; with ``keep_rejected_texts`` the texts of the queries as well,
    which are personal data. In ``path`` and in the values of ``filter``, ``{date}`` stands for the
    day of the night, by default today in UTC, and ``{yesterday}`` for the day before it, written
    2026-01-02 or as strftime has it: ``{yesterday:%Y/%m/%d}``. ``date`` is that day, once it is
    known. ``head`` leaves rare queries out. Without ``dedupe`` every row is a query of its own;
    equal texts stand side by side, so a block scores their pairs once, and two blocks do where the
    border between them divides equal texts.
    """

    path: Location
    date: datetime.date | None = None
    head: HeadConfig | None = None
    format: Literal["auto", "parquet", "beir", "trec-topics", "tsv"] = "auto"
    id: str | None = None
    text: str | None = None
    time: str | None = USUAL
    time_unit: TimeUnit | None = None
    weight: str | None = USUAL
    dedupe: bool = True
    duplicates: Literal["error", "first"] = "error"
    judged_only: bool = False
    keep_rejected_texts: bool = False
    filter: tuple[FilterTerm, ...] = ()
    max_chars: int = Field(default=20_000, ge=1)
