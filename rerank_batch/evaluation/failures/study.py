"""Where reranking helped and hurt most, and whose a failure is: retrieval's or the reranker's.

A relevant document that is not among the candidates no reranker can rank; one that retrieval had
in the top of its list and the reranker has not is the reranker's own doing. Texts of documents are
in the index, not in a run: here are ids, places and grades.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from heapq import nsmallest

from rerank_batch.evaluation.judged import JudgedQuery
from rerank_batch.schema import JsonObject

TOP = 10
"""How much of a list is shown, and what a relevant document has to stay in."""

BEYOND = 1 << 30
"""Behind every list: the place of a document that is not in it."""

MAX_CASES = 10
"""Queries that are kept of each kind."""


@dataclass(frozen=True)
class ListedDocument:
    """A document in the top of a list: its grade, None where nobody judged it, and its place in the
    other list, None where it is not in it."""

    doc_id: str
    grade: int | None
    other_place: int | None

    @property
    def relevant(self) -> bool:
        """Whether it was judged, and as relevant."""
        return self.grade is not None and self.grade > 0


@dataclass(frozen=True)
class Moved:
    """A relevant document that the reranker took from the top, and its places before and after;
    ``after`` is None where the other system's list has no such document."""

    doc_id: str
    grade: int
    before: int
    after: int | None


@dataclass(frozen=True)
class Case:
    """A judged query: its values of the headline measure and the top of both lists.

    ``retrieval`` is the list of the baseline, ``reranked`` that of the system beside it.
    ``never_found`` are its relevant documents that are not among the system's candidates, best
    grade first; ``relevant`` is how many it has.
    """

    query_id: str
    text: str
    before: float
    after: float
    retrieval: tuple[ListedDocument, ...]
    reranked: tuple[ListedDocument, ...]
    relevant: int
    never_found: tuple[str, ...]
    pushed_down: tuple[Moved, ...]

    @property
    def gain(self) -> float:
        """Reranked minus retrieval."""
        return self.after - self.before


@dataclass(frozen=True)
class FailureGroup:
    """How many queries and documents there are of a kind, and the worst `MAX_CASES` queries."""

    queries: int = 0
    documents: int = 0
    cases: list[Case] = field(default_factory=list)


@dataclass(frozen=True)
class Failures:
    """``helped`` and ``hurt`` most, by the headline measure; the two kinds of failure.

    A query can be in several of them. ``found_nothing`` counts the queries of ``never_found`` of
    whose relevant documents not one is among the candidates.
    """

    headline: str
    helped: tuple[Case, ...]
    hurt: tuple[Case, ...]
    never_found: FailureGroup
    found_nothing: int
    pushed_down: FailureGroup

    def to_json(self) -> JsonObject:
        """The failures as JSON values: counts and ids, no texts."""
        lost, pushed = self.never_found, self.pushed_down
        return {
            "headline": self.headline,
            "top": TOP,
            "helped": {case.query_id: case.gain for case in self.helped},
            "hurt": {case.query_id: case.gain for case in self.hurt},
            "never_found": {
                "queries": lost.queries,
                "documents": lost.documents,
                "found_nothing": self.found_nothing,
                "worst": {case.query_id: list(case.never_found[:TOP]) for case in lost.cases},
            },
            "pushed_down": {
                "queries": pushed.queries,
                "documents": pushed.documents,
                "worst": {
                    case.query_id: [vars(moved) for moved in case.pushed_down]
                    for case in pushed.cases
                },
            },
        }


