"""What all rerankers behind HTTP share: one query becomes a few calls, their answers one answer.

Texts are cut to a number of characters, lists split over what a service takes at once, and of every
answer it is checked that it scores each document once, by a finite number. Knows no service's words
and no HTTP: a family says what a call holds and where in an answer things stand, the client calls.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter

from rerank_batch.rerankers.base import Answer, ScorerOptions
from rerank_batch.services.address import address_of
from rerank_batch.services.client import Client, Declined, Malformed, Request
from rerank_batch.services.pace import Pace, part_of
from rerank_batch.services.spending import Budget
from rerank_batch.services.usage import Usage, count_at, pair_tokens, tokens_of


class _Result(BaseModel):
    model_config = ConfigDict(strict=True)

    index: int
    score: float = Field(validation_alias=AliasChoices("relevance_score", "score"))


_RESULTS = TypeAdapter(list[_Result])


@dataclass(frozen=True)
class ServiceLimits:
    """What a service takes: in one call, and in a minute by one key; None where it states nothing.

    ``characters`` is where a query and a document are cut unless ``max_chars`` says otherwise.
    """

    documents: int
    characters: int
    tokens: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class HttpScorer(ABC):
    """See `ServiceScorer`. ``results`` is the key of the list of results in an answer.

    A family fills in what it is called and what it takes, and its words.
    """

    family: ClassVar[str]
    path: ClassVar[str]
    limits: ClassVar[ServiceLimits]
    results: ClassVar[str | None] = "results"
    empty: ClassVar[str] = ""
    """What is sent for a document without text."""

    def __init__(self, model: str, options: ScorerOptions) -> None:
        self.model, self._options = model, options
        self._address = address_of(self.family)
        # Called again before each window; here, so that an address that is refused is told early.
        self._address.resolve()
        stated, given, sharers = self.limits, options.service, options.sharers
        requests = given.requests_per_minute or stated.requests_per_minute
        tokens = given.tokens_per_minute or stated.tokens_per_minute
        self._tokens_per_minute = part_of(tokens, sharers, "tokens_per_minute")
        self._pace = Pace(
            part_of(requests, sharers, "requests_per_minute"), self._tokens_per_minute
        )

    @abstractmethod
    def body(self, query: str, documents: Sequence[str]) -> Mapping[str, Any]:
        """The body of a call."""

    def expected(self, query: str, documents: Sequence[str]) -> Usage:
        """What a call is thought to be billed with; nothing, unless a family says otherwise."""
        return Usage()

    def billed(self, answer: Any) -> Usage | None:
        """The bill in an answer; None where one is missing."""
        return Usage()

    def answers(
        self, queries: Sequence[str], documents: Sequence[Sequence[str]], budget: Budget
    ) -> Iterator[Answer]:
        """See `ServiceScorer.answers`; the calls of one query are made one after the other."""
        client = Client(self._address, self._pace, self._options.service, budget)

        async def one(number: int) -> Answer:
            query, listed = queries[number], documents[number]
            return await self._answer(client, budget, number, query, listed)

        return client.in_parallel(len(queries), one)

    async def _answer(
        self, client: Client, budget: Budget, number: int, query: str, documents: Sequence[str]
    ) -> Answer:
        most = self._options.max_chars or self.limits.characters
        cut = np.array([len(text) > most or len(query) > most for text in documents], bool)
        query, sent = query[:most], [text[:most] or self.empty for text in documents]
        requests = self._requests(query, sent)
        expected = sum((request.expected for _, request in requests), Usage(requests=len(requests)))
        values, used = np.zeros(len(sent), np.float32), Usage()
        # A query that is begun is paid for to its end: half of one is worth nothing.
        with budget.part(expected) as mine:
            for place, request in requests:
                size = len(values[place])
                read = partial(self._read, count=size, expected=request.expected)
                try:
                    values[place], spent = await client.call(request, read, mine)
                except Declined as error:
                    raise Declined(
                        f"{error}. The call held {size} documents of at most {most:,} characters: "
                        "if that is too much for the service, lower "
                        "reranker.service.documents_per_call or reranker.max_chars"
                    ) from None
                used += spent
        return Answer(number, values, cut, used)

    def _requests(self, query: str, documents: Sequence[str]) -> list[tuple[slice, Request]]:
        """The calls of one query, and which of its documents each is about."""
        requests = []
        for start, end in self._calls(query, documents):
            part = documents[start:end]
            body, expected = self.body(query, part), self.expected(query, part)
            requests.append((slice(start, end), Request(self.path, body, (query, *part), expected)))
        return requests

    def _calls(self, query: str, documents: Sequence[str]) -> Iterator[tuple[int, int]]:
        """From where to where the documents of each call go; every call takes at least one."""
        tokens = [limit for limit in (self.limits.tokens, self._tokens_per_minute) if limit]
        most = min(tokens, default=None)
        most_documents = self._options.service.documents_per_call or self.limits.documents
        query_tokens, start, taken = tokens_of(query), 0, 0
        for position, text in enumerate(documents):
            size = query_tokens + tokens_of(text)
            too_many = position - start == most_documents
            too_large = most is not None and taken + size > most and position > start
            if too_many or too_large:
                yield start, position
                start, taken = position, 0
            taken += size
        if documents:
            yield start, len(documents)

    def _read(self, answer: Any, count: int, expected: Usage) -> tuple[NDArray[np.float32], Usage]:
        """The scores in the order of the documents; an answer without a bill costs as expected."""
        bill = self.billed(answer)
        try:
            results = _RESULTS.validate_python(
                answer if self.results is None else answer[self.results]
            )
        except (KeyError, TypeError, ValueError):
            raise Malformed("an answer of no known form", bill) from None
        scores = {result.index: result.score for result in results}
        if len(results) != count or scores.keys() != set(range(count)):
            raise Malformed(
                f"{len(results)} results for {count} documents, or not one for each", bill
            )
        with np.errstate(over="ignore"):
            values = np.array([scores[index] for index in range(count)], np.float32)
        if not np.isfinite(values).all():
            raise Malformed("a score that is no finite number", bill)
        return values, expected if bill is None else bill


class TokenBilledScorer(HttpScorer):
    """A service that counts tokens: of the query once for each document, and of the documents."""

    def expected(self, query: str, documents: Sequence[str]) -> Usage:
        """See `HttpScorer.expected`."""
        return Usage(tokens=pair_tokens(query, documents))

    def billed(self, answer: Any) -> Usage | None:
        """See `HttpScorer.billed`."""
        tokens = count_at(answer, "usage", "total_tokens")
        return None if tokens is None else Usage(tokens=tokens)
