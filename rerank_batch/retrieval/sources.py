"""Where candidates come from: vectors, words, or lists that are there already.

Each source answers the rows of a table, whatever it reads of them. The libraries behind the sources
are loaded by those that use them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from rerank_batch import schema
from rerank_batch.config import Bm25Config, Source
from rerank_batch.index.open import Index
from rerank_batch.retrieval.hits import NO_HITS, RankedList, ranked_lists


@dataclass(frozen=True)
class SourceUse:
    """A source and how many documents it gives; of ``dense`` how hard the approximate kinds look.

    ``given`` are the lists of the source of that name by query id. ``excluded`` are numbers of
    documents that the others must not give; those of ``given`` are without them already.
    """

    source: Source
    depth: int
    nprobe: int | None = None
    ef_search: int | None = None
    given: Mapping[str, RankedList] | None = None
    excluded: tuple[int, ...] = ()

    @property
    def reads_shards(self) -> bool:
        """Whether each shard of the index has a part of its hits."""
        return self.source != "given"


class Searcher(Protocol):
    """A source that is open."""

    def find(self, table: pa.Table, depth: int) -> list[RankedList]:
        """Of every row of the table the best documents, at most ``depth``."""


def open_source(use: SourceUse, index: Index, threads: int) -> Searcher:
    """Load what a source needs in this process."""
    if use.source == "dense":
        return _Dense(index, use, threads)
    if use.source == "bm25":
        return _Words(index, use.excluded)
    return _Given(use.given or {})


class _Dense:
    def __init__(self, index: Index, use: SourceUse, threads: int) -> None:
        from rerank_batch.retrieval import shards
        from rerank_batch.retrieval.approximate import SearchOptions

        shards.set_threads(threads)
        options = SearchOptions(use.nprobe, use.ef_search)
        self._search = shards.search_all
        numbers, bounds = index.numbers(use.excluded), index.manifest.bounds
        edges = [first - bounds[0][0] for first, _ in bounds[1:]]
        parts: Sequence[np.ndarray | None] = [None] * len(bounds)
        if numbers is not None:
            parts = np.split(numbers, edges)
        self._shards = [
            shards.open_shard(file, first, options, own)
            for file, (first, _), own in zip(index.vector_files(), bounds, parts, strict=True)
        ]

    def find(self, table: pa.Table, depth: int) -> list[RankedList]:
        """By the column ``vector``."""
        column = table.column(schema.VECTOR).combine_chunks()
        vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(table.num_rows, -1)
        return ranked_lists(self._search(self._shards, vectors, depth))


class _Words:
    def __init__(self, index: Index, excluded: Sequence[int]) -> None:
        from rerank_batch.retrieval.bm25 import Bm25Search, Bm25Shard

        shards = [
            Bm25Shard(file, entry.start, entry.stop, excluded)
            for file, entry in zip(index.posting_files(), index.manifest.word_shards(), strict=True)
        ]
        self._search = Bm25Search(shards, Bm25Config.model_validate(index.manifest.bm25))

    def find(self, table: pa.Table, depth: int) -> list[RankedList]:
        """By the words of the column ``query``."""
        return ranked_lists(self._search.search(table.column(schema.QUERY).to_pylist(), depth))


class _Given:
    def __init__(self, given: Mapping[str, RankedList]) -> None:
        self._given = given

    def find(self, table: pa.Table, depth: int) -> list[RankedList]:
        """By the column ``query_ids``: the list of the first id that has one."""
        rows = table.column("query_ids").to_pylist()
        lists = (next((self._given[i] for i in ids if i in self._given), NO_HITS) for ids in rows)
        return [listed.first(depth) for listed in lists]
