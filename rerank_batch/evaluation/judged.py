"""The judged queries of a finished run, block by block: the list of every system beside the grades.

Knows the rows of `schema.results` and of `schema.comparison`; knows no measure.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rerank_batch import schema
from rerank_batch.data.qrels import Grades, Judgements, merge_grades
from rerank_batch.storage import open_file

RETRIEVAL, RERANKED = schema.SYSTEMS

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class RankedDocuments:
    """Documents, the best first, and float32 [n] scores beside them.

    A score is the raw one of the last model that read the document; NaN where none did. Of
    retrieval it is that of retrieval.
    """

    doc_ids: list[str]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class JudgedQuery:
    """A query with its judgements, every id it stands for, and what each system made of it.

    ``lists`` are those of the systems, ``retrieved`` of the same names the candidates that each of
    them began with, in the order of retrieval.
    """

    query_id: str
    query_ids: list[str]
    text: str
    weight: float
    grades: Grades
    lists: Mapping[str, RankedDocuments]
    retrieved: Mapping[str, RankedDocuments]

    def cut(self, system: str, depth: int) -> list[str]:
        """Ids as the system would leave them if its reranker read ``depth`` candidates.

        The first ``depth`` come in the system's own order of them, the others stay where they were.
        """
        candidates = self.retrieved[system].doc_ids
        first = set(candidates[:depth])
        best = [doc_id for doc_id in self.lists[system].doc_ids if doc_id in first]
        return [*best, *candidates[depth:]]


Lists = Mapping[str, RankedDocuments]
External = Mapping[str, Lists]
"""Systems that are not in the run: of each the lists by query id."""


def judged_blocks(
    paths: Sequence[str], qrels: Judgements, external: External | None = None
) -> Iterator[list[JudgedQuery]]:
    """The judged queries of the result files ``paths``, some hundreds at a time.

    A query that an ``external`` system has no list for has an empty one there.
    """
    for path in paths:
        file = pq.ParquetFile(open_file(path))
        wide = "systems" in file.schema_arrow.names
        columns = ["query_id", "query_ids", "query", "weight"]
        columns += ["retrieved", "systems"] if wide else []
        reader = _of_comparison if wide else _of_run
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[*columns, "candidates"]):
            yield list(_judged(batch, qrels, reader(batch), external or {}))


def _judged(
    batch: pa.RecordBatch,
    qrels: Judgements,
    lists_of: Callable[[int], tuple[Lists, Lists]],
    external: External,
) -> Iterator[JudgedQuery]:
    rows = batch.select(["query_id", "query_ids", "query", "weight"]).to_pylist()
    for number, row in enumerate(rows):
        grades = merge_grades(qrels, row["query_ids"])
        if grades is None:
            continue
        lists, retrieved = lists_of(number)
        others = {name: _find(known, row["query_ids"]) for name, known in external.items()}
        yield JudgedQuery(
            query_id=row["query_id"],
            query_ids=row["query_ids"],
            text=row["query"],
            weight=row["weight"],
            grades=grades,
            lists={**lists, **others},
            retrieved={**retrieved, **others},
        )


def _of_run(batch: pa.RecordBatch) -> Callable[[int], tuple[Lists, Lists]]:
    """Reads `schema.results`: candidates in the order of retrieval, with their other rank."""
    column = batch.column("candidates")
    hits, bounds = column.flatten(), _bounds(column)
    ids = pc.struct_field(hits, "doc_id")
    before, after, rank = (
        pc.struct_field(hits, name).to_numpy(zero_copy_only=False)
        for name in ("retrieval_score", "score", "rank")
    )

    def lists_of(row: int) -> tuple[Lists, Lists]:
        start, stop = bounds[row], bounds[row + 1]
        names = ids.slice(start, stop - start).to_pylist()
        order = np.argsort(rank[start:stop])
        retrieval = RankedDocuments(names, _float32(before[start:stop]))
        reranked = RankedDocuments([names[i] for i in order], _float32(after[start:stop])[order])
        return (
            {RETRIEVAL: retrieval, RERANKED: reranked},
            {RETRIEVAL: retrieval, RERANKED: retrieval},
        )

    return lists_of


def _of_comparison(batch: pa.RecordBatch) -> Callable[[int], tuple[Lists, Lists]]:
    """Reads `schema.comparison`: candidates without an order, and places in them."""
    candidates = batch.column("candidates")
    ids, bounds = candidates.flatten(), _bounds(candidates)
    columns = {name: _Places(batch, name) for name in ("systems", "retrieved")}

    def lists_of(row: int) -> tuple[Lists, Lists]:
        names = ids.slice(bounds[row], bounds[row + 1] - bounds[row]).to_pylist()
        lists, retrieved = (columns[name].lists(row, names) for name in ("systems", "retrieved"))
        return lists, retrieved

    return lists_of


class _Places:
    """A struct column of systems, each with lists of places and scores."""

    def __init__(self, batch: pa.RecordBatch, column: str) -> None:
        whole = batch.column(column)
        self._systems = {}
        for field in whole.type:
            system = pc.struct_field(whole, field.name)
            parts: list[Any] = []
            for name in ("places", "scores"):
                listed = pc.struct_field(system, name)
                parts += [listed.flatten().to_numpy(zero_copy_only=False), _bounds(listed)]
            self._systems[field.name] = parts

    def lists(self, row: int, names: Sequence[str]) -> Lists:
        found = {}
        for system, (places, place_bounds, scores, score_bounds) in self._systems.items():
            chosen = places[place_bounds[row] : place_bounds[row + 1]]
            listed = scores[score_bounds[row] : score_bounds[row + 1]]
            found[system] = RankedDocuments([names[i] for i in chosen], _float32(listed))
        return found


def _bounds(column: pa.ListArray) -> list[int]:
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    return [0, *np.cumsum(lengths).astype(int).tolist()]


def _float32(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


def _find(known: Lists, query_ids: Sequence[str]) -> RankedDocuments:
    """The list under the first of a query's ids that has one."""
    for query_id in query_ids:
        if query_id in known:
            return known[query_id]
    return RankedDocuments([], np.empty(0, np.float32))
