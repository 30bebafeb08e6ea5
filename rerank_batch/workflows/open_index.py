"""An index that is searched in this process: a few queries at a time, without Ray."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rerank_batch import schema
from rerank_batch.config import Config
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.index.configured import open_index as open_configured
from rerank_batch.retrieval.configured import fusion_of, query_encoder_options, source_use
from rerank_batch.retrieval.excluded import read_excluded
from rerank_batch.retrieval.stages import EncodeQueries, SearchShards


@dataclass(frozen=True)
class Hit:
    """A document that a search finds; ``score`` is that of retrieval, higher is better.

    ``text`` is what models read: title, a blank, text.
    """

    doc_id: str
    score: float
    text: str


class SearchableIndex:
    """The index of a configuration and the sources of its ``retrieval`` section, in memory.

    Raises:
        ConfigError: a source is ``given``, which holds lists of the queries of a log alone.
        RerankBatchError: the index is not there, damaged, or made of something else.
    """

    def __init__(self, config: Config) -> None:
        retrieval = config.retrieval
        if "given" in retrieval.sources:
            raise ConfigError(
                "retrieval.sources: given lists are of the queries of a log; search by dense or "
                "bm25: --set retrieval.sources=[dense]"
            )
        self._config = config
        self._index = open_configured(config)
        self._excluded = read_excluded(config, self._index.index)
        self._threads = os.cpu_count() or 1
        self._encode: EncodeQueries | None = None
        if "dense" in retrieval.sources:
            options = query_encoder_options(config, self._index.index)
            self._encode = EncodeQueries(self._index.encoder, options, self._threads)
        self._texts = self._index.index.texts()
        self._depth = retrieval.depth
        self._shards = self._opened_to(self._depth)

    def __len__(self) -> int:
        """How many documents it holds."""
        return self._index.index.manifest.documents

    def search(self, queries: Sequence[str], k: int = 10) -> list[list[Hit]]:
        """The best ``k`` documents of each query, the best first.

        Raises:
            InputError: the encoder gives no finite vector for a query.
        """
        if not queries:
            return []
        if k > self._depth:
            self._depth = min(k, len(self))
            self._shards = self._opened_to(self._depth)
        table = _as_plan(queries)
        found = self._shards(self._encode(table) if self._encode else table)
        for row, reject in enumerate(found.column(schema.REJECT).to_pylist()):
            if reject is not None:
                raise InputError(f"query {row + 1} of {len(queries)} cannot be searched: {reject}")
        documents = schema.lists_in(found, schema.DOCUMENTS, np.int64)
        scores = schema.lists_in(found, schema.RETRIEVAL_SCORES, np.float32)
        return [
            [
                Hit(doc_id, float(score), text)
                for doc_id, score, text in zip(
                    self._texts.ids(numbers[:k]),
                    values[:k],
                    self._texts.contents(numbers[:k]),
                    strict=True,
                )
            ]
            for numbers, values in zip(documents, scores, strict=True)
        ]

    def _opened_to(self, depth: int) -> SearchShards:
        retrieval = self._config.retrieval
        uses = tuple(
            source_use(
                self._config, source, max(depth, retrieval.depth_of(source)), None, self._excluded
            )
            for source in retrieval.sources
        )
        return SearchShards(
            self._index.index, depth, uses, fusion_of(self._config), threads=self._threads
        )


def _as_plan(queries: Sequence[str]) -> pa.Table:
    """The queries as rows of a plan, `schema.PLAN`."""
    ids = [str(number) for number in range(len(queries))]
    nothing = [None] * len(queries)
    return pa.table(
        {
            schema.QIDX: range(len(queries)),
            "query_id": ids,
            "query_ids": [[each] for each in ids],
            schema.QUERY: list(queries),
            "weight": [1.0] * len(queries),
            "first_seen": nothing,
            "last_seen": nothing,
            schema.FLAGS: [[]] * len(queries),
        },
        schema=schema.PLAN,
    )
