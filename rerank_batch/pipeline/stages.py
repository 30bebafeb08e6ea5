"""The reranking stages: candidates in, their scores beside them out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rerank_batch import ranking, schema, tally
from rerank_batch.data.corpus import TextStore
from rerank_batch.errors import RerankBatchError
from rerank_batch.index.index import Index
from rerank_batch.models.location import ModelName, ModelPin
from rerank_batch.progress import pairs as progress
from rerank_batch.rerankers.base import PairScorer, ScorerOptions
from rerank_batch.rerankers.cached import CachedScorer, CacheUse
from rerank_batch.rerankers.paid import PaidScorer, PaidUse
from rerank_batch.scoring.modes import Choice


def choose_scorer_mode(model: ModelName, pin: ModelPin, options: ScorerOptions) -> Choice:
    """Measure here in which mode a reranker runs fastest."""
    from rerank_batch.rerankers import choose_mode

    return choose_mode(model, options, pin)


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
        self._texts = index.texts()
        self._uses = scorers
        self._scorers = [open_scorer(use, threads) for use in scorers]

    def __call__(self, table: pa.Table) -> pa.Table:
        """RETRIEVED or RERANKED in, RERANKED out."""
        documents = schema.lists_in(table, schema.DOCUMENTS, np.int64)
        scores = schema.stage_scores(table)
        rejects = table.column(schema.REJECT).to_pylist()
        flags = [set(each) for each in table.column(schema.FLAGS).to_pylist()]
        queries = table.column(schema.QUERY).to_pylist()
        for use, scorer in zip(self._uses, self._scorers, strict=True):
            chosen = [
                ranking.NO_DOCUMENTS
                if rejects[row] is not None or schema.GATED in flags[row]
                else ranking.cascade_order(scores[row], listed)[: use.depth]
                for row, listed in enumerate(documents)
            ]
            read = [d[c] for d, c in zip(documents, chosen, strict=True)]
            texts = contents_of(self._texts, read)
            skipped = [
                d[: use.depth] for d, f in zip(documents, flags, strict=True) if schema.GATED in f
            ]
            tally.add(skipped_of(use.number), float(sum(map(len, skipped))))
            tally.add(pairs_of(use.number), float(sum(map(len, chosen))))
            began = time.perf_counter()
            with progress.reading(use.number, sum(map(len, chosen))):
                scored = scorer.score(queries, texts)
            tally.add(seconds_of(use.number), time.perf_counter() - began)
            for row, places in enumerate(chosen):
                values = np.full(len(documents[row]), np.nan, dtype=np.float32)
                if row in scored.fell_back:
                    flags[row].add(schema.FELL_BACK)
                elif not np.isfinite(scored.values[row]).all():
                    rejects[row] = schema.NON_FINITE_SCORE
                else:
                    values[places] = scored.values[row]
                if scored.truncated[row].any():
                    flags[row].add(schema.TRUNCATED)
                scores[row] = np.vstack([scores[row], values])
        table = schema.replace_column(table, schema.REJECT, pa.array(rejects, pa.string()))
        ordered = [sorted(each) for each in flags]
        table = schema.replace_column(table, schema.FLAGS, pa.array(ordered, pa.list_(pa.string())))
        return schema.with_stage_scores(table, scores)


def contents_of(texts: TextStore, documents: Sequence[NDArray[np.int64]]) -> list[list[str]]:
    """The texts of the documents of every query; each distinct one is read once."""
    distinct, parts = ranking.distinct(documents)
    contents = texts.contents(distinct)
    return [[contents[place] for place in part] for part in parts]


def pairs_of(stage: int) -> str:
    """The name of a sum of the run: how many pairs a stage of the cascade got to read."""
    return f"pairs.{stage}"


def skipped_of(stage: int) -> str:
    """The name of a sum of the run: how many pairs the gate kept from a stage of the cascade."""
    return f"skipped.{stage}"


def seconds_of(stage: int) -> str:
    """The name of a sum of the run: how long a stage of the cascade took."""
    return f"seconds.{stage}"


def open_scorer(use: ScorerUse, threads: int) -> PairScorer:
    """The model, with the memory of what it was paid for and of what was scored before."""
    from rerank_batch.rerankers import family_of, load_scorer, open_service

    options = replace(use.options, threads=threads)
    scorer: PairScorer
    if family_of(use.model).service:
        if use.paid is None:
            raise RerankBatchError(f"{use.model} has nowhere to keep what it pays for")
        scorer = PaidScorer(open_service(use.model, options), use.paid)
    else:
        scorer = load_scorer(use.model, options, use.pin)
    return scorer if use.cache is None else CachedScorer(scorer, use.cache)
