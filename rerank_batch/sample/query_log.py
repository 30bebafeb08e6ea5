"""Queries, their split and their judgements from a harvest, and a log as dirty as a real one.

Every choice is a hash of an identifier with the seed, never the order of a dictionary, so a sample
depends on nothing but its arguments and the package versions. It knows nothing of files.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from rerank_batch.errors import InputError
from rerank_batch.sample.document import Document, can_be_query
from rerank_batch.sample.text import bare_words, normalise

MOST_RELEVANT = 10
"""A paragraph that more objects share ("Return self.") asks for nothing in particular."""

ROWS_PER_QUERY = 12
DAYS: tuple[datetime, ...] = tuple(datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3))
SEGMENTS: Mapping[str, int] = {"web": 55, "mobile": 35, "api": 10}
OVER_LONG = 100_000
CLEAN_PER_DIRTY = 200
SECONDS_PER_DAY = 86_400

LOG_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string()),
        pa.field("query", pa.string()),
        pa.field("ts", pa.timestamp("us", tz="UTC")),
        pa.field("segment", pa.string()),
    ]
)


@dataclass(frozen=True)
class Query:
    """A first paragraph, the documents it came from, and its side of the split."""

    query_id: str
    text: str
    relevant: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class LogRow:
    """One line of the log; the query is bytes, because a real log is not always UTF-8."""

    ts: datetime
    query_id: str | None
    query: bytes | None
    segment: str


def choose_queries(
    documents: Sequence[Document], count: int, seed: int, test_share: float
) -> list[Query]:
    """`count` queries (0: all) in the order of their seeded hash, each with its split."""
    sources: dict[str, list[Document]] = {}
    for document in documents:
        if can_be_query(document.paragraph):
            sources.setdefault(normalise(document.paragraph), []).append(document)
    usable = [key for key, found in sources.items() if len(found) <= MOST_RELEVANT]
    if not usable:
        raise InputError("no docstring gives a query: install one of the packages of the harvest")
    if count > len(usable):
        raise InputError(
            f"{count} queries were asked for, the installed packages give {len(usable)}: "
            "ask for fewer, or 0 for all"
        )
    chosen = sorted(usable, key=lambda key: seeded(seed, "query", key))[: count or None]
    return [
        Query(
            query_id=f"q{number:05d}",
            text=min(document.paragraph for document in sources[key]),
            relevant=tuple(sorted(document.doc_id for document in sources[key])),
            split=side(key, seed, test_share),
        )
        for number, key in enumerate(chosen)
    ]


def side(text: str, seed: int, test_share: float) -> str:
    """Train or test, by a hash of the words alone.

    A document has one first paragraph, so all queries of a document share a side; and queries
    that differ in case, spacing or punctuation do as well.
    """
    return "test" if seeded(seed, "split", bare_words(text)) < test_share else "train"


def choose_documents(
    documents: Sequence[Document], queries: Iterable[Query], count: int, seed: int
) -> list[Document]:
    """Every relevant document and, up to `count` (0: all), distractors by their seeded hash."""
    needed = {doc_id for query in queries for doc_id in query.relevant}
    if count > len(documents):
        raise InputError(
            f"{count} documents were asked for, the installed packages give {len(documents)}: "
            "ask for fewer, or 0 for all"
        )
    if 0 < count < len(needed):
        raise InputError(
            f"{count} documents were asked for, but the queries have {len(needed)} relevant ones: "
            "ask for more documents, for fewer queries, or 0 for all documents"
        )
    order = sorted(
        documents, key=lambda d: (d.doc_id not in needed, seeded(seed, "document", d.doc_id))
    )
    return sorted(order[: count or None], key=lambda document: document.doc_id)


def write_log(queries: Sequence[Query], seed: int) -> tuple[list[LogRow], dict[str, int]]:
    """The log in order of time, and how many rows of each kind of dirt it holds.

    Every query appears, the head far more often than the tail (Zipf), each time as somebody else
    would have typed it.
    """
    rng = random.Random(seed)
    ranked = sorted(queries, key=lambda query: seeded(seed, "rank", query.query_id))
    rows = [
        LogRow(_moment(rng), query.query_id, _typed(query.text, rng).encode(), _segment(rng))
        for query, times in zip(ranked, zipf_counts(len(ranked)), strict=True)
        for _ in range(times)
    ]
    dirty = {kind: _dirty_rows(kind, len(rows)) for kind in _DIRT}
    number = 0
    for kind, spoil in _DIRT.items():
        for copy in range(dirty[kind]):
            text = ranked[rng.randrange(len(ranked))].text
            query_id = None if kind == "null_query_id" else f"x{number:05d}"
            number += query_id is not None
            moment = _moment(rng, DAYS[copy % len(DAYS)])
            rows.append(LogRow(moment, query_id, spoil(text), _segment(rng)))
    return sorted(rows, key=lambda row: (row.ts, row.query_id or "")), dirty


def zipf_counts(queries: int) -> list[int]:
    """How often each rank appears: once, and its Zipf share of all further appearances."""
    further = queries * (ROWS_PER_QUERY - 1)
    harmonic = sum(1 / rank for rank in range(1, queries + 1))
    counts = [1 + int(further / (rank * harmonic)) for rank in range(1, queries + 1)]
    for lost in range(queries * ROWS_PER_QUERY - sum(counts)):  # to rounding down
        counts[lost] += 1
    return counts


def log_table(rows: Sequence[LogRow]) -> pa.Table:
    """The rows as Arrow; the query column keeps invalid UTF-8, as a careless writer's would."""
    raw = pa.array([row.query for row in rows], pa.binary())
    query = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers(), raw.null_count)
    columns = [
        pa.array([row.query_id for row in rows], pa.string()),
        query,
        pa.array([row.ts for row in rows], LOG_SCHEMA.field("ts").type),
        pa.array([row.segment for row in rows], pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=LOG_SCHEMA)


def seeded(seed: int, purpose: str, key: str) -> float:
    """A number in [0, 1) that depends on nothing else, in any process and on any machine."""
    digest = hashlib.sha256(f"{seed}\0{purpose}\0{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _dirty_rows(kind: str, clean: int) -> int:
    """At least one a day; the over-long ones no more, since each is as big as a small log."""
    a_day = 1 if kind == "over_long" else max(1, clean // CLEAN_PER_DIRTY // len(DAYS))
    return a_day * len(DAYS)


def _moment(rng: random.Random, day: datetime | None = None) -> datetime:
    start = day or DAYS[rng.randrange(len(DAYS))]
    return start + timedelta(microseconds=rng.randrange(SECONDS_PER_DAY * 1_000_000))


def _segment(rng: random.Random) -> str:
    return rng.choices(list(SEGMENTS), weights=list(SEGMENTS.values()))[0]


def _typed(text: str, rng: random.Random) -> str:
    """The query as typed this time: the same query to anybody who normalises it."""
    spelling = rng.choices([way for way, _ in _WAYS], weights=[weight for _, weight in _WAYS])[0]
    typed = spelling(text)
    return typed if normalise(typed) == normalise(text) else text


def _full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


_WAYS: Sequence[tuple[Callable[[str], str], int]] = (
    (str, 44),
    (str.lower, 16),
    (str.upper, 8),
    (str.title, 8),
    (lambda text: text.replace(" ", "  "), 5),
    (lambda text: text.replace(" ", "\t", 1), 4),
    (lambda text: f"  {text}", 4),
    (lambda text: f"{text} \n", 4),
    (lambda text: text.replace(" ", "\u00a0"), 4),
    (_full_width, 3),
)


def _over_long(text: str) -> bytes:
    once = f"{text} ".encode()
    return once * (OVER_LONG // len(once) + 1)


_DIRT: Mapping[str, Callable[[str], bytes | None]] = {
    "null_query": lambda text: None,
    "empty": lambda text: b"",
    "blank": lambda text: " \t\u00a0 ".encode(),
    "over_long": _over_long,
    "invalid_utf8": lambda text: text.encode()[:30] + b" caf\xe9 \xff",
    "null_query_id": lambda text: text.encode(),
}
"""Kind of dirt, and what becomes of a query."""
