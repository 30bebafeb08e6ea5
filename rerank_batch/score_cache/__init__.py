"""The score cache: scores of (query, document) pairs, kept across the runs of a root.

A pair is found by the hashes of its two texts (`text_keys`), among scores that everything else it
depends on is equal for (`scope`). A run takes a snapshot of the cache when it starts; its workers
open the snapshot's segments (`open_segments`), files that are mapped and never loaded, ask them for
whole windows of pairs (`CachedScores.find`), score what is not found, and write a small segment per
block (`write_block`). When the run has ended its driver adds those as one segment
(`ScoreCache.add`), which merges segments so that they stay few; `expire` and `sweep` keep the cache
within its limits. Nothing depends on the cache: whatever is lost or damaged is scored again, and a
score that was found is bit for bit the score that was stored. Knows numpy, Arrow and roots; no Ray,
no models, no runs.
"""

from rerank_batch.score_cache.keys import Keys, scope, text_keys
from rerank_batch.score_cache.lookup import CachedScores, open_segments
from rerank_batch.score_cache.merging import merge
from rerank_batch.score_cache.segment import KnownScores, ScoreSegment
from rerank_batch.score_cache.store import CacheSnapshot, ScoreCache
from rerank_batch.score_cache.writer import today, write_block

__all__ = [
    "CacheSnapshot",
    "CachedScores",
    "Keys",
    "KnownScores",
    "ScoreCache",
    "ScoreSegment",
    "merge",
    "open_segments",
    "scope",
    "text_keys",
    "today",
    "write_block",
]
