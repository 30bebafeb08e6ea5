"""Column names and Arrow schemas, and the check that stages do at their edges.

One row is one query from the first stage to the last; candidates and scores are list columns.
"""

import pyarrow as pa

from rerank_batch.errors import RerankBatchError

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
