"""A scorer with the memory of earlier runs: pairs that the score cache knows are not scored again.

New scores are published as a file of the run. It counts once the block's commit lists it, and goes
into the cache when the run is whole. No run needs its cache: where it fails, pairs are scored.
"""

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rerank_batch import tally
from rerank_batch.errors import StorageError
from rerank_batch.progress import pairs as progress
from rerank_batch.rerankers.base import PairScorer, PairScores, split
from rerank_batch.score_cache import CachedScores, open_segments, text_keys, today, write_block
from rerank_batch.storage import DataFile, NodeCache, Root, Wanted, new_nonce

logger = logging.getLogger(__name__)

KNOWN, SCORED, SECONDS = "cached_pairs", "scored_pairs", "scoring_seconds"
"""Sums of a run, each with a point and the number of the stage behind it: pairs that the cache
knew, pairs that were scored, and how long that took."""


@dataclass(frozen=True)
class CacheUse:
    """What a worker needs of the cache; small and picklable.

    ``segments`` are asked in that order. New scores go to ``scores/<stage>/`` in ``prefix``, the
    key of the run with a slash behind it. Scores of a ``listwise`` model count for the same
    documents in the same order only.
    """

    root: Root
    node_cache: NodeCache
    segments: tuple[Wanted, ...]
    prefix: str
    stage: int = 1
    listwise: bool = False


class CachedScorer:
    """Scores what is not known, by the scorer it is given."""

    def __init__(self, scorer: PairScorer, use: CacheUse) -> None:
        self._scorer = scorer
        self._use = use
        self._known = CachedScores(open_segments(use.root, use.node_cache, use.segments))

    def score(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> PairScores:
        """See `PairScorer.score`."""
        query_of = np.repeat(np.arange(len(queries)), [len(listed) for listed in documents])
        query_keys = text_keys(queries)
        document_keys = _list_keys(documents) if self._use.listwise else _document_keys(documents)

        cached = self._known.find(query_keys, query_of, document_keys)
        values, truncated = cached.score.copy(), cached.truncated.copy()
        unknown = ~cached.found
        if self._use.listwise:
            unknown = np.isin(query_of, query_of[unknown])
        missing = np.flatnonzero(unknown)
        self._add(KNOWN, len(query_of) - len(missing))
        progress.known(len(query_of) - len(missing))
        fell_back: frozenset[int] = frozenset()
        if len(missing):
            scored = self._score(queries, documents, missing)
            fell_back = scored.fell_back
            values[missing] = np.concatenate(scored.values)
            truncated[missing] = np.concatenate(scored.truncated)
            # What is not finite is a failure of the model, and not one to remember.
            remembered = np.isfinite(values[missing]) & ~np.isin(query_of[missing], list(fell_back))
            good = missing[remembered]
            self._keep(
                query_keys, query_of[good], document_keys[good], values[good], truncated[good]
            )
        return PairScores(split(values, documents), split(truncated, documents), fell_back)

    def _score(
        self,
        queries: Sequence[str],
        documents: Sequence[Sequence[str]],
        missing: NDArray[np.int64],
    ) -> PairScores:
        """What the scorer makes of the pairs of those numbers."""
        ends = np.cumsum([len(listed) for listed in documents])
        per_query = np.split(missing, np.searchsorted(missing, ends[:-1]))
        starts = ends - [len(listed) for listed in documents]
        new = [
            [listed[place] for place in pairs - start]
            for listed, pairs, start in zip(documents, per_query, starts, strict=True)
        ]
        began = time.perf_counter()
        scored = self._scorer.score(queries, new)
        self._add(SECONDS, time.perf_counter() - began)
        self._add(SCORED, len(missing))
        return scored

    def _add(self, name: str, amount: float) -> None:
        tally.add(f"{name}.{self._use.stage}", float(amount))

    def _keep(
        self,
        queries: NDArray[np.uint64],
        query_of: NDArray[np.int64],
        documents: NDArray[np.uint64],
        scores: NDArray[np.float32],
        truncated: NDArray[np.bool_],
    ) -> None:
        """Publish new scores as a file of the run."""
        if not len(scores):
            return
        key = f"scores/{self._use.stage}/{new_nonce()[:20]}.arrow"
        try:
            with tempfile.TemporaryDirectory(prefix="scores-") as folder:
                file = Path(folder) / "new.arrow"
                write_block(file, queries, query_of, documents, scores, truncated, today())
                stored = self._use.root.publish(f"{self._use.prefix}{key}", file)
        except (OSError, StorageError) as error:
            logger.warning("new scores will not be cached: %s", error)
            tally.count(f"score cache: new scores were not kept ({type(error).__name__})")
            return
        tally.published_scores(asdict(DataFile(key, stored.bytes, stored.sha256, len(scores))))


def _document_keys(documents: Sequence[Sequence[str]]) -> NDArray[np.uint64]:
    """The key of each document by its text; each distinct one is hashed once."""
    numbers = {text: n for n, text in enumerate(dict.fromkeys(t for d in documents for t in d))}
    document_of = np.array([numbers[text] for d in documents for text in d], np.int64)
    return text_keys(list(numbers))[document_of]


def _list_keys(documents: Sequence[Sequence[str]]) -> NDArray[np.uint64]:
    """The key of each document by its place and by the whole list it stands in."""
    lists = [hashlib.sha256(json.dumps(list(listed)).encode()).hexdigest() for listed in documents]
    return text_keys(
        [f"{name} {n}" for name, d in zip(lists, documents, strict=True) for n in range(len(d))]
    )
