"""What a worker does with the cache: open the segments of a snapshot and ask them for pairs."""

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rerank_batch import tally
from rerank_batch.errors import ConfigError, IndexMismatch, StorageError
from rerank_batch.score_cache.keys import Keys
from rerank_batch.score_cache.segment import KnownScores, ScoreSegment
from rerank_batch.storage import NodeCache, Root, Wanted

logger = logging.getLogger(__name__)


def open_segments(
    root: Root, node_cache: NodeCache, wanted: Sequence[Wanted]
) -> list[ScoreSegment]:
    """The segments of a snapshot as local files, in order.

    No run needs the cache: a segment that is missing, damaged or finds no room on the node is left
    out with a warning and counted as an event, and its pairs are scored again. Segments of a folder
    are used where they are, so that of their content only the size and the shape are checked.
    """
    fetched: list[Wanted] = []
    segments = []
    for each in wanted:
        try:
            # Together: segments that throw each other out would be fetched without end.
            node_cache.check_room(root, [*fetched, each])
            (file,) = node_cache.fetch(root, [each])
            segments.append(ScoreSegment(file, each.bytes))
            fetched.append(each)
        except (ConfigError, IndexMismatch, StorageError) as error:
            _left_out(error)
    return segments


class CachedScores:
    """Segments asked one after the other: the first that knows a pair counts."""

    def __init__(self, segments: Sequence[ScoreSegment]) -> None:
        self._segments = tuple(segments)

    def find(self, queries: Keys, query_of: NDArray[np.int64], documents: Keys) -> KnownScores:
        """See `ScoreSegment.find`; a segment that turns out to be damaged is asked no more."""
        answer = KnownScores.nothing(len(query_of))
        for segment in self._segments:
            todo = np.flatnonzero(~answer.found)
            if not len(todo):
                break
            try:
                part = segment.find(queries, query_of[todo], documents[todo])
            except StorageError as error:
                self._segments = tuple(each for each in self._segments if each is not segment)
                _left_out(error)
                continue
            for known, news in zip(answer, part, strict=True):
                known[todo] = news
        return answer


def _left_out(error: Exception) -> None:
    logger.warning("cached scores are left out: %s", error)
    tally.count(f"score cache: a segment was left out ({type(error).__name__})")
