"""The heavy stage of a label run: planned queries in, their labelled documents out.

Knows nothing of Ray.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rerank_batch import schema
from rerank_batch.index.open import Index
from rerank_batch.labels.mining.draws import order_key
from rerank_batch.labels.mining.pools import (
    ORIGIN_RANDOM,
    LabelPool,
    MinedQuery,
    Mining,
    PoolReader,
)
from rerank_batch.labels.rows import LABELLED, NEGATIVE, NO_NEGATIVE, NO_POSITIVE, POSITIVE, RULES
from rerank_batch.labels.rules import Candidate, Known, Text
from rerank_batch.schema import TableRow

ORIGIN_JUDGED, ORIGIN_TEACHER = "judged", "teacher"


class MineLabels:
    """Adds the labelled documents of each query, and what kept others out."""

    def __init__(self, index: Index, mining: Mining, threads: int = 1) -> None:
        self._texts = index.texts()
        self._mining = mining
        self._pools = PoolReader(self._texts, mining)

    def __call__(self, table: pa.Table) -> pa.Table:
        """`rows.PLAN` in; `rows.LABELLED` and ``reject`` out."""
        queries = self._pools.of(table)
        texts = self._contents(queries)
        labelled = [self._label(query, texts) for query in queries]
        columns: dict[str, list[Any]] = {
            "looked_at": [row.looked_at for row in labelled],
            "removed": [row.removed for row in labelled],
            "documents": [[] if row.reject else row.documents for row in labelled],
        }
        kept = table.select([name for name in LABELLED.names if name not in columns])
        for name, values in columns.items():
            kept = kept.append_column(name, pa.array(values, LABELLED.field(name).type))
        rejects = pa.array([row.reject for row in labelled], pa.string())
        return kept.append_column(schema.REJECT, rejects)

    def _contents(self, queries: Sequence[MinedQuery]) -> dict[str, Text]:
        """The texts of all documents that are looked at; each is read once."""
        numbers: dict[str, int] = {}
        unnumbered: dict[str, None] = {}
        for query in queries:
            unnumbered.update(dict.fromkeys(query.positives))
            for pool in query.pools:
                for hit in pool.hits:
                    if hit.number is None:
                        unnumbered[hit.doc_id] = None
                    else:
                        numbers[hit.doc_id] = hit.number
        unknown = [doc_id for doc_id in unnumbered if doc_id not in numbers]
        numbers |= zip(unknown, self._texts.numbers(unknown).tolist(), strict=True)
        there = sorted((number, doc_id) for doc_id, number in numbers.items() if number >= 0)
        contents = self._texts.contents(np.array([number for number, _ in there], dtype=np.int64))
        shingle = self._mining.rules.config.shingle
        return {
            doc_id: Text(text, shingle) for (_, doc_id), text in zip(there, contents, strict=True)
        }

    def _label(self, query: MinedQuery, texts: Mapping[str, Text]) -> "_Labelled":
        removed = dict.fromkeys(RULES, 0)
        # What a positive is lost by counts as well: no other trace of it would be left.
        removed["held_out"] = len(query.held_out)
        removed["not_in_corpus"] = sum(doc_id not in texts for doc_id in query.positives)
        positives = [doc_id for doc_id in query.positives if doc_id in texts]
        known = Known(
            query.grades,
            query.held_out | query.withheld,
            [texts[doc_id] for doc_id in positives],
            [query.scores.get(doc_id, _UNSEEN)[1] for doc_id in positives],
        )
        documents = []
        for doc_id in positives:
            rank, score = query.scores.get(doc_id, _UNSEEN)
            candidate = Candidate(doc_id, texts[doc_id], score, rank)
            origin = ORIGIN_JUDGED if self._mining.graded else ORIGIN_TEACHER
            documents.append(self._document(candidate, known, POSITIVE, origin))
        looked_at = 0
        for pool in query.pools:
            for candidate, rule in self._chosen(pool, query, known, texts):
                looked_at += 1
                if rule is None:
                    documents.append(self._document(candidate, known, NEGATIVE, pool.origin))
                elif rule != _NOT_DRAWN and candidate.doc_id not in query.held_out:
                    removed[rule] += 1
        reject = None
        if not positives:
            reject = NO_POSITIVE
        elif len(documents) == len(positives) and self._mining.wants_negatives:
            reject = NO_NEGATIVE
        return _Labelled(documents, removed, looked_at, reject)

    def _chosen(
        self, pool: LabelPool, query: MinedQuery, known: Known, texts: Mapping[str, Text]
    ) -> Iterator[tuple[Candidate, str | None]]:
        """The documents of a pool that are looked at, and what keeps each out.

        Windows are looked at whole and then drawn from; of random documents as many are looked at
        as it takes.
        """
        positive = self._mining.rules.against(known)
        judged = (
            (candidate, self._mining.rules.reason(candidate, known, positive))
            for candidate in (
                Candidate(hit.doc_id, texts.get(hit.doc_id), hit.score, hit.rank)
                for hit in pool.hits
            )
        )
        if pool.count == "all":
            yield from judged
        elif pool.origin == ORIGIN_RANDOM:
            yield from _until(judged, pool.count)
        else:
            listed = list(judged)
            good = [candidate.doc_id for candidate, rule in listed if rule is None]
            key = order_key(self._mining.seed, query.query_id)
            drawn = set(heapq.nsmallest(pool.count, good, key=key))
            for candidate, rule in listed:
                is_left = rule is None and candidate.doc_id not in drawn
                yield candidate, _NOT_DRAWN if is_left else rule

    def _document(self, candidate: Candidate, known: Known, role: str, origin: str) -> TableRow:
        grade = known.grades.get(candidate.doc_id) if self._mining.graded else None
        return {
            "doc_id": candidate.doc_id,
            "document": candidate.text.text if candidate.text else "",
            "label": grade,
            "role": role,
            "origin": origin,
            "rank": candidate.rank,
            "teacher_score": candidate.score,
        }


@dataclass(frozen=True)
class _Labelled:
    documents: list[TableRow]
    removed: dict[str, int]
    looked_at: int
    reject: str | None


def _until(
    judged: Iterator[tuple[Candidate, str | None]], count: int
) -> Iterator[tuple[Candidate, str | None]]:
    """As many as it takes to have ``count`` that no rule keeps out."""
    for candidate, rule in judged:
        yield candidate, rule
        count -= rule is None
        if not count:
            return


_UNSEEN: tuple[None, None] = (None, None)
_NOT_DRAWN = "not drawn"
