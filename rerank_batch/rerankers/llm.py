"""An LLM as reranker, behind any endpoint that speaks OpenAI's chat completions.

Pair by pair it says yes or no (the score is the log of the odds) or gives a grade from 0 to 3, both
as in https://arxiv.org/abs/2310.14122. Listwise it puts a window of documents in order, and windows
slide from the end of the list to its top (RankGPT, https://arxiv.org/abs/2304.09542).

An answer that is not in the form is asked for once more; then the whole query falls back, for
scores of a query must be of one kind. Knows nothing of HTTP, nor what a prompt says.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

import numpy as np

from rerank_batch.config import LlmMethod
from rerank_batch.errors import ServiceError
from rerank_batch.llm.replies import (
    NotInForm,
    Reply,
    grade,
    order,
    read_completion,
    read_reply,
    yes_over_no,
)
from rerank_batch.rerankers import prompts
from rerank_batch.rerankers.base import Answer, ScorerOptions
from rerank_batch.schema import JsonObject
from rerank_batch.services.address import address_of
from rerank_batch.services.client import Client, Declined, Request
from rerank_batch.services.pace import Pace, part_of
from rerank_batch.services.spending import Budget
from rerank_batch.services.usage import Usage, tokens_of

T = TypeVar("T")

MAX_CHARS = 4_000

_TRIED = 10
"""If so many queries all fall back, the model or the endpoint is the cause."""

_OF_A_PAIR: dict[LlmMethod, Callable[[Reply], float]] = {"yes-no": yes_over_no, "grade": grade}
_Task = Callable[[Client], Awaitable[None]]
# A grade gets more room than it needs, so that prose which begins with a digit shows.
_MOST_TOKENS: dict[LlmMethod, Callable[[int], int]] = {
    "yes-no": lambda documents: 1,
    "grade": lambda documents: 4,
    "listwise": lambda documents: 8 * documents,
}


class _OpenQuery:
    """A query while its calls are under way."""

    def __init__(self, number: int, text: str, documents: Sequence[str], most: int) -> None:
        self.number, self.text = number, text[:most]
        self.documents = [document[:most] for document in documents]
        self.truncated = np.array(
            [max(len(text), len(document)) > most for document in documents], dtype=np.bool_
        )
        self.values = np.zeros(len(documents), dtype=np.float32)
        self.used = Usage()
        self.fell_back = False
        self.to_do = 0
        self.budget: Budget | None = None
        self.set_aside = ExitStack()

    def answer(self) -> Answer:
        """When there is nothing left to do."""
        values = np.zeros_like(self.values) if self.fell_back else self.values
        return Answer(self.number, values, self.truncated, self.used, self.fell_back)


class LlmScorer:
    """Scores by prompts; see `ServiceScorer`.

    The budget allows a query as a whole, so that at the cap no half of one was paid for.

    Raises:
        ServiceError: none of the first queries got an answer that could be used.
    """

    def __init__(self, model: str, options: ScorerOptions) -> None:
        self._model, self._options = model, options
        self._prompt = prompts.load(options.method)
        self._address = address_of("llm")
        # Called again before each window; here, so that an address that is refused is told early.
        self._address.resolve()
        service, sharers = options.service, options.sharers
        self._pace = Pace(
            part_of(service.requests_per_minute, sharers, "requests_per_minute"),
            part_of(service.tokens_per_minute, sharers, "tokens_per_minute"),
        )
        self._answered = self._useless = 0
        self._last_refusal = "answers are not in the form"

    def answers(
        self, queries: Sequence[str], documents: Sequence[Sequence[str]], budget: Budget
    ) -> Iterator[Answer]:
        """See `ServiceScorer.answers`."""
        client = Client(self._address, self._pace, self._options.service, budget)
        most = self._options.max_chars or MAX_CHARS
        open_queries = [
            _OpenQuery(number, query, listed, most)
            for number, (query, listed) in enumerate(zip(queries, documents, strict=True))
        ]
        tasks = [(query, task) for query in open_queries for task in self._tasks(query)]
        for query, _ in tasks:
            query.to_do += 1
        yield from (query.answer() for query in open_queries if not query.to_do)

        async def one(number: int) -> _OpenQuery:
            query, task = tasks[number]
            if query.budget is None:
                expected = self._expected(query)
                query.budget = query.set_aside.enter_context(budget.part(expected))
            await task(client)
            return query

        try:
            for query in client.in_parallel(len(tasks), one):
                query.to_do -= 1
                if not query.to_do:
                    query.set_aside.close()
                    yield query.answer()
                    self._refuse_useless(query)
        finally:
            for query in open_queries:
                query.set_aside.close()

    def _refuse_useless(self, query: _OpenQuery) -> None:
        """End a run that pays for answers of which none can be used."""
        self._answered += 1
        self._useless += query.fell_back
        if self._answered == self._useless == _TRIED:
            raise ServiceError(
                f"llm: none of the first {_TRIED} queries got an answer that can be used with "
                f"method {self._options.method} ({self._last_refusal}); try another method or model"
            )

    def _tasks(self, query: _OpenQuery) -> list[_Task]:
        """What can be done of a query at the same time."""
        if self._options.method == "listwise":
            return [partial(self._rank, query)] if len(query.documents) > 1 else []
        return [partial(self._judge, query, place) for place in range(len(query.documents))]

    def _expected(self, query: _OpenQuery) -> Usage:
        """What all calls of a query are thought to be billed with."""
        count = len(query.documents)
        shown: list[Sequence[int]] = [[place] for place in range(count)]
        if self._options.method == "listwise":
            spans = windows(count, self._options.window, self._options.step)
            shown = [range(start, end) for start, end in spans]
        requests = [
            self._request(query.text, [query.documents[place] for place in places], False)
            for places in shown
        ]
        return sum((request.expected for request in requests), Usage(requests=len(requests)))

    async def _judge(self, query: _OpenQuery, place: int, client: Client) -> None:
        if query.fell_back:
            return
        score = await self._ask(client, query, [place], _OF_A_PAIR[self._options.method])
        if score is not None:
            query.values[place] = score

    async def _rank(self, query: _OpenQuery, client: Client) -> None:
        ranking = list(range(len(query.documents)))
        for start, end in windows(len(ranking), self._options.window, self._options.step):
            shown = ranking[start:end]
            best = await self._ask(client, query, shown, partial(order, count=len(shown)))
            if best is None:
                return
            ranking[start:end] = [shown[place] for place in best]
        query.values[ranking] = np.arange(len(ranking))[::-1]

    async def _ask(
        self,
        client: Client,
        query: _OpenQuery,
        places: Sequence[int],
        read: Callable[[Reply], T],
    ) -> T | None:
        """What ``read`` makes of the answer about some documents; None if the query fell back."""
        documents = [query.documents[place] for place in places]
        for again in (False, True):
            request = self._request(query.text, documents, again)
            reader = partial(read_completion, expected=request.expected)
            try:
                choice, used = await client.call(request, reader, query.budget)
            except Declined as error:
                # A filter for content, or a text too long: about this query, not about the others.
                self._last_refusal = str(error)
                break
            query.used += used
            with contextlib.suppress(NotInForm):
                return read(read_reply(choice))
        query.fell_back = True
        return None

    def _request(self, query: str, documents: Sequence[str], again: bool) -> Request:
        method = self._options.method
        messages = self._prompt.for_documents(query, documents, self._options.instruction, again)
        most_tokens = _MOST_TOKENS[method](len(documents))
        body: JsonObject = {
            "model": self._model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": most_tokens,
        }
        if method in _OF_A_PAIR:
            body |= {"logprobs": True, "top_logprobs": 20}
        tokens = sum(tokens_of(message["content"]) for message in messages)
        expected = Usage(tokens=tokens, output_tokens=most_tokens)
        return Request("/chat/completions", body, [query, *documents], expected)


def windows(count: int, size: int, step: int) -> Iterator[tuple[int, int]]:
    """Where windows over a list start and end, from its end to its top.

    Each carries its best ``size - step`` into the next, so that under a judge who never errs as
    many are right at the top in the end, and all if one window holds them.
    """
    end = count
    while True:
        start = max(end - size, 0)
        yield start, end
        if start == 0:
            return
        end -= step
