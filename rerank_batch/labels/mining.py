"""The heavy stage of a label run: planned queries in, their labelled documents out.

What is drawn for a query depends on the seed, its id and the ids of documents alone: on no random
generator's version, no order of blocks, no number of workers. Knows nothing of Ray.
"""

import hashlib
import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from rerank_batch import schema
from rerank_batch.config import LabelPositivesConfig, LabelWindowConfig
from rerank_batch.index.open import Index
from rerank_batch.labels.candidates import CandidateReader, Candidates, Source
from rerank_batch.labels.rows import (
    LABELLED,
    NEGATIVE,
    NO_NEGATIVE,
    NO_POSITIVE,
    POSITIVE,
    RULES,
    SPLITS,
)
from rerank_batch.labels.rules import Candidate, Known, Rules, Text

ORIGIN_JUDGED, ORIGIN_TEACHER, ORIGIN_RANDOM = "judged", "teacher", "random"

_SPARE_DRAWS = 4
"""Random documents beyond those that are wanted, for those that turn out to be known."""

_WORD = 8


@dataclass(frozen=True)
class OtherRun:
    """Another run whose candidates become negatives: its name in ``origin``, and where it lies.

    ``same_teacher``: its scores are of the same model, so that they can stand as teacher scores.
    """

    name: str
    source: Source
    window: LabelWindowConfig
    same_teacher: bool


@dataclass(frozen=True)
class Mining:
    """What a query's labels are made of; see `config.LabelsConfig`.

    ``graded``: grades are those of a source of truth, else labels stay null (teacher).
    ``withheld``: see `splits.Splits`.
    """

    source: Source
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
class _Hit:
    """A document that is looked at, by id and, where it is known already, number."""

    doc_id: str
    rank: int | None
    score: float | None
    number: int | None = None


@dataclass(frozen=True)
class _Pool:
    """Documents of one origin, ``count`` of which are wanted; in the order in which they count."""

    origin: str
    hits: list[_Hit]
    count: Literal["all"] | int


@dataclass(frozen=True)
class _Query:
    """A planned query with everything that is looked at for it.

    ``held_out``: relevant to it and to a query of a stricter split; ``withheld``: only to that.
    """

    query_id: str
    grades: dict[str, float]
    held_out: set[str]
    withheld: set[str]
    positives: list[str]
    scores: dict[str, tuple[int, float | None]]
    pools: list[_Pool]


