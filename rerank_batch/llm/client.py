"""Calls one model with many prompts: the journal answers those it knows and keeps every new reply.

A prompt whose reply is not in the form is sent once more, in other words. After that it has no
reply but a reason: none is ever made up. Knows neither what a prompt says nor how its reply is
read.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from rerank_batch.config import PriceConfig, ServiceConfig
from rerank_batch.errors import ServiceError, SpendCapReached
from rerank_batch.llm.journal import Journal, StoredReply, key_of
from rerank_batch.llm.prompts import Messages
from rerank_batch.llm.replies import NotInForm, read_completion, read_reply
from rerank_batch.schema import JsonObject
from rerank_batch.services.address import Address
from rerank_batch.services.client import Client, Declined, Request
from rerank_batch.services.pace import Pace
from rerank_batch.services.spending import Budget
from rerank_batch.services.usage import Usage, tokens_of

T = TypeVar("T")

Watch = Callable[[int, Callable[[], int]], AbstractContextManager[None]]
"""Shows how many of a number are done while it lasts."""

DECLINED, NO_TEXT, TRUNCATED = "declined", "no_text", "truncated"
"""Why there is no reply that could be read: the service does not take the prompt, it sent no text,
or the text ends where it had to."""

_TRIED = 10
"""If so many prompts in a row from the first have no reply of use, the model is the cause."""


@dataclass(frozen=True)
class Endpoint:
    """Where models are, and how fast they may be called."""

    address: Address
    pace: Pace
    service: ServiceConfig


@dataclass(frozen=True)
class LlmModel:
    """A model as it is called: its name there, the version of its prompt, and what is billed.

    ``whole``: of a reply that was cut at ``max_tokens`` nothing is read, however right it looks.
    """

    name: str
    version: str
    max_tokens: int
    temperature: float
    price: PriceConfig
    whole: bool = False


@dataclass(frozen=True)
class LlmRequest:
    """A prompt, the first time and once more, and the texts in it that no message may repeat."""

    first: Messages
    again: Messages
    private: Sequence[str]


@dataclass
class Completions(Generic[T]):
    """The replies to some prompts, in their order; None where none was of use.

    ``reasons`` say why there is none, of prompts that were sent. Of the ``distinct`` prompts among
    them ``known`` were in the journal; ``used`` and ``cost`` are what the others took.
    """

    replies: list[T | None]
    reasons: list[str | None] = field(default_factory=list)
    distinct: int = 0
    known: int = 0
    used: Usage = field(default_factory=Usage)
    cost: float = 0.0


@dataclass(frozen=True)
class CallEstimate:
    """What the calls would take: of ``distinct`` prompts ``known`` are in the journal.

    ``most`` is what the others are billed with if each is sent twice and every reply is as long as
    it may be.
    """

    distinct: int = 0
    known: int = 0
    most: Usage = field(default_factory=Usage)

    def __add__(self, other: "CallEstimate") -> "CallEstimate":
        return CallEstimate(
            self.distinct + other.distinct, self.known + other.known, self.most + other.most
        )


class LlmClient(Generic[T]):
    """Calls one model; ``read`` makes something of a text or raises `NotInForm` with a reason."""

    def __init__(
        self,
        endpoint: Endpoint,
        model: LlmModel,
        journal: Journal,
        budget: Budget,
        read: Callable[[str], T],
    ) -> None:
        self._endpoint, self._model, self._journal = endpoint, model, journal
        self._budget, self._read = budget, read
        self.done = self.total = 0
        self._tried = self._useless = 0
        self._last_refusal = "replies are not in the form"

    def complete(self, prompts: Sequence[LlmRequest | None], watch: Watch) -> Completions[T]:
        """A reply to each prompt; None has none. Equal prompts are sent once.

        ``done`` of ``total`` that differ are there, while it works and after.

        Raises:
            SpendCapReached: the budget allows no further call.
            ServiceError: the service refuses, failed on every try, or its first replies are all of
                no use. What was paid for is in the journal, whatever ends this.
        """
        keys = [self._key(prompt.first) if prompt else None for prompt in prompts]
        distinct = {
            key: prompt for key, prompt in zip(keys, prompts, strict=True) if key and prompt
        }
        outcomes: dict[str, _Outcome[T]] = {}
        missing: list[tuple[str, LlmRequest]] = []
        for key, prompt in distinct.items():
            if self._is_known(prompt):
                outcomes[key] = self._recall(prompt)
            else:
                missing.append((key, prompt))
        self.done, self.total = len(outcomes), len(distinct)
        completions = Completions[T]([], distinct=len(distinct), known=len(outcomes))
        if missing:
            with watch(self.total, lambda: self.done):
                self._complete_all(missing, outcomes, completions)
        every = [_Outcome[T]() if key is None else outcomes[key] for key in keys]
        completions.replies = [each.reply for each in every]
        completions.reasons = [each.reason for each in every]
        return completions

    def estimate(self, prompts: Sequence[LlmRequest]) -> CallEstimate:
        """What it would take to send these; nothing is sent."""
        distinct = {self._key(prompt.first): prompt for prompt in prompts}
        missing = [prompt for prompt in distinct.values() if not self._is_known(prompt)]
        requests = [
            self._request(messages, prompt.private)
            for prompt in missing
            for messages in (prompt.first, prompt.again)
            if self._key(messages) not in self._journal
        ]
        most = sum((request.expected for request in requests), Usage(requests=len(requests)))
        return CallEstimate(len(distinct), len(distinct) - len(missing), most)

    def _complete_all(
        self,
        missing: Sequence[tuple[str, LlmRequest]],
        outcomes: dict[str, "_Outcome[T]"],
        completions: Completions[T],
    ) -> None:
        endpoint = self._endpoint
        client = Client(endpoint.address, endpoint.pace, endpoint.service, self._budget)

        async def one(number: int) -> int:
            key, prompt = missing[number]
            outcomes[key] = await self._complete_one(client, prompt, completions)
            return number

        try:
            for number in client.in_parallel(len(missing), one):
                self.done += 1
                self._journal.keep()
                self._tried += 1
                self._useless += outcomes[missing[number][0]].reply is None
                if self._tried == self._useless == _TRIED:
                    raise ServiceError(
                        f"llm: none of the first {_TRIED} prompts got a reply that can be used "
                        f"from {self._model.name} ({self._last_refusal}); try another model"
                    )
        finally:
            self._journal.flush()

    async def _complete_one(
        self, client: Client, prompt: LlmRequest, completions: Completions[T]
    ) -> "_Outcome[T]":
        reason = None
        for messages in (prompt.first, prompt.again):
            key = self._key(messages)
            if key not in self._journal:
                request = self._request(messages, prompt.private)
                reader = partial(read_completion, expected=request.expected)
                try:
                    choice, used = await client.call(request, reader)
                except Declined as error:
                    # A filter for content, or a text too long: about this prompt alone.
                    self._last_refusal = str(error)
                    return _Outcome(None, DECLINED)
                text = None
                with contextlib.suppress(NotInForm):
                    text = read_reply(choice).text
                cost = used.cost(self._model.price)
                self._journal.add(key, StoredReply(text, _was_cut(choice)), used, cost)
                completions.used += used
                completions.cost += cost
            try:
                return _Outcome(self._reading(key))
            except NotInForm as error:
                reason = str(error) or None
        return _Outcome(None, reason)

    def _reading(self, key: str) -> T:
        kept = self._journal[key]
        is_blank = kept.text is None or not kept.text.strip()
        if kept.cut and (self._model.whole or is_blank):
            raise NotInForm(TRUNCATED)
        if kept.text is None or is_blank:
            raise NotInForm(NO_TEXT)
        return self._read(kept.text)

    def _is_known(self, prompt: LlmRequest) -> bool:
        """Whether the journal answers for it: by a reply in the form, or by two that are not."""
        first, again = self._key(prompt.first), self._key(prompt.again)
        if first not in self._journal:
            return False
        with contextlib.suppress(NotInForm):
            self._reading(first)
            return True
        return again in self._journal

    def _recall(self, prompt: LlmRequest) -> "_Outcome[T]":
        reason = None
        for messages in (prompt.first, prompt.again):
            try:
                return _Outcome(self._reading(self._key(messages)))
            except NotInForm as error:
                reason = str(error) or None
        return _Outcome(None, reason)

    def _key(self, messages: Messages) -> str:
        return key_of(self._model.version, self._body(messages))

    def _body(self, messages: Messages) -> JsonObject:
        return {
            "model": self._model.name,
            "messages": messages,
            "temperature": self._model.temperature,
            "max_tokens": self._model.max_tokens,
        }

    def _request(self, messages: Messages, private: Sequence[str]) -> Request:
        tokens = sum(tokens_of(message["content"]) for message in messages)
        expected = Usage(tokens=tokens, output_tokens=self._model.max_tokens)
        return Request("/chat/completions", self._body(messages), private, expected)


@dataclass(frozen=True)
class _Outcome(Generic[T]):
    reply: T | None = None
    reason: str | None = None


def _was_cut(choice: Any) -> bool:
    return isinstance(choice, dict) and choice.get("finish_reason") == "length"


@contextmanager
def progress_at_cap(progress: Callable[[], tuple[int, int]], what: str, how: str) -> Iterator[None]:
    """Say, where the budget ends it, how much is there already and how to go on.

    ``progress`` gives how many of how many are done, ``what`` calls them, ``how`` is a command.
    """
    try:
        yield
    except SpendCapReached as error:
        reached, _, _ = str(error).partition(" What was paid for")
        done, total = progress()
        raise SpendCapReached(
            f"{reached} {done:,} of {total:,} {what} are there and kept; go on with {how} and a "
            "higher --set cost.cap=…"
        ) from None
