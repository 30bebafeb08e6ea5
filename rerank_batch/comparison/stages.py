"""The stages of a comparison: several systems over the same queries, and nothing done twice.

Each distinct retrieval is made once, at the largest depth that a system asks of it, and each model
reads a pair once, whichever systems want it. As in `rerank_batch.pipeline.stage`, a stage
takes a table and returns one, one row per query.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rerank_batch import ranking, schema, tally
from rerank_batch.index.open import Index
from rerank_batch.ranking import Documents
from rerank_batch.rerankers.base import NO_SCORES, QueryScores
from rerank_batch.rerankers.cascade import Block, QueryCandidates, Reader
from rerank_batch.rerankers.stages import ScorerUse, open_scorer
from rerank_batch.retrieval.fusion import Fusion
from rerank_batch.retrieval.gate import Gate
from rerank_batch.retrieval.running_lists import lists_of, with_lists
from rerank_batch.retrieval.sources import SourceUse
from rerank_batch.retrieval.stages import SearchGroup

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
            retrieved = row.copy()
            for each in self._fused:
                parts = [retrieved[n].first(d) for n, d in zip(each.of, each.depths, strict=True)]
                row.append(each.fusion.fuse(parts, each.depth))
        return with_lists(table, lists)


class ScoreSystems:
    """Takes every system as far as the models of this stage can: the next stage goes on."""

    def __init__(
        self,
        systems: tuple[System, ...],
        scorers: tuple[ScorerUse, ...],
        index: Index,
        threads: int = 1,
    ) -> None:
        self._systems = systems
        texts = index.texts()
        self._readers = {
            use.number: Reader(use.number, open_scorer(use, threads), texts) for use in scorers
        }

    def __call__(self, table: pa.Table) -> pa.Table:
        """SEARCHED or COMPARED in, COMPARED out."""
        block = Block(table)
        by_system = candidates_of(table, self._systems)
        memories = {
            number: _Memory(reader, block.queries) for number, reader in self._readers.items()
        }
        while waiting := self._waiting(by_system):
            # Whoever reads most goes first: the others then find their pairs known.
            system, reads = max(waiting, key=lambda each: each[1].depth or each[0].depth)
            candidates = by_system[system.name]
            flag = partial(flagged, system=system.name)
            for row, listed in enumerate(candidates):
                if (
                    system.gate is not None
                    and block.rejects[row] is None
                    and len(listed.scores) == 1
                ):
                    sure = system.gate.is_sure(listed.scores[0])
                    block.flags[row] |= {flag(schema.GATED)} if sure else set()
            positions = block.to_read(candidates, reads.depth, flag)
            pairs = [c.documents[p] for c, p in zip(candidates, positions, strict=True)]
            tally.add(read_by(system.name), float(sum(map(len, pairs))))
            scored = memories[reads.scorer].score(pairs, reads.listwise)
            block.add_stage(candidates, positions, scored, flag)
        return _with_scores(block.table(), self._systems, by_system)

    def _waiting(
        self, by_system: Mapping[str, list[QueryCandidates]]
    ) -> list[tuple[System, Reads]]:
        """The systems whose next model this stage has."""
        waiting = []
        for system in self._systems:
            state = by_system[system.name]
            done = len(state[0].scores) - 1 if state else len(system.cascade)
            if done < len(system.cascade) and system.cascade[done].scorer in self._readers:
                waiting.append((system, system.cascade[done]))
        return waiting


class _Memory:
    """A model for the queries of a block that reads nothing twice."""

    def __init__(self, reader: Reader, queries: Sequence[str]) -> None:
        self._reader = reader
        self._queries = queries
        self._pairs: list[dict[int, tuple[float, bool]]] = [{} for _ in queries]
        self._lists: list[dict[bytes, QueryScores]] = [{} for _ in queries]

    def score(self, wanted: Sequence[Documents], listwise: bool) -> list[QueryScores]:
        """Scores of the documents wanted of each query; of a listwise model those of whole lists,
        known only for the same documents in the same order."""
        if listwise:
            return self._score_lists(wanted)
        new = [
            np.array([d for d in documents.tolist() if d not in known], np.int64)
            for documents, known in zip(wanted, self._pairs, strict=True)
        ]
        new_scores = self._read(new)
        scores = []
        for row, documents in enumerate(wanted):
            one, known = new_scores[row], self._pairs[row]
            if one.fell_back:
                scores.append(one)
                continue
            pairs = zip(one.values.tolist(), one.truncated.tolist(), strict=True)
            known.update(zip(new[row].tolist(), pairs, strict=True))
            values, cut = (
                zip(*(known[d] for d in documents.tolist()), strict=True)
                if len(documents)
                else ((), ())
            )
            scores.append(QueryScores(np.array(values, np.float32), np.array(cut, np.bool_)))
        return scores

    def _score_lists(self, wanted: Sequence[Documents]) -> list[QueryScores]:
        new = [
            ranking.NO_DOCUMENTS if documents.tobytes() in known else documents
            for documents, known in zip(wanted, self._lists, strict=True)
        ]
        new_scores = self._read(new)
        for row, documents in enumerate(new):
            if len(documents):
                self._lists[row][documents.tobytes()] = new_scores[row]
        return [
            known.get(documents.tobytes(), new_scores[row])
            for row, (documents, known) in enumerate(zip(wanted, self._lists, strict=True))
        ]

    def _read(self, documents: Sequence[Documents]) -> list[QueryScores]:
        if not any(map(len, documents)):
            return [NO_SCORES for _ in documents]
        return self._reader.score(self._queries, documents)


def candidates_of(table: pa.Table, systems: Sequence[System]) -> dict[str, list[QueryCandidates]]:
    """Of every system the candidates of each query, with the scores that they have so far."""
    retrieved = table.column(schema.RETRIEVALS).to_pylist()
    known = schema.SYSTEM_SCORES in table.column_names
    later = table.column(schema.SYSTEM_SCORES).to_pylist() if known else None
    by_system: dict[str, list[QueryCandidates]] = {}
    for number, system in enumerate(systems):
        state = []
        for row, lists in enumerate(retrieved):
            first = lists[system.retrieval]
            documents = np.array(first[schema.DOCUMENTS][: system.depth], np.int64)
            scores = [np.array(first[schema.RETRIEVAL_SCORES][: system.depth], np.float32)]
            if later is not None:
                scores += [np.array(values, np.float32) for values in later[row][number]]
            state.append(QueryCandidates(documents, np.vstack(scores)))
        by_system[system.name] = state
    return by_system


def _with_scores(
    table: pa.Table, systems: Sequence[System], by_system: Mapping[str, list[QueryCandidates]]
) -> pa.Table:
    scores = [
        [
            [schema.nullable(stage) for stage in by_system[system.name][row].scores[1:]]
            for system in systems
        ]
        for row in range(table.num_rows)
    ]
    column = pa.array(scores, schema.COMPARED.field(schema.SYSTEM_SCORES).type)
    if schema.SYSTEM_SCORES in table.column_names:
        return schema.replace_column(table, schema.SYSTEM_SCORES, column)
    return table.append_column(schema.SYSTEM_SCORES, column)
