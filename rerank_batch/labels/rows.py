"""The rows of labels: the plan of a label run, what it holds, and the canonical rows read from it.

A label run holds one row per query, with its labelled documents as a list: what is true of every
run of this project (one row per query from read to write, each exactly once) is true of it as well.
`label_rows` unfolds them to one row per query and document, from which every format is derived.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rerank_batch import schema
from rerank_batch.runs import Run
from rerank_batch.storage import open_file

POSITIVE, NEGATIVE = "positive", "negative"
TRAIN, DEV, TEST = "train", "dev", "test"
SPLITS = (TRAIN, DEV, TEST)
"""From the one that may learn from anything to the one that nothing may be learned from."""

NO_POSITIVE, NO_NEGATIVE = "no_positive", "no_negative"
"""Reasons to reject a query: nothing relevant of it is in the corpus and may be used, or every
document that could have been a negative was kept out."""

RULES = (
    "judged_relevant",
    "judged_partly",
    "held_out",
    "not_in_corpus",
    "share",
    "margin",
    "score",
    "probability",
    "exact_duplicate",
    "near_duplicate",
)
"""What keeps a document from being a label, in the order in which the rules are asked; a document
counts for the first that applies. ``held_out`` and ``not_in_corpus`` concern positives as well."""

JUDGED = pa.list_(
    pa.struct(
        [
            pa.field("doc_id", pa.string(), nullable=False),
            pa.field("grade", pa.float32(), nullable=False),
            pa.field("held_out", pa.bool_(), nullable=False),
        ]
    )
)

PLAN = (
    schema.PLAN.append(pa.field("group", pa.string(), nullable=False))
    .append(pa.field("split", pa.string(), nullable=False))
    .append(pa.field("judged", JUDGED, nullable=False))
)
"""A query to label: the group it belongs to (named by its smallest query id), the split of that
group, and what the source of truth says of its documents. A document is ``held_out`` where a
stricter split has it as a positive."""

DOCUMENT = pa.struct(
    [
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("document", pa.string(), nullable=False),
        pa.field("label", pa.float32()),
        pa.field("role", pa.string(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("rank", pa.int32()),
        pa.field("teacher_score", pa.float32()),
    ]
)

LABELLED = pa.schema(
    [
        schema.PLAN.field(schema.QIDX),
        schema.PLAN.field("query_id"),
        schema.PLAN.field("query_ids"),
        schema.PLAN.field(schema.QUERY),
        schema.PLAN.field("weight"),
        pa.field("group", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("looked_at", pa.int32()),
        pa.field("removed", pa.struct([pa.field(rule, pa.int32()) for rule in RULES])),
        pa.field("documents", pa.list_(DOCUMENT), nullable=False),
    ]
)
"""What a label run holds: positives first, by grade, then negatives. ``looked_at`` is how many
documents could have been negatives, ``removed`` how many of them each rule kept out."""

LABELS = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("query", pa.string(), nullable=False),
        *[DOCUMENT.field(name) for name in ("doc_id", "document", "label")],
        pa.field("source", pa.string(), nullable=False),
        *[DOCUMENT.field(name) for name in ("role", "origin", "rank", "teacher_score")],
        pa.field("split", pa.string(), nullable=False),
    ]
)
"""The canonical rows: one per query and document, what all formats are derived from.

``document`` is what models read: title, a blank, text. ``label`` is the grade by the source of
truth, null where it knows nothing of the document. ``origin`` says where the document came from:
``judged`` or ``teacher`` of a positive, ``retrieval:FIRST-LAST``, ``run:NAME`` or ``random`` of a
negative; ``rank`` is its place there, from 1, of a positive among the run's candidates.
``teacher_score`` is the raw number of the run's last reranker, null where that did not read it.
"""

_ROWS = 256


def labelled_batches(paths: list[str], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Rows of a label run's files, in the order of their queries, some hundreds at a time."""
    for path in paths:
        with open_file(path) as source:
            for batch in pq.ParquetFile(source).iter_batches(batch_size=_ROWS, columns=columns):
                yield pa.Table.from_batches([batch])


def label_rows(run: Run) -> Iterator[pa.Table]:
    """The canonical rows of a finished label run, `LABELS`, in the order of its queries.

    Raises:
        RunConflict: the run is not complete.
    """
    source = run.finished()["labels"]["source"]["truth"]
    for table in labelled_batches(run.results_paths()):
        yield unfolded(table, source)


def unfolded(table: pa.Table, source: str) -> pa.Table:
    """`LABELLED` rows as `LABELS` rows."""
    lists = table.column("documents").combine_chunks()
    parents = pc.list_parent_indices(lists)
    documents = pc.list_flatten(lists)
    columns = []
    for field in LABELS:
        if field.name == "source":
            columns.append(pa.array([source] * len(documents), pa.string()))
        elif field.name in table.column_names:
            columns.append(table.column(field.name).combine_chunks().take(parents))
        else:
            columns.append(pc.struct_field(documents, field.name))
    return pa.table(columns, schema=LABELS)


def sums_of(block: pa.Table) -> dict[str, float]:
    """What a commit carries of a block of labels: queries, rows by split and role, and removals."""
    written = block.filter(pc.is_null(block.column(schema.REJECT)))
    sums = {"queries": float(written.num_rows)}
    for split in SPLITS:
        queries = written.filter(pc.equal(written.column("split"), split))
        documents = pc.list_flatten(queries.column("documents").combine_chunks())
        roles = pc.struct_field(documents, "role")
        sums[f"queries.{split}"] = float(queries.num_rows)
        for role in (POSITIVE, NEGATIVE):
            sums[f"rows.{split}.{role}"] = float(pc.sum(pc.equal(roles, role)).as_py() or 0)
    removed = block.column("removed").combine_chunks()
    for rule in RULES:
        sums[f"removed.{rule}"] = float(pc.sum(pc.struct_field(removed, rule)).as_py() or 0)
    sums["looked_at"] = float(pc.sum(block.column("looked_at")).as_py() or 0)
    return sums
