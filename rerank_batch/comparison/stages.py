"""The boxes of a comparison: several systems over the same queries, and nothing done twice.

Each distinct retrieval is made once, at the largest depth that a system asks of it, and each model
reads a pair once, whichever systems want it. Like those of `rerank_batch.pipeline.stages`, from
table to table, one row per query; knows nothing of Ray.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rerank_batch import ranking, schema, tally
from rerank_batch.data.qrels import Qrels, merge_grades
from rerank_batch.index.index import Index
from rerank_batch.pipeline.stages import (
    ScorerUse,
    SearchGroup,
    contents_of,
    open_scorer,
    pairs_of,
    seconds_of,
)
from rerank_batch.progress import pairs as progress
from rerank_batch.rerankers.base import PairScorer
from rerank_batch.retrieval.fusion import Fusion
from rerank_batch.retrieval.gate import Gate
from rerank_batch.retrieval.running_lists import lists_of, with_lists
from rerank_batch.retrieval.sources import SourceUse

Documents = NDArray[np.int64]
Floats32 = NDArray[np.float32]


@dataclass(frozen=True)
class Reads:
    """A model of a system's cascade: its number among the scorers, and how much it reads."""

    scorer: int
    depth: int | None = None
    listwise: bool = False


@dataclass(frozen=True)
class System:
    """A system of a comparison: which of the retrievals it takes and to what depth, when it goes
    without its models, and these in the order in which they read."""

    name: str
    retrieval: int
    depth: int
    cascade: tuple[Reads, ...] = ()
    gate: Gate | None = None


def read_by(system: str) -> str:
    """The name of a sum of the run: how many pairs the models of a system read, new or known."""
    return f"read.{system}"


def flagged(flag: str, system: str) -> str:
    """A flag of one system."""
    return f"{flag}: {system}"


class SearchAlso:
    """Adds what one more retrieval finds, and keeps the vector for the next.

    With ``goes_on``, ``index`` is the last group of its shards, and the groups before it have begun
    the list.
    """

    def __init__(
        self, index: Index, use: SourceUse, goes_on: bool = False, threads: int = 1
    ) -> None:
        self._search = SearchGroup(index, (use,), goes_on, threads)
        self._depth = use.depth

    def __call__(self, table: pa.Table) -> pa.Table:
        """PLAN, ENCODED or SEARCHED in, SEARCHED out."""
        table = self._search(table)
        flags = [set(each) for each in table.column(schema.FLAGS).to_pylist()]
        lists = lists_of(table)
        for row in schema.alive_rows(table):
            if len(lists[row][-1].documents) < self._depth:
                flags[row].add(schema.FEW_CANDIDATES)
        ordered = pa.array([sorted(each) for each in flags], pa.list_(pa.string()))
        return schema.replace_column(table, schema.FLAGS, ordered)


@dataclass(frozen=True)
class Fused:
    """A retrieval that is made of others: their numbers, how much it takes of each, and how."""

    of: tuple[int, ...]
    depths: tuple[int, ...]
    fusion: Fusion
    depth: int


class FuseAlso:
    """Adds retrievals that are made of those which are there."""

    def __init__(self, fused: tuple[Fused, ...], threads: int = 1) -> None:
        self._fused = fused

    def __call__(self, table: pa.Table) -> pa.Table:
        """SEARCHED in, SEARCHED out."""
        lists = lists_of(table)
        for row in lists:
            found = row.copy()
            for each in self._fused:
                parts = [found[n].first(d) for n, d in zip(each.of, each.depths, strict=True)]
                row.append(each.fusion.fuse(parts, each.depth))
        return with_lists(table, lists)


