"""A reranker that scores in this process, a query and its documents at a time."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_batch.config import ScorerConfig, StorageConfig
from rerank_batch.config.load import parse_section
from rerank_batch.models.location import parse_model
from rerank_batch.rerankers.base import PairScorer, ServiceScorer
from rerank_batch.rerankers.configured import scorer_input, scorer_options
from rerank_batch.rerankers.registry import FAMILIES, load_scorer, open_service
from rerank_batch.services.spending import Budget


class Reranker:
    """A model or a service, opened; see `load_reranker`."""

    def __init__(self, name: str, scorer: PairScorer | None, service: ServiceScorer | None) -> None:
        self.name = name
        self._scorer, self._service = scorer, service

    def score(self, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        """A float32 score for each document: higher is better, no activation applied.

        Raises:
            ServiceError: a service refuses, or does not answer.
        """
        if not documents:
            return np.empty(0, np.float32)
        if self._scorer is not None:
            return self._scorer.score([query], [list(documents)]).values[0]
        assert self._service is not None
        (answer,) = self._service.answers([query], [list(documents)], Budget())
        return answer.values

    def rank(self, query: str, documents: Sequence[str]) -> list[int]:
        """The places of the documents, counted from 0, the best first; ties keep their order."""
        order: list[int] = np.argsort(-self.score(query, documents), kind="stable").tolist()
        return order


def load_reranker(model: str, **settings: Any) -> Reranker:
    """Open ``family:location``; ``settings`` are those of the ``reranker`` section.

    Raises:
        ConfigError: a setting is unknown, or not read by this family.
        ModelError: the model is not there or cannot be used.
        ServiceError: a service whose address or key is missing.
    """
    config = parse_section(ScorerConfig, {"model": model, **settings}, "reranker")
    name = parse_model(model, tuple(FAMILIES), "reranker.model")
    found = scorer_input(1, name, config)
    options = replace(scorer_options(StorageConfig(), found), threads=os.cpu_count() or 1)
    if found.is_service:
        return Reranker(model, None, open_service(name, options))
    return Reranker(model, load_scorer(name, options, found.pin), None)
