"""Column names and Arrow schemas, reading and replacing those columns, and the check at the edges.

One row is one query from the first stage to the last; candidates and scores are list columns.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rerank_batch.errors import RerankBatchError
from rerank_batch.ranking import Scores

JsonObject = dict[str, Any]
"""A JSON object, at the edge where it is read or written."""

TableRow = dict[str, Any]
"""A row of a table as Python values, by column."""

QIDX = "qidx"
QUERY = "query"
VECTOR = "vector"
DOCUMENTS = "documents"
RETRIEVAL_SCORES = "retrieval_scores"
RERANK_SCORES = "rerank_scores"
FLAGS = "flags"
REJECT = "reject"
SIDE = "side"
"""What travels beside the rows and is summed into the commit: seconds and events of the stages."""

FEW_CANDIDATES = "few_candidates"
"""Flag: fewer candidates were found than the depth asks for."""

TRUNCATED = "truncated"
"""Flag: a reranker read at least one of the query's pairs cut to its maximum length."""

GATED = "gated"
"""Flag: retrieval was sure enough, so no reranker read the query."""

FELL_BACK = "fell_back"
"""Flag: a reranker gave no usable answer for the query, which keeps the order it had before."""

NON_FINITE_VECTOR = "non_finite_vector"
"""Reject reason: the encoder's vector of the query is not finite."""

NON_FINITE_SCORE = "non_finite_score"
"""Reject reason: a score of a reranker is not finite."""