def find_failures(
    block: Sequence[JudgedQuery],
    systems: tuple[str, str],
    headline: str,
    before: Mapping[str, float],
    after: Mapping[str, float],
) -> Failures:
    """Look through some judged queries of a run; `joined` makes one of several.

    ``systems`` are the baseline and the system beside it, ``before`` and ``after`` the headline
    measure of each in them.
    """
    cases = [_case(q, systems, before[q.query_id], after[q.query_id]) for q in block]
    return Failures(
        headline=headline,
        helped=tuple(_worst([case for case in cases if case.gain > 0], _most_helped)),
        hurt=tuple(_worst([case for case in cases if case.gain < 0], _most_hurt)),
        never_found=_group(cases, lambda case: len(case.never_found), _most_missing),
        found_nothing=sum(0 < case.relevant == len(case.never_found) for case in cases),
        pushed_down=_group(cases, lambda case: len(case.pushed_down), _most_pushed),
    )


def joined(parts: Iterable[Failures], headline: str) -> Failures:
    """What was found in several blocks as one; their order changes nothing."""
    nothing = Failures(headline, (), (), FailureGroup(), 0, FailureGroup())
    return reduce(_join, parts, nothing)


def _join(one: Failures, other: Failures) -> Failures:
    return Failures(
        headline=one.headline,
        helped=tuple(_worst([*one.helped, *other.helped], _most_helped)),
        hurt=tuple(_worst([*one.hurt, *other.hurt], _most_hurt)),
        never_found=_join_groups(one.never_found, other.never_found, _most_missing),
        found_nothing=one.found_nothing + other.found_nothing,
        pushed_down=_join_groups(one.pushed_down, other.pushed_down, _most_pushed),
    )


def _case(query: JudgedQuery, systems: tuple[str, str], before: float, after: float) -> Case:
    first, second = (
        {doc_id: place for place, doc_id in enumerate(query.lists[system].doc_ids, start=1)}
        for system in systems
    )
    candidates = {*query.retrieved[systems[1]].doc_ids, *second}
    relevant = sorted(
        (doc_id for doc_id, grade in query.grades.items() if grade > 0),
        key=lambda doc_id: (-query.grades[doc_id], doc_id),
    )
    return Case(
        query_id=query.query_id,
        text=query.text,
        before=before,
        after=after,
        retrieval=_top(first, second, query.grades),
        reranked=_top(second, first, query.grades),
        relevant=len(relevant),
        never_found=tuple(doc_id for doc_id in relevant if doc_id not in candidates),
        pushed_down=tuple(
            Moved(doc_id, query.grades[doc_id], first[doc_id], second.get(doc_id))
            for doc_id in relevant
            if first.get(doc_id, BEYOND) <= TOP < second.get(doc_id, BEYOND)
        ),
    )


def _top(
    places: Mapping[str, int], others: Mapping[str, int], grades: Mapping[str, int]
) -> tuple[ListedDocument, ...]:
    return tuple(
        ListedDocument(doc_id, grades.get(doc_id), others.get(doc_id))
        for doc_id in list(places)[:TOP]
    )


Key = Callable[[Case], tuple[float, float, str]]


def _group(cases: Sequence[Case], count: Callable[[Case], int], key: Key) -> FailureGroup:
    found = [case for case in cases if count(case)]
    return FailureGroup(len(found), sum(map(count, found)), _worst(found, key))


def _join_groups(one: FailureGroup, other: FailureGroup, key: Key) -> FailureGroup:
    return FailureGroup(
        queries=one.queries + other.queries,
        documents=one.documents + other.documents,
        cases=_worst([*one.cases, *other.cases], key),
    )


def _worst(cases: Sequence[Case], key: Key) -> list[Case]:
    return nsmallest(MAX_CASES, cases, key=key)


def _most_helped(case: Case) -> tuple[float, float, str]:
    return -case.gain, 0, case.query_id


def _most_hurt(case: Case) -> tuple[float, float, str]:
    return case.gain, 0, case.query_id


def _most_missing(case: Case) -> tuple[float, float, str]:
    """Queries first of whose relevant documents the smallest share was found."""
    return -len(case.never_found) / case.relevant, -len(case.never_found), case.query_id


def _most_pushed(case: Case) -> tuple[float, float, str]:
    return -len(case.pushed_down), case.gain, case.query_id
