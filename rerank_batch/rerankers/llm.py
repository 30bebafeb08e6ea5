"""An LLM as reranker, behind any endpoint that speaks OpenAI's chat completions.

Pair by pair it says yes or no (the score is the log of the odds) or gives a grade from 0 to 3, both
as in https://arxiv.org/abs/2310.14122. Listwise it puts a window of documents in order, and windows
slide from the end of the list to its top (RankGPT, https://arxiv.org/abs/2304.09542).

An answer that is not in the form is asked for once more; then the whole query falls back, for
scores of a query must be of one kind. Knows nothing of HTTP, nor what a prompt says.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from rerank_batch.config import LlmMethod
from rerank_batch.rerankers import prompts
from rerank_batch.rerankers.base import Answer, ScorerOptions
from rerank_batch.rerankers.llm_answers import (
    NotInForm,
    Reply,
    grade,
    order,
    read_reply,
    yes_over_no,
)
from rerank_batch.services.address import address_of
from rerank_batch.services.client import Client, Malformed, Request
from rerank_batch.services.pace import Pace, part_of
from rerank_batch.services.spending import Budget, Usage

T = TypeVar("T")

MAX_CHARS = 4_000
_BYTES_PER_TOKEN = 3
"""Of a prompt, on the careful side for most languages and tokenizers."""

_OF_A_PAIR: dict[LlmMethod, Callable[[Reply], float]] = {"yes-no": yes_over_no, "grade": grade}
# A grade gets more room than it needs, so that prose which begins with a digit shows.
_MOST_TOKENS: dict[LlmMethod, Callable[[int], int]] = {
    "yes-no": lambda documents: 1,
    "grade": lambda documents: 4,
    "listwise": lambda documents: 8 * documents,
}


class LlmScorer:
    """Scores by asking; see `ServiceScorer`.

    What was paid for a query that an error leaves unfinished is lost: of as many queries as there
    are calls at a time, at most.
    """

    def __init__(self, model: str, options: ScorerOptions) -> None:
        self._model, self._options = model, options
        self._prompt = prompts.load(options.method)
        self._address = address_of("llm")
        service, sharers = options.service, options.sharers
        self._pace = Pace(
            part_of(service.requests_per_minute, sharers, "requests_per_minute"),
            part_of(service.tokens_per_minute, sharers, "tokens_per_minute"),
        )

    def answers(
        self, queries: Sequence[str], documents: Sequence[Sequence[str]], budget: Budget
    ) -> Iterator[Answer]:
        """See `ServiceScorer.answers`."""
        client = Client(self._address, self._pace, self._options.service, budget)
        most = self._options.max_chars or MAX_CHARS
        asked = [
            _Asked(number, query, listed, most)
            for number, (query, listed) in enumerate(zip(queries, documents, strict=True))
        ]
        if self._options.method == "listwise":
            tasks = [partial(self._rank, client, query) for query in asked if query.documents]
        else:
            tasks = [
                partial(self._judge, client, query, place)
                for query in asked
                for place in range(len(query.documents))
            ]
        ...
