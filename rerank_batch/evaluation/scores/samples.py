"""What is kept of a system's scores over the judged queries, in bounded memory.

Of each class of documents a sample is kept that depends on the queries alone, neither on their
order nor on the blocks they come in; up to `SAMPLE` scores it is all of them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rerank_batch.errors import InputError
from rerank_batch.evaluation.scores.calibration import FOLDS

SAMPLE = 200_000
"""Scores that are kept of the judged documents, and as many of the others."""


Floats = NDArray[np.float64]
Kind = Literal["relevant", "judged not relevant", "not judged"]
KINDS: tuple[Kind, ...] = ("relevant", "judged not relevant", "not judged")
RELEVANT, NOT_RELEVANT, NOT_JUDGED = range(3)


@dataclass(frozen=True)
class ScoredList:
    """A query's documents by one system, best first, and their scores: NaN where nothing read one.

    ``grades`` are the judgements of the query; above 0 is relevant.
    """

    query_id: str
    grades: Mapping[str, int]
    doc_ids: Sequence[str]
    scores: NDArray[np.float32]


class ScoreSamples:
    """What is kept of one system's scores; parts of a run are joined, in any order.

    ``thinned`` says that only some of the queries are added.
    """

    def __init__(self, system: str, sample: int = SAMPLE, thinned: bool = False) -> None:
        self.system = system
        self.thinned = thinned
        self._judged = _Sample(sample)  # apart, because there are far fewer of them
        self._others = _Sample(sample)
        self.documents = [0, 0, 0]
        self.unread = 0
        self.order = {kind: [0, 0, 0] for kind in (NOT_RELEVANT, NOT_JUDGED)}

    def add(self, listed: ScoredList) -> None:
        """Keep what is needed of a query.

        Raises:
            InputError: a score is infinite.
        """
        every = np.asarray(listed.scores, np.float64)
        read = ~np.isnan(every)
        self.unread += int(np.count_nonzero(~read))
        if not read.any():
            return
        grades = listed.grades
        kinds = np.array([_kind(grades.get(doc_id)) for doc_id in listed.doc_ids], np.int8)[read]
        scores = every[read]
        if not np.isfinite(scores).all():
            raise InputError(
                f"{self.system}: query {listed.query_id} has the score "
                f"{scores[~np.isfinite(scores)][0]}, which says nothing about its document"
            )
        keys, fold = _keys(listed.query_id, len(scores))
        rows = np.stack([keys, kinds, scores, np.full(len(scores), fold)])
        self._judged.add(rows[:, kinds != NOT_JUDGED])
        self._others.add(rows[:, kinds == NOT_JUDGED])
        by_kind = [scores[kinds == kind] for kind in range(3)]
        self.documents = [
            known + len(here) for known, here in zip(self.documents, by_kind, strict=True)
        ]
        for kind, sums in self.order.items():
            relevant, others = by_kind[RELEVANT], by_kind[kind]
            higher, equal = higher_and_equal(relevant, others)
            sums[0] += higher
            sums[1] += equal
            sums[2] += len(relevant) * len(others)

    def kept_judged(self) -> tuple[NDArray[np.int_], Floats, NDArray[np.int_]]:
        """Kinds, scores and folds of the judged documents that are kept."""
        return self._judged.kept()

    def kept_others(self) -> Floats:
        """Scores of the documents that nobody judged, of those that are kept."""
        return self._others.kept()[1]

    def join(self, other: "ScoreSamples") -> None:
        """Add what another part of the run has kept."""
        self._judged.join(other._judged)
        self._others.join(other._others)
        self.documents = [a + b for a, b in zip(self.documents, other.documents, strict=True)]
        self.unread += other.unread
        for kind, sums in self.order.items():
            sums[:] = [a + b for a, b in zip(sums, other.order[kind], strict=True)]


class _Sample:
    """At most ``size`` documents, each with a random key: those of the least keys.

    The key belongs to the document, so the same are kept in whichever order they come. A row is
    (key, kind, score, fold of its query).
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._parts: list[NDArray[np.float64]] = []
        self._held = 0

    def join(self, other: "_Sample") -> None:
        for rows in other._parts:
            self.add(rows)

    def add(self, rows: Floats) -> None:
        self._parts.append(rows)
        self._held += rows.shape[1]
        if self._held > 2 * self._size:
            self._cut()

    def kept(self) -> tuple[NDArray[np.int_], Floats, NDArray[np.int_]]:
        """Kinds, scores and folds, in one order whatever the order they came in."""
        self._cut()
        rows = self._parts[0] if self._parts else np.empty((4, 0))
        _, kinds, scores, folds = rows[:, np.lexsort(rows[:3][::-1])]
        return kinds.astype(int), scores, folds.astype(int)

    def _cut(self) -> None:
        if not self._parts:
            return
        rows = np.concatenate(self._parts, axis=1)
        if rows.shape[1] > self._size:
            rows = rows[:, np.argpartition(rows[0], self._size)[: self._size]]
        self._parts, self._held = [rows], rows.shape[1]


def higher_and_equal(scores: Floats, others: Floats) -> tuple[int, int]:
    """Of all pairs of a score and another: in how many the score is higher, in how many equal.

    With the equal ones as halves it is the statistic of the Mann-Whitney test.
    """
    others = np.sort(others)
    below, up_to = (np.searchsorted(others, scores, side) for side in ("left", "right"))
    return int(below.sum()), int((up_to - below).sum())


def _kind(grade: int | None) -> int:
    if grade is None:
        return NOT_JUDGED
    return RELEVANT if grade > 0 else NOT_RELEVANT


def _keys(query_id: str, count: int) -> tuple[Floats, int]:
    """A random key for each document of a query, and the fold of the query."""
    seed = hashlib.blake2b(query_id.encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(seed))
    return rng.random(count), int(rng.integers(FOLDS))
