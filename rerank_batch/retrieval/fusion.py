"""Several ranked lists of one query become one; see `config.FusionConfig` for what is computed.

Knows documents, ranks and scores, not where they come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rerank_batch import ranking
from rerank_batch.config import FusionConfig, Source
from rerank_batch.retrieval.hits import RankedList


@dataclass(frozen=True)
class Fusion:
    """How to fuse, with a weight for each of the lists, in their order."""

    config: FusionConfig
    weights: tuple[float, ...]

    @classmethod
    def of(cls, config: FusionConfig, sources: Sequence[Source]) -> "Fusion":
        """The fusion of the lists of these sources."""
        weights = tuple(config.weights.get(source, 1.0) for source in sources)
        return cls(config.model_copy(update={"weights": {}}), weights)

    def fuse(self, lists: Sequence[RankedList], depth: int) -> RankedList:
        """The best ``depth`` documents of all lists, under the total order of fused scores.

        Sums are taken in float64 over the lists in their order, and ranked as float32, in which
        scores travel. A list whose weight is 0 adds no candidates.
        """
        used = [
            (listed, weight)
            for listed, weight in zip(lists, self.weights, strict=True)
            if weight and len(listed.documents)
        ]
        union = ranking.distinct([listed.documents for listed, _ in used])[0]
        total = np.zeros(len(union))
        for listed, weight in used:
            places = np.searchsorted(union, listed.documents)
            values, elsewhere = self._values(listed)
            share = np.full(len(union), elsewhere)
            share[places] = values
            total += weight * share
        scores = total.astype(np.float32)
        best = ranking.order(scores, union)[:depth]
        return RankedList(union[best], scores[best])

    def _values(self, listed: RankedList) -> tuple[NDArray[np.float64], float]:
        """What a list gives to each of its documents, and what to those that it does not hold."""
        if self.config.method == "rrf":
            return 1.0 / (self.config.k + np.arange(1, len(listed.documents) + 1)), 0.0
        scores = listed.scores.astype(np.float64)
        minmax = self.config.normalise == "minmax"
        if scores.min() == scores.max():
            alike, elsewhere = (1.0, 0.0) if minmax else (0.0, -1.0)
            return np.full(len(scores), alike), elsewhere
        if minmax:
            values = (scores - scores.min()) / (scores.max() - scores.min())
        else:
            values = (scores - scores.mean()) / scores.std()
        return values, float(values.min())
