"""What is to be labelled: the queries of a finished run that the source of truth knows.

Every one of them gets its group, its split and its judgements here, where all queries are in sight;
documents are read later, block by block.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rerank_batch.config import LabelPositivesConfig, LabelsConfig
from rerank_batch.data.qrels import Qrels, merge_grades
from rerank_batch.errors import InputError
from rerank_batch.labels.candidates import Candidates, CandidateSource, candidates_of
from rerank_batch.labels.rows import PLAN
from rerank_batch.labels.splits import HeldOut, SplitQuery, split_queries
from rerank_batch.schema import TableRow

_COLUMNS = ("query_id", "query_ids", "query", "weight")


@dataclass(frozen=True)
class Truth:
    """The source of truth: its name, grades by query and document, None where the teacher is it."""

    name: str
    grades: Qrels | None


@dataclass(frozen=True)
class LabelPlan:
    """The planned queries, `rows.PLAN`, in the order of their ids; how many groups they make, how
    many queries of the run the source of truth does not know, and what `Splits.withheld` says."""

    queries: pa.Table
    groups: int
    unknown: int
    withheld: Mapping[str, int]


def plan_labels(
    source: CandidateSource, truth: Truth, labels: LabelsConfig, held_out: HeldOut
) -> LabelPlan:
    """Plan the label run.

    Queries of ``held_out`` that the source of truth does not know are grouped with the others, so
    that what is near to them is not trained on, and are not planned.

    Raises:
        InputError: no query of the run is known, or a split stays empty.
    """
    rows: list[TableRow] = []
    beside: list[SplitQuery] = []
    seen = 0
    for row, grades in _judged(source, truth, labels.positives):
        seen += 1
        if grades is not None:
            rows.append({**row, "grades": grades})
        elif any(alias in held_out.query_ids for alias in row["query_ids"]):
            beside.append(SplitQuery(row["query_ids"], row["query"], ()))
    if not rows:
        raise InputError(
            f"labels: none of the {seen:,} queries of the run is known to the source of truth "
            f"({truth.name}); query ids of run and judgements must match"
        )
    grade = labels.positives.grade
    queries = [
        SplitQuery(
            row["query_ids"], row["query"], [d for d, g in row["grades"].items() if g >= grade]
        )
        for row in rows
    ]
    splits = split_queries([*queries, *beside], labels.split, labels.seed, held_out)
    planned = [
        {
            "qidx": number,
            **{name: row[name] for name in _COLUMNS},
            "first_seen": None,
            "last_seen": None,
            "flags": [],
            "group": group,
            "split": split,
            "judged": [
                {
                    "doc_id": document,
                    "grade": float(value),
                    "held_out": value >= grade and splits.is_held_out(document, split),
                }
                for document, value in sorted(row["grades"].items())
            ],
        }
        for number, (row, group, split) in enumerate(
            zip(rows, splits.groups, splits.splits, strict=False)
        )
    ]
    groups = len({row["group"] for row in planned})
    table = pa.Table.from_pylist(planned, schema=PLAN)
    return LabelPlan(table, groups, seen - len(rows), splits.withheld)


def _judged(
    source: CandidateSource, truth: Truth, positives: LabelPositivesConfig
) -> Iterator[tuple[TableRow, dict[str, int] | None]]:
    """Every query of the run with what the source of truth says of it, None where it is silent."""
    columns = [*_COLUMNS, *([] if truth.grades is not None else ["candidates"])]
    for table in source.tables(columns):
        rows = table.select(list(_COLUMNS)).to_pylist()
        if truth.grades is not None:
            yield from ((row, merge_grades(truth.grades, row["query_ids"])) for row in rows)
            continue
        found = candidates_of(table.column("candidates"), source.has_stages)
        for row, candidates in zip(rows, found, strict=True):
            yield row, _by_teacher(candidates, positives)


def _by_teacher(candidates: Candidates, positives: LabelPositivesConfig) -> dict[str, int] | None:
    """What the teacher takes for relevant, with the grade of a positive; None: nothing."""
    limit = -np.inf if positives.score is None else positives.score
    scored: Sequence[tuple[float, str]] = [
        (-score, doc_id)
        for score, doc_id in zip(candidates.scores.tolist(), candidates.doc_ids, strict=True)
        if score >= limit
    ]
    best = sorted(scored)[: positives.at_most or 1]
    return {doc_id: positives.grade for _, doc_id in best} or None
