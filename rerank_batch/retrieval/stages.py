"""The stages of retrieval: queries in, their vectors, lists and candidates beside them out."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rerank_batch import schema
from rerank_batch.index.open import Index
from rerank_batch.models.fingerprint import ModelPin, pinned_model
from rerank_batch.retrieval.fusion import Fusion
from rerank_batch.retrieval.gate import Gate
from rerank_batch.retrieval.hits import NO_HITS, RankedList
from rerank_batch.retrieval.options import EncoderOptions
from rerank_batch.retrieval.running_lists import lists_of, merged, with_lists
from rerank_batch.retrieval.sources import SourceUse, open_source
from rerank_batch.scoring.modes import Choice


def choose_encoder_mode(encoder: ModelPin, options: EncoderOptions) -> Choice:
    """Measure here in which mode an encoder runs fastest."""
    from rerank_batch.retrieval.encoder import Encoder

    with pinned_model(encoder) as folder:
        return Encoder.choose(folder, options)


class EncodeQueries:
    """Adds the query's vector."""

    def __init__(self, encoder: ModelPin, options: EncoderOptions, threads: int = 1) -> None:
        from rerank_batch.retrieval.encoder import Encoder

        with pinned_model(encoder) as folder:
            self._encoder = Encoder(folder, replace(options, threads=threads))

    def __call__(self, table: pa.Table) -> pa.Table:
        """PLAN in, ENCODED out; SEARCHED in with vectors of another encoder, SEARCHED out."""
        vectors = self._encoder.encode_queries(table.column(schema.QUERY).to_pylist())
        finite = np.asarray(np.isfinite(vectors).all(axis=1))
        rejects = [None if ok else schema.NON_FINITE_VECTOR for ok in finite.tolist()]
        flat = pa.array(vectors.ravel(), pa.float32())
        offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
        if schema.REJECT in table.column_names:
            before = table.column(schema.REJECT).to_pylist()
            rejects = [first or now for first, now in zip(before, rejects, strict=True)]
            table = table.drop_columns([schema.VECTOR, schema.REJECT])
        return table.append_column(
            schema.VECTOR, pa.ListArray.from_arrays(pa.array(offsets), flat)
        ).append_column(schema.REJECT, pa.array(rejects, pa.string()))


class _Sources:
    """The open sources of an index, or of a part of one."""

    def __init__(self, index: Index, uses: Sequence[SourceUse], threads: int) -> None:
        self._opened = [(open_source(use, index, threads), use) for use in uses]

    def find(
        self, queries: pa.Table, known: Sequence[Sequence[RankedList]] | None = None
    ) -> list[tuple[RankedList, ...]]:
        """Of every query a list from each source.

        ``known`` is what other parts of the index gave to the sources that read shards, in order.
        """
        lists, place = [], 0
        for source, use in self._opened:
            new = source.find(queries, use.depth)
            if known is not None and use.reads_shards:
                before = [listed[place] for listed in known]
                new = [merged(a, b, use.depth) for a, b in zip(before, new, strict=True)]
                place += 1
            lists.append(new)
        return list(zip(*lists, strict=True))


class SearchGroup:
    """Adds what one group of shards holds, where the index is more than a node may hold.

    ``index`` is that part of it. Of every source there is one list: a new one, or with ``goes_on``
    the one that the group before made, which takes in the hits of this group.
    """

    def __init__(
        self, index: Index, sources: tuple[SourceUse, ...], goes_on: bool, threads: int = 1
    ) -> None:
        self._sources = _Sources(index, sources, threads)
        self._count = len(sources)
        self._goes_on = goes_on

    def __call__(self, table: pa.Table) -> pa.Table:
        """PLAN, ENCODED or SEARCHED in, SEARCHED out."""
        table = schema.with_vector(table)
        alive = schema.alive_rows(table)
        lists = lists_of(table)
        new = {}
        if len(alive):
            known = [lists[row][-self._count :] for row in alive] if self._goes_on else None
            listed = self._sources.find(table.take(pa.array(alive)), known)
            new = dict(zip(alive.tolist(), listed, strict=True))
        for row, before in enumerate(lists):
            if not self._goes_on:
                lists[row] = [*before, *new.get(row, [NO_HITS] * self._count)]
            elif row in new:
                lists[row] = [*before[: -self._count], *new[row]]
        return with_lists(table, lists)


class SearchShards:
    """Adds the best documents and their scores, merged over all shards of the index.

    Of several sources the lists are fused. With a gate, queries are flagged that need no reranker.
    Where ``index`` is the last group of its shards, the groups before it have left their lists.
    """

    def __init__(
        self,
        index: Index,
        depth: int,
        sources: tuple[SourceUse, ...],
        fusion: Fusion | None = None,
        gate: Gate | None = None,
        threads: int = 1,
    ) -> None:
        self._depth = depth
        self._gate = gate
        self._fusion = fusion
        self._sources = _Sources(index, sources, threads)

    def __call__(self, table: pa.Table) -> pa.Table:
        """ENCODED in, PLAN where no source reads vectors, SEARCHED after other groups of the
        index; RETRIEVED out."""
        if schema.REJECT not in table.column_names:
            table = table.append_column(schema.REJECT_FIELD, pa.nulls(table.num_rows, pa.string()))
        alive = schema.alive_rows(table)
        documents: list[NDArray[np.int64]] = [NO_HITS.documents] * table.num_rows
        scores: list[NDArray[np.float32]] = [NO_HITS.scores] * table.num_rows
        flags = table.column(schema.FLAGS).to_pylist()
        if len(alive):
            known = None
            if schema.RETRIEVALS in table.column_names:
                lists = lists_of(table)
                known = [lists[row] for row in alive]
            hits = self._sources.find(table.take(pa.array(alive)), known)
            for row, of_sources in zip(alive, hits, strict=True):
                best = self._fusion.fuse(of_sources, self._depth) if self._fusion else of_sources[0]
                documents[row], scores[row] = best.documents, best.scores
                if len(best.documents) < self._depth:
                    flags[row] = [*flags[row], schema.FEW_CANDIDATES]
                if self._gate is not None and self._gate.is_sure(scores[row]):
                    flags[row] = [*flags[row], schema.GATED]
        dropped = (schema.VECTOR, schema.RETRIEVALS)
        kept = table.select([name for name in table.column_names if name not in dropped])
        kept = schema.replace_column(kept, schema.FLAGS, pa.array(flags, pa.list_(pa.string())))
        return kept.append_column(
            schema.DOCUMENTS, pa.array(documents, pa.list_(pa.int64()))
        ).append_column(schema.RETRIEVAL_SCORES, pa.array(scores, pa.list_(pa.float32())))
