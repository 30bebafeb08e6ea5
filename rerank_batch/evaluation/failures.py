"""Where reranking helped and hurt most, and whose a failure is: retrieval's or the reranker's.

A relevant document that is not among the candidates no reranker can rank; one that retrieval had
in the top of its list and the reranker has not is the reranker's own doing. Texts of documents are
in the index, not in a run: here are ids, places and grades.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest

from rerank_batch.evaluation.judged import JudgedQuery

TOP = 10
"""How much of a list is shown, and what a relevant document has to stay in."""

MAX_CASES = 10
"""Queries that are kept of each kind."""


@dataclass(frozen=True)
class Hit:
    """A document in the top of a list: its grade, None where nobody judged it, and its place in the
    other list."""

    doc_id: str
    grade: int | None
    other_place: int

    @property
    def relevant(self) -> bool:
        """Whether it was judged, and as relevant."""
        return self.grade is not None and self.grade > 0


@dataclass(frozen=True)
class Moved:
    """A relevant document that the reranker took from the top, and its places before and after."""

    doc_id: str
    grade: int
    before: int
    after: int


@dataclass(frozen=True)
class Case:
    """A judged query: its values of the headline measure and the top of both lists.

    ``never_found`` are its relevant documents that are not among the candidates, best grade first;
    ``relevant`` is how many it has.
    """

    query_id: str
    text: str
    before: float
    after: float
    retrieval: tuple[Hit, ...]
    reranked: tuple[Hit, ...]
    relevant: int
    never_found: tuple[str, ...]
    pushed_down: tuple[Moved, ...]

    @property
    def gain(self) -> float:
        """Reranked minus retrieval."""
        return self.after - self.before


@dataclass
class Group:
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
    never_found: Group
    found_nothing: int
    pushed_down: Group


def find_failures(
    blocks: Iterable[Sequence[JudgedQuery]],
    headline: str,
    before: Mapping[str, float],
    after: Mapping[str, float],
) -> Failures:
    """Look through the judged queries of a run.

    ``before`` and ``after`` are the headline measure of each, of retrieval and reranked.
    """
    helped: list[Case] = []
    hurt: list[Case] = []
    never_found, pushed_down = Group(), Group()
    found_nothing = 0
    for block in blocks:
        cases = [_case(query, before[query.query_id], after[query.query_id]) for query in block]
        helped = _worst([*helped, *(case for case in cases if case.gain > 0)], _most_helped)
        hurt = _worst([*hurt, *(case for case in cases if case.gain < 0)], _most_hurt)
        _add(never_found, cases, lambda case: len(case.never_found), _most_missing)
        _add(pushed_down, cases, lambda case: len(case.pushed_down), _most_pushed)
        found_nothing += sum(0 < case.relevant == len(case.never_found) for case in cases)
    return Failures(headline, tuple(helped), tuple(hurt), never_found, found_nothing, pushed_down)


def _case(query: JudgedQuery, before: float, after: float) -> Case:
    first = {doc_id: place for place, doc_id in enumerate(query.retrieval(), start=1)}
    second = {doc_id: place for place, doc_id in enumerate(query.reranked(), start=1)}
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
        never_found=tuple(doc_id for doc_id in relevant if doc_id not in first),
        pushed_down=tuple(
            Moved(doc_id, query.grades[doc_id], first[doc_id], second[doc_id])
            for doc_id in relevant
            if doc_id in first and first[doc_id] <= TOP < second[doc_id]
        ),
    )


def _top(
    places: Mapping[str, int], others: Mapping[str, int], grades: Mapping[str, int]
) -> tuple[Hit, ...]:
    return tuple(Hit(doc_id, grades.get(doc_id), others[doc_id]) for doc_id in list(places)[:TOP])


Key = Callable[[Case], tuple[float, float, str]]


def _add(group: Group, cases: Sequence[Case], count: Callable[[Case], int], key: Key) -> None:
    new = [case for case in cases if count(case)]
    group.queries += len(new)
    group.documents += sum(map(count, new))
    group.cases = _worst([*group.cases, *new], key)


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
