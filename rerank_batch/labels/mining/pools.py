"""What is looked at for a query: its positives, and pools of possible negatives."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from rerank_batch.config import LabelPositivesConfig, LabelWindowConfig
from rerank_batch.data.text_store import TextStore
from rerank_batch.labels.candidates import CandidateReader, Candidates, CandidateSource
from rerank_batch.labels.mining.draws import draws
from rerank_batch.labels.rows import SPLITS
from rerank_batch.labels.rules import Rules

ORIGIN_RANDOM = "random"

_SPARE_DRAWS = 4
"""Random documents beyond those that are wanted, for those that turn out to be known."""


@dataclass(frozen=True)
class OtherRun:
    """Another run whose candidates become negatives: its name in ``origin``, and where it lies.

    ``same_teacher``: its scores are of the same model, so that they can stand as teacher scores.
    """

    name: str
    source: CandidateSource
    window: LabelWindowConfig
    same_teacher: bool


@dataclass(frozen=True)
class Mining:
    """What a query's labels are made of; see `config.LabelsConfig`.

    ``graded``: grades are those of a source of truth, else labels stay null (teacher).
    ``withheld``: see `splits.Splits`.
    """

    source: CandidateSource
    others: tuple[OtherRun, ...]
    window: LabelWindowConfig
    random: int
    positives: LabelPositivesConfig
    graded: bool
    rules: Rules
    seed: int
    withheld: Mapping[str, int] = field(default_factory=dict)

    @property
    def wants_negatives(self) -> bool:
        """Whether a query without any is of no use."""
        counts = [self.window.count, self.random, *[other.window.count for other in self.others]]
        return any(count != 0 for count in counts)


@dataclass(frozen=True)
class PoolHit:
    """A document that is looked at, by id and, where it is known already, number."""

    doc_id: str
    rank: int | None
    score: float | None
    number: int | None = None


@dataclass(frozen=True)
class LabelPool:
    """Documents of one origin, ``count`` of which are wanted; in the order in which they count."""

    origin: str
    hits: list[PoolHit]
    count: Literal["all"] | int


@dataclass(frozen=True)
class MinedQuery:
    """A planned query with everything that is looked at for it.

    ``held_out``: relevant to it and to a query of a stricter split; ``withheld``: only to that.
    """

    query_id: str
    grades: dict[str, float]
    held_out: set[str]
    withheld: set[str]
    positives: list[str]
    scores: dict[str, tuple[int, float | None]]
    pools: list[LabelPool]


class PoolReader:
    """Reads what is looked at for planned queries from the runs and the corpus."""

    def __init__(self, texts: TextStore, mining: Mining) -> None:
        self._texts = texts
        self._mining = mining
        self._source = CandidateReader(mining.source)
        self._others = [CandidateReader(other.source) for other in mining.others]

    def of(self, table: pa.Table) -> list[MinedQuery]:
        """What is looked at for each query of `rows.PLAN`."""
        ids = table.column("query_id").to_pylist()
        found = self._source.of(ids)
        others = [reader.of(ids) for reader in self._others]
        judged = table.column("judged").to_pylist()
        splits = table.column("split").to_pylist()
        random = self._random(ids)
        return [
            self._query(
                query_id,
                SPLITS.index(splits[row]),
                judged[row],
                found[row],
                [each[row] for each in others],
                random[row],
            )
            for row, query_id in enumerate(ids)
        ]

    def _query(
        self,
        query_id: str,
        split: int,
        judged: Sequence[Mapping[str, Any]],
        found: Candidates,
        others: Sequence[Candidates],
        random: Sequence[PoolHit],
    ) -> MinedQuery:
        grades = {each["doc_id"]: each["grade"] for each in judged}
        held_out = {each["doc_id"] for each in judged if each["held_out"]}
        relevant = [
            (-grade, doc_id)
            for doc_id, grade in grades.items()
            if grade >= self._mining.positives.grade and doc_id not in held_out
        ]
        scores = {
            doc_id: (rank, None if np.isnan(score) else score)
            for rank, (doc_id, score) in enumerate(
                zip(found.doc_ids, found.scores.tolist(), strict=True), start=1
            )
        }
        # Of equal grades the one that the teacher likes best, so that a limit keeps that.
        relevant.sort(key=lambda each: (each[0], -_or_least(scores.get(each[1])), each[1]))
        chosen = [doc_id for _, doc_id in relevant][: self._mining.positives.at_most]
        pools = list(self._pools(found, others, scores))
        if self._mining.random:
            known = {*grades, *scores, *(hit.doc_id for pool in pools for hit in pool.hits)}
            hits = self._unknown(query_id, random, known)
            pools.append(LabelPool(ORIGIN_RANDOM, hits, self._mining.random))
        withheld = {
            hit.doc_id
            for pool in pools
            for hit in pool.hits
            if self._mining.withheld.get(hit.doc_id, 0) > split and hit.doc_id not in grades
        }
        return MinedQuery(query_id, grades, held_out, withheld, chosen, scores, pools)

    def _pools(
        self,
        found: Candidates,
        others: Sequence[Candidates],
        scores: Mapping[str, tuple[int, float | None]],
    ) -> Iterator[LabelPool]:
        """What was retrieved; a document is looked at in the first pool alone that has it."""
        seen: set[str] = set()
        origin = "retrieval:" + _name(self._mining.window)
        yield LabelPool(
            origin, _window(found, self._mining.window, seen, scores), self._mining.window.count
        )
        for other, candidates in zip(self._mining.others, others, strict=True):
            # A score of the run itself goes before that of another.
            own = {doc_id: value for doc_id, value in scores.items() if value[1] is not None}
            if not other.same_teacher:
                candidates = replace(candidates, scores=np.full_like(candidates.scores, np.nan))
            hits = _window(candidates, other.window, seen, own)
            yield LabelPool(f"run:{other.name}", hits, other.window.count)

    def _random(self, query_ids: Sequence[str]) -> list[list[PoolHit]]:
        """A few random documents of the whole corpus for each query."""
        if not self._mining.random:
            return [[]] * len(query_ids)
        wanted = self._mining.random + _SPARE_DRAWS
        total = len(self._texts)
        numbers = [draws(self._mining.seed, each, total, wanted) for each in query_ids]
        distinct = sorted({number for drawn in numbers for number in drawn})
        ids = self._texts.ids(np.array(distinct, dtype=np.int64))
        names = dict(zip(distinct, ids, strict=True))
        return [[PoolHit(names[n], None, None, n) for n in drawn] for drawn in numbers]

    def _unknown(self, query_id: str, hits: Sequence[PoolHit], known: set[str]) -> list[PoolHit]:
        """The random documents that neither retrieval nor a judge has seen.

        Where too few of them are left, more are drawn: the first of them stay the same.
        """
        total, wanted = len(self._texts), self._mining.random + _SPARE_DRAWS
        while True:
            unknown = [hit for hit in hits if hit.doc_id not in known]
            if len(unknown) >= self._mining.random + _SPARE_DRAWS // 2 or wanted >= total:
                return unknown
            wanted *= 4
            numbers = draws(self._mining.seed, query_id, total, wanted)
            ids = self._texts.ids(np.array(numbers, dtype=np.int64))
            hits = [PoolHit(each, None, None, n) for n, each in zip(numbers, ids, strict=True)]


def _window(
    found: Candidates,
    window: LabelWindowConfig,
    seen: set[str],
    scores: Mapping[str, tuple[int, float | None]],
) -> list[PoolHit]:
    """The candidates of some ranks that were not seen before; notes them as seen."""
    if window.count == 0:
        return []
    hits = []
    last = window.last if window.last is not None else len(found.doc_ids)
    for rank in range(window.first, min(last, len(found.doc_ids)) + 1):
        doc_id = found.doc_ids[rank - 1]
        if doc_id not in seen:
            seen.add(doc_id)
            score = float(found.scores[rank - 1])
            own = scores[doc_id][1] if doc_id in scores else None
            known = own if own is not None else None if np.isnan(score) else score
            hits.append(PoolHit(doc_id, rank, known))
    return hits


def _name(window: LabelWindowConfig) -> str:
    return f"{window.first}-{window.last if window.last is not None else 'end'}"


def _or_least(value: tuple[int, float | None] | None) -> float:
    return value[1] if value is not None and value[1] is not None else -np.inf
