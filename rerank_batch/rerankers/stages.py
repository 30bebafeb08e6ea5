"""The reranking stage: from table to table, one row per query. Knows nothing of Ray."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from rerank_batch import schema, tally
from rerank_batch.errors import RerankBatchError
from rerank_batch.index.open import Index
from rerank_batch.models.fingerprint import ModelPin
from rerank_batch.models.location import ModelName
from rerank_batch.rerankers import registry
from rerank_batch.rerankers.base import PairScorer, ScorerOptions
from rerank_batch.rerankers.cached import CachedScorer, CacheUse
from rerank_batch.rerankers.cascade import Block, QueryCandidates, Reader, skipped_of
from rerank_batch.rerankers.paid import PaidScorer, PaidUse
from rerank_batch.scoring.modes import Choice


@dataclass(frozen=True)
class ScorerUse:
    """One model of the cascade: its number there from 1, and how many candidates it reads.

    ``pin`` holds every worker to the weights that the run began with; None for a service.
    ``cache`` are scores of earlier runs; ``paid`` keeps what a service was paid for.
    """

    number: int
    model: ModelName
    pin: ModelPin | None
    options: ScorerOptions
    depth: int | None = None
    cache: CacheUse | None = None
    paid: PaidUse | None = None


class Rerank:
    """Adds the raw scores of one model or of several in a row, each reading the best of what the
    one before it made."""

    def __init__(self, scorers: tuple[ScorerUse, ...], index: Index, threads: int = 1) -> None:
        texts = index.texts()
        self._uses = scorers
        self._readers = [Reader(use.number, open_scorer(use, threads), texts) for use in scorers]

    def __call__(self, table: pa.Table) -> pa.Table:
        """RETRIEVED or RERANKED in, RERANKED out."""
        documents = schema.lists_in(table, schema.DOCUMENTS, np.int64)
        scores = schema.stage_scores(table)
        candidates = [QueryCandidates(d, s) for d, s in zip(documents, scores, strict=True)]
        block = Block(table)
        for use, reader in zip(self._uses, self._readers, strict=True):
            positions = block.to_read(candidates, use.depth)
            pairs = [d[read] for d, read in zip(documents, positions, strict=True)]
            skipped = sum(
                len(listed[: use.depth])
                for listed, flags in zip(documents, block.flags, strict=True)
                if schema.GATED in flags
            )
            tally.add(skipped_of(use.number), float(skipped))
            block.add_stage(candidates, positions, reader.score(block.queries, pairs))
        return schema.with_stage_scores(block.table(), [each.scores for each in candidates])


def open_scorer(use: ScorerUse, threads: int) -> PairScorer:
    """The model, with the memory of what it was paid for and of what was scored before."""
    options = replace(use.options, threads=threads)
    scorer: PairScorer
    if registry.family_of(use.model).service:
        if use.paid is None:
            raise RerankBatchError(f"{use.model} has nowhere to keep what it pays for")
        scorer = PaidScorer(registry.open_service(use.model, options), use.paid)
    else:
        scorer = registry.load_scorer(use.model, options, use.pin)
    return scorer if use.cache is None else CachedScorer(scorer, use.cache)


def choose_scorer_mode(model: ModelName, pin: ModelPin, options: ScorerOptions) -> Choice:
    """Measure here in which mode a reranker runs fastest."""
    return registry.choose_mode(model, options, pin)