class ScoreSystems:
    """Takes every system as far as the models that are here can: the next stage goes on."""

    def __init__(
        self,
        systems: tuple[System, ...],
        scorers: tuple[ScorerUse, ...],
        index: Index,
        threads: int = 1,
    ) -> None:
        self._systems = systems
        self._texts = index.texts()
        self._scorers = {use.number: open_scorer(use, threads) for use in scorers}

    def __call__(self, table: pa.Table) -> pa.Table:
        """SEARCHED or COMPARED in, COMPARED out."""
        rejects = table.column(schema.REJECT).to_pylist()
        flags = [set(each) for each in table.column(schema.FLAGS).to_pylist()]
        queries = table.column(schema.QUERY).to_pylist()
        begun = _begun(table, self._systems)
        memories = {
            number: _Memory(number, scorer, queries, self._texts)
            for number, scorer in self._scorers.items()
        }
        while waiting := self._waiting(begun):
            # Whoever reads most goes first: the others then find their pairs known.
            system, reads = max(waiting, key=lambda each: each[1].depth or each[0].depth)
            state = begun[system.name]
            for row, found in enumerate(state):
                if system.gate is not None and rejects[row] is None and len(found.scores) == 1:
                    sure = system.gate.is_sure(found.scores[0])
                    flags[row] |= {flagged(schema.GATED, system.name)} if sure else set()
            chosen = [
                ranking.NO_DOCUMENTS
                if rejects[row] is not None or flagged(schema.GATED, system.name) in flags[row]
                else ranking.cascade_order(found.scores, found.documents)[: reads.depth]
                for row, found in enumerate(state)
            ]
            wanted = [found.documents[c] for found, c in zip(state, chosen, strict=True)]
            tally.add(read_by(system.name), float(sum(map(len, wanted))))
            scored = memories[reads.scorer].score(wanted, reads.listwise)
            for row, (found, places) in enumerate(zip(state, chosen, strict=True)):
                values = np.full(len(found.documents), np.nan, np.float32)
                one = scored[row]
                if one.fell_back:
                    flags[row].add(flagged(schema.FELL_BACK, system.name))
                elif not np.isfinite(one.values).all():
                    rejects[row] = schema.NON_FINITE_SCORE
                else:
                    values[places] = one.values
                if one.truncated.any():
                    flags[row].add(flagged(schema.TRUNCATED, system.name))
                found.scores = np.vstack([found.scores, values])
        table = schema.replace_column(table, schema.REJECT, pa.array(rejects, pa.string()))
        ordered = pa.array([sorted(each) for each in flags], pa.list_(pa.string()))
        return _with_scores(
            schema.replace_column(table, schema.FLAGS, ordered), self._systems, begun
        )

    def _waiting(self, begun: Mapping[str, list["_Found"]]) -> list[tuple[System, Reads]]:
        """The systems whose next model is here."""
        waiting = []
        for system in self._systems:
            state = begun[system.name]
            done = len(state[0].scores) - 1 if state else len(system.cascade)
            if done < len(system.cascade) and system.cascade[done].scorer in self._scorers:
                waiting.append((system, system.cascade[done]))
        return waiting


@dataclass
class _Found:
    """The candidates of a query in a system, and float32 [1 + stages, n] scores so far."""

    documents: Documents
    scores: ranking.Scores


@dataclass(frozen=True)
class _Scored:
    values: Floats32
    truncated: NDArray[np.bool_]
    fell_back: bool = False


class _Memory:
    """A scorer for the queries of a block that is asked for nothing twice."""

    def __init__(self, number: int, scorer: PairScorer, queries: Sequence[str], texts: Any) -> None:
        self._number = number
        self._scorer = scorer
        self._queries = queries
        self._texts = texts
        self._pairs: list[dict[int, tuple[float, bool]]] = [{} for _ in queries]
        self._lists: list[dict[bytes, _Scored]] = [{} for _ in queries]

    def score(self, wanted: Sequence[Documents], listwise: bool) -> list[_Scored]:
        """Scores of the documents wanted of each query; of a listwise model those of whole lists,
        known only for the same documents in the same order."""
        if listwise:
            return self._score_lists(wanted)
        new = [
            np.array([d for d in documents.tolist() if d not in known], np.int64)
            for documents, known in zip(wanted, self._pairs, strict=True)
        ]
        asked = self._ask(new)
        found = []
        for row, documents in enumerate(wanted):
            one, known = asked[row], self._pairs[row]
            if one.fell_back:
                found.append(one)
                continue
            pairs = zip(one.values.tolist(), one.truncated.tolist(), strict=True)
            known.update(zip(new[row].tolist(), pairs, strict=True))
            values, cut = (
                zip(*(known[d] for d in documents.tolist()), strict=True)
                if len(documents)
                else ((), ())
            )
            found.append(_Scored(np.array(values, np.float32), np.array(cut, np.bool_)))
        return found

    def _score_lists(self, wanted: Sequence[Documents]) -> list[_Scored]:
        new = [
            ranking.NO_DOCUMENTS if documents.tobytes() in known else documents
            for documents, known in zip(wanted, self._lists, strict=True)
        ]
        asked = self._ask(new)
        for row, documents in enumerate(new):
            if len(documents):
                self._lists[row][documents.tobytes()] = asked[row]
        return [
            known.get(documents.tobytes(), asked[row])
            for row, (documents, known) in enumerate(zip(wanted, self._lists, strict=True))
        ]

    def _ask(self, documents: Sequence[Documents]) -> list[_Scored]:
        count = sum(map(len, documents))
        if not count:
            return [_NOTHING for _ in documents]
        texts = contents_of(self._texts, documents)
        tally.add(pairs_of(self._number), float(count))
        began = time.perf_counter()
        with progress.reading(self._number, count):
            scored = self._scorer.score(self._queries, texts)
        tally.add(seconds_of(self._number), time.perf_counter() - began)
        return [
            _Scored(scored.values[row], scored.truncated[row], row in scored.fell_back)
            for row in range(len(documents))
        ]