class MineLabels:
    """Adds the labelled documents of each query, and what kept others out."""

    def __init__(self, index: Index, mining: Mining, threads: int = 1) -> None:
        self._texts = index.texts()
        self._mining = mining
        self._source = CandidateReader(mining.source)
        self._others = [CandidateReader(other.source) for other in mining.others]

    def __call__(self, table: pa.Table) -> pa.Table:
        """`rows.PLAN` in; `rows.LABELLED` and ``reject`` out."""
        queries = self._queries(table)
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

    def _queries(self, table: pa.Table) -> list[_Query]:
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
        random: Sequence[_Hit],
    ) -> _Query:
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
            pools.append(_Pool(ORIGIN_RANDOM, hits, self._mining.random))
        withheld = {
            hit.doc_id
            for pool in pools
            for hit in pool.hits
            if self._mining.withheld.get(hit.doc_id, 0) > split and hit.doc_id not in grades
        }
        return _Query(query_id, grades, held_out, withheld, chosen, scores, pools)

    def _pools(
        self,
        found: Candidates,
        others: Sequence[Candidates],
        scores: Mapping[str, tuple[int, float | None]],
    ) -> Iterator[_Pool]:
        """What was retrieved; a document is looked at in the first pool alone that has it."""
        seen: set[str] = set()
        origin = "retrieval:" + _name(self._mining.window)
        yield _Pool(
            origin, _window(found, self._mining.window, seen, scores), self._mining.window.count
        )
        for other, candidates in zip(self._mining.others, others, strict=True):
            # A score of the run itself goes before that of another.
            own = {doc_id: value for doc_id, value in scores.items() if value[1] is not None}
            if not other.same_teacher:
                candidates = replace(candidates, scores=np.full_like(candidates.scores, np.nan))
            hits = _window(candidates, other.window, seen, own)
            yield _Pool(f"run:{other.name}", hits, other.window.count)

    def _random(self, query_ids: Sequence[str]) -> list[list[_Hit]]:
        """A few random documents of the whole corpus for each query."""
        if not self._mining.random:
            return [[]] * len(query_ids)
        wanted = self._mining.random + _SPARE_DRAWS
        total = len(self._texts)
        numbers = [draws(self._mining.seed, each, total, wanted) for each in query_ids]
        distinct = sorted({number for drawn in numbers for number in drawn})
        ids = self._texts.ids(np.array(distinct, dtype=np.int64))
        names = dict(zip(distinct, ids, strict=True))
        return [[_Hit(names[n], None, None, n) for n in drawn] for drawn in numbers]

    def _unknown(self, query_id: str, hits: Sequence[_Hit], known: set[str]) -> list[_Hit]:
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
            hits = [_Hit(each, None, None, n) for n, each in zip(numbers, ids, strict=True)]

    def _contents(self, queries: Sequence[_Query]) -> dict[str, Text]:
        """The texts of all documents that are looked at; each is read once."""
        numbers: dict[str, int] = {}
        asked: dict[str, None] = {}
        for query in queries:
            asked.update(dict.fromkeys(query.positives))
            for pool in query.pools:
                for hit in pool.hits:
                    if hit.number is None:
                        asked[hit.doc_id] = None
                    else:
                        numbers[hit.doc_id] = hit.number
        unknown = [doc_id for doc_id in asked if doc_id not in numbers]
        numbers |= zip(unknown, self._texts.numbers(unknown).tolist(), strict=True)
        there = sorted((number, doc_id) for doc_id, number in numbers.items() if number >= 0)
        contents = self._texts.contents(np.array([number for number, _ in there], dtype=np.int64))
        shingle = self._mining.rules.config.shingle
        return {
            doc_id: Text(text, shingle) for (_, doc_id), text in zip(there, contents, strict=True)
        }

    def _label(self, query: _Query, texts: Mapping[str, Text]) -> "_Labelled":
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
        self, pool: _Pool, query: _Query, known: Known, texts: Mapping[str, Text]
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

    def _document(
        self, candidate: Candidate, known: Known, role: str, origin: str
    ) -> dict[str, Any]:
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
    documents: list[dict[str, Any]]
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


def draws(seed: int, query_id: str, documents: int, count: int) -> list[int]:
    """Different numbers below ``documents`` in an order that the seed and the query decide; at most
    ``count``, fewer where so many draws repeat themselves."""
    found: dict[int, None] = {}
    block = 0
    while len(found) < min(count, documents) and block * _WORD < 4 * count:
        digest = hashlib.blake2b(f"{seed}\0{query_id}\0{block}".encode()).digest()
        for start in range(0, len(digest), _WORD):
            number = int.from_bytes(digest[start : start + _WORD], "big") % documents
            found.setdefault(number)
        block += 1
    return list(found)[:count]


def order_key(seed: int, query_id: str) -> Any:
    """A key by which documents are in an order that the seed and the query decide."""
    begun = hashlib.blake2b(f"{seed}\0{query_id}\0".encode(), digest_size=_WORD)

    def key(doc_id: str) -> bytes:
        whole = begun.copy()
        whole.update(doc_id.encode())
        return whole.digest()

    return key


def _window(
    found: Candidates,
    window: LabelWindowConfig,
    seen: set[str],
    scores: Mapping[str, tuple[int, float | None]],
) -> list[_Hit]:
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
            hits.append(_Hit(doc_id, rank, known))
    return hits


def _name(window: LabelWindowConfig) -> str:
    return f"{window.first}-{window.last if window.last is not None else 'end'}"


def _or_least(value: tuple[int, float | None] | None) -> float:
    return value[1] if value is not None and value[1] is not None else -np.inf