PLAN = pa.schema(
    [
        pa.field(QIDX, pa.int64(), nullable=False),
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("query_ids", pa.list_(pa.string()), nullable=False),
        pa.field(QUERY, pa.string(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("first_seen", pa.timestamp("us", tz="UTC")),
        pa.field("last_seen", pa.timestamp("us", tz="UTC")),
        pa.field(FLAGS, pa.list_(pa.string()), nullable=False),
    ]
)
"""A planned query: the ids of every log row it stands for, its text, its total weight."""

REJECTS = pa.schema(
    [
        pa.field(QIDX, pa.int64()),
        pa.field("query_id", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field(QUERY, pa.string()),
    ]
)
"""A rejected query: its number if it was planned, its id, a reason code, how many log rows it took
with it. Its text only with ``queries.keep_rejected_texts``: queries are personal data."""

REJECT_FIELD = pa.field(REJECT, pa.string())

ENCODED = PLAN.append(pa.field(VECTOR, pa.list_(pa.float32()))).append(REJECT_FIELD)
RETRIEVED = (
    pa.schema([field for field in ENCODED if field.name != VECTOR])
    .append(pa.field(DOCUMENTS, pa.list_(pa.int64())))
    .append(pa.field(RETRIEVAL_SCORES, pa.list_(pa.float32())))
)
RERANKED = RETRIEVED.append(pa.field(RERANK_SCORES, pa.list_(pa.list_(pa.float32()))))
"""Scores of the stages so far, one list each, beside the documents: null where one was not read."""

RETRIEVALS = "retrievals"
SYSTEM_SCORES = "system_scores"

_FOUND = pa.struct(
    [
        pa.field(DOCUMENTS, pa.list_(pa.int64())),
        pa.field(RETRIEVAL_SCORES, pa.list_(pa.float32())),
    ]
)
SEARCHED = ENCODED.append(pa.field(RETRIEVALS, pa.list_(_FOUND)))
"""What each retrieval of a comparison, or each source in the groups of shards before, found so far.
The vector stays for the next one."""

COMPARED = pa.schema([field for field in SEARCHED if field.name != VECTOR]).append(
    pa.field(SYSTEM_SCORES, pa.list_(pa.list_(pa.list_(pa.float32()))))
)
"""Of a comparison: per system the scores of its stages so far, as in `RERANKED`, beside the first
documents of its retrieval."""

RESULT = pa.struct(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("retrieval_rank", pa.int32(), nullable=False),
        pa.field("retrieval_score", pa.float32(), nullable=False),
    ]
)
SYSTEMS = ("retrieval", "reranked")


def results(measures: tuple[str, ...], stages: int = 1) -> pa.Schema:
    """What a finished run of so many reranking stages holds: one row per query.

    ``results`` is the reranked top-k, best first. ``candidates`` is every retrieved document in
    retrieval order with both scores and its place in the reranked order, so that any shallower
    depth can be studied without scoring again; of a cascade with the score of every stage.
    ``metrics`` is null for queries without judgements.
    """
    values = pa.struct([pa.field(name, pa.float64()) for name in measures])
    return pa.schema(
        [
            *PLAN,
            pa.field("results", pa.list_(RESULT), nullable=False),
            pa.field("candidates", pa.list_(_candidate(stages)), nullable=False),
            pa.field("metrics", pa.struct([pa.field(system, values) for system in SYSTEMS])),
        ]
    )


PLACED = pa.struct(
    [
        pa.field("places", pa.list_(pa.int32()), nullable=False),
        pa.field("scores", pa.list_(pa.float32()), nullable=False),
    ]
)
"""A list of a comparison, the best first: places among the candidates of its row, counted from 0,
and the score of the last model that read each, null where none did."""


def comparison(measures: tuple[str, ...], systems: tuple[str, ...]) -> pa.Schema:
    """What a finished comparison of ``systems`` holds: one row per query.

    ``candidates`` is every document that any of them found, in the order of ids. ``systems`` are
    their lists at full depth, ``retrieved`` under the same names what they were made from, in the
    order of retrieval and with its scores. ``metrics`` is null for queries without judgements.
    """
    values = pa.struct([pa.field(name, pa.float64()) for name in measures])
    placed = pa.struct([pa.field(system, PLACED, nullable=False) for system in systems])
    return pa.schema(
        [
            *PLAN,
            pa.field("candidates", pa.list_(pa.string()), nullable=False),
            pa.field("systems", placed, nullable=False),
            pa.field("retrieved", placed, nullable=False),
            pa.field("metrics", pa.struct([pa.field(system, values) for system in systems])),
        ]
    )


def _candidate(stages: int) -> pa.DataType:
    """``score`` is that of the last stage that read the document, null where none did."""
    fields = [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("retrieval_score", pa.float32(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("score", pa.float32()),
    ]
    if stages > 1:
        fields.append(pa.field("stage_scores", pa.list_(pa.float32()), nullable=False))
    return pa.struct(fields)


def check(table: pa.Table, expected: pa.Schema, where: str) -> pa.Table:
    """The table's expected columns in the expected order, or an error that names the difference."""
    missing = [name for name in expected.names if name not in table.column_names]
    wrong = [
        f"{field.name} is {table.schema.field(field.name).type}, not {field.type}"
        for field in expected
        if field.name in table.column_names and table.schema.field(field.name).type != field.type
    ]
    if missing or wrong:
        problems = [f"no column {name!r}" for name in missing] + wrong
        raise RerankBatchError(f"{where}: {'; '.join(problems)}")
    return table.select(expected.names)


def alive_rows(table: pa.Table) -> NDArray[np.int64]:
    """Numbers of the rows that nothing has rejected."""
    reasons = table.column(REJECT).to_pylist()
    return np.array([row for row, reason in enumerate(reasons) if reason is None], dtype=np.int64)


def lists_in(table: pa.Table, name: str, kind: type) -> list[NDArray[Any]]:
    """The lists of a column as arrays of that kind, one for each row."""
    return split_lists(table.column(name).combine_chunks(), kind)


def split_lists(column: pa.ListArray, kind: type) -> list[NDArray[Any]]:
    """The lists of an Arrow array as arrays of that kind."""
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(kind, copy=False)
    ends = np.cumsum(column.value_lengths().to_numpy(zero_copy_only=False))
    return list(np.split(flat, ends[:-1])) if len(ends) else []


def stage_scores(table: pa.Table) -> list[Scores]:
    """Per query the scores of retrieval and of the stages so far, [1 + stages, candidates]."""
    scores = [values[None, :] for values in lists_in(table, RETRIEVAL_SCORES, np.float32)]
    if RERANK_SCORES not in table.column_names:
        return scores
    for row, stages in enumerate(table.column(RERANK_SCORES).to_pylist()):
        for values in stages:
            scores[row] = np.vstack([scores[row], np.array(values, dtype=np.float32)])
    return scores


def with_stage_scores(table: pa.Table, scores: list[Scores]) -> pa.Table:
    """The table with these scores of the stages; shapes as in `stage_scores`."""
    lists = [[nullable(values) for values in stages[1:]] for stages in scores]
    column = pa.array(lists, RERANKED.field(RERANK_SCORES).type)
    if RERANK_SCORES in table.column_names:
        return replace_column(table, RERANK_SCORES, column)
    return table.append_column(RERANK_SCORES, column)


def nullable(values: Scores) -> list[float | None]:
    """The scores, null in the place of NaN."""
    return [None if np.isnan(value) else float(value) for value in values]


def with_vector(table: pa.Table) -> pa.Table:
    """The rows of a plan that no encoder has read, with the columns that it would have added."""
    for name in (VECTOR, REJECT):
        if name not in table.column_names:
            field = ENCODED.field(name)
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table


def replace_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    """The table with another column in the place of the one of that name."""
    return table.set_column(table.column_names.index(name), name, column)