class AssembleSystems:
    """Turns what the systems found into the rows of a comparison, with measures where there are
    judgements."""

    def __init__(
        self,
        systems: tuple[System, ...],
        index: Index,
        measures: tuple[str, ...],
        qrels: Qrels | None,
        threads: int = 1,
    ) -> None:
        self._systems = systems
        self._texts = index.texts()
        self._measures = measures
        self._qrels = qrels or {}

    def __call__(self, table: pa.Table) -> pa.Table:
        """SEARCHED or COMPARED in; `schema.comparison` and ``reject`` out."""
        names = tuple(system.name for system in self._systems)
        output = schema.comparison(self._measures, names)
        rejected = [reason is not None for reason in table.column(schema.REJECT).to_pylist()]
        begun = _begun(table, self._systems)
        candidates: list[list[str]] = []
        columns: dict[str, list[dict[str, Any]]] = {"systems": [], "retrieved": []}
        rankings: dict[str, list[list[str]]] = {name: [] for name in names}
        for row in range(table.num_rows):
            found = {name: state[row] for name, state in begun.items()}
            if rejected[row]:
                found = {
                    name: _Found(ranking.NO_DOCUMENTS, np.empty((1, 0), np.float32))
                    for name in names
                }
            union = np.unique(
                np.concatenate([ranking.NO_DOCUMENTS, *(f.documents for f in found.values())])
            )
            ids = list(self._texts.ids(union))
            candidates.append(ids)
            lists = {name: _list(f, union) for name, f in found.items()}
            columns["systems"].append(lists)
            columns["retrieved"].append({name: _start(f, union) for name, f in found.items()})
            for name, listed in lists.items():
                rankings[name].append([ids[place] for place in listed["places"]])
        metrics = self._metrics(table, rankings)
        table = table.select([*schema.PLAN.names, schema.REJECT])
        for name, column in {"candidates": candidates, **columns, "metrics": metrics}.items():
            table = table.append_column(name, pa.array(column, output.field(name).type))
        return table

    def _metrics(
        self, table: pa.Table, rankings: Mapping[str, list[list[str]]]
    ) -> list[dict[str, Any] | None]:
        from rerank_batch.evaluation.measures import parse_measures, per_query

        ids = table.column("query_id").to_pylist()
        aliases = table.column("query_ids").to_pylist()
        grades = {
            query: merged
            for query, listed in zip(ids, aliases, strict=True)
            if (merged := merge_grades(self._qrels, listed)) is not None
        }
        parsed = parse_measures(self._measures)
        values = {
            name: per_query(parsed, self._measures, grades, dict(zip(ids, listed, strict=True)))
            for name, listed in rankings.items()
        }
        return [
            {name: values[name][query] for name in rankings} if query in grades else None
            for query in ids
        ]


def _list(found: _Found, union: Documents) -> dict[str, Any]:
    """The system's list as `schema.PLACED`."""
    best = ranking.cascade_order(found.scores, found.documents)
    scores = ranking.deepest(found.scores)
    if len(found.scores) > 1:
        read = ~np.isnan(found.scores[1:]).all(axis=0)
        scores = np.where(read, scores, np.float32(np.nan))
    return _placed(found.documents[best], scores[best], union)


def _start(found: _Found, union: Documents) -> dict[str, Any]:
    return _placed(found.documents, found.scores[0], union)


def _placed(documents: Documents, scores: Floats32, union: Documents) -> dict[str, Any]:
    return {
        "places": np.searchsorted(union, documents).astype(np.int32).tolist(),
        "scores": schema.nullable(scores),
    }


def _begun(table: pa.Table, systems: Sequence[System]) -> dict[str, list[_Found]]:
    """System -> per query what it has so far."""
    retrieved = table.column(schema.RETRIEVALS).to_pylist()
    known = schema.SYSTEM_SCORES in table.column_names
    later = table.column(schema.SYSTEM_SCORES).to_pylist() if known else None
    begun: dict[str, list[_Found]] = {}
    for number, system in enumerate(systems):
        state = []
        for row, lists in enumerate(retrieved):
            first = lists[system.retrieval]
            documents = np.array(first[schema.DOCUMENTS][: system.depth], np.int64)
            scores = [np.array(first[schema.RETRIEVAL_SCORES][: system.depth], np.float32)]
            if later is not None:
                scores += [np.array(values, np.float32) for values in later[row][number]]
            state.append(_Found(documents, np.vstack(scores)))
        begun[system.name] = state
    return begun


def _with_scores(
    table: pa.Table, systems: Sequence[System], begun: Mapping[str, list[_Found]]
) -> pa.Table:
    scores = [
        [
            [schema.nullable(stage) for stage in begun[system.name][row].scores[1:]]
            for system in systems
        ]
        for row in range(table.num_rows)
    ]
    column = pa.array(scores, schema.COMPARED.field(schema.SYSTEM_SCORES).type)
    if schema.SYSTEM_SCORES in table.column_names:
        return schema.replace_column(table, schema.SYSTEM_SCORES, column)
    return table.append_column(schema.SYSTEM_SCORES, column)


_NOTHING = _Scored(np.empty(0, np.float32), np.empty(0, np.bool_))
