"""One careful HTTP client for every service: paced, bounded, retried, billed, silent about texts.

Knows no service's words: a request says where it goes and what it may cost, and its reader makes
something of the answer. Redirects are never followed and proxies of the environment are ignored;
certificates are checked, against SSL_CERT_FILE where it is set.
"""

import asyncio
import email.utils
import functools
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
import stamina

from rerank_batch.config import ServiceConfig
from rerank_batch.errors import ServiceError
from rerank_batch.services.address import Address, Unresolved
from rerank_batch.services.pace import Pace
from rerank_batch.services.refusal import public_message
from rerank_batch.services.spending import Budget
from rerank_batch.services.usage import Usage

T = TypeVar("T")

MOST_BYTES = 64 << 20
LONGEST_WAIT = 300.0
"""A service that asks for more seconds of patience than this is taken to refuse."""

_ABOUT_THE_CONTENT = (400, 413, 422)
_CONNECT_SECONDS = 10.0
_NOTHING = Usage()


@dataclass(frozen=True)
class Request:
    """One call: ``body`` is sent to ``path`` as JSON.

    ``private`` are the texts in it that no message may repeat. ``expected`` is what an answer is
    thought to be billed with, the call itself not counted. ``parse`` takes the answer's body apart.
    """

    path: str
    body: Mapping[str, Any]
    private: Sequence[str]
    expected: Usage = _NOTHING
    parse: Callable[[bytes], Any] = json.loads

    @property
    def tokens(self) -> int:
        """What the call takes of the tokens per minute."""
        return self.expected.tokens + self.expected.output_tokens


class Malformed(ValueError):
    """An answer came but cannot be right. ``used`` is its bill, where that much could be read."""

    def __init__(self, reason: str, used: Usage | None = None) -> None:
        super().__init__(reason)
        self.used = used


class Declined(ServiceError):
    """The service does not take this request, perhaps for what it holds; it may take the next."""


class Client:
    """Calls one service for one window of queries.

    ``pace`` outlives the client, so that windows that follow each other keep within it together.
    """

    def __init__(
        self, address: Address, pace: Pace, settings: ServiceConfig, budget: Budget
    ) -> None:
        self._address, self._pace, self._settings, self._budget = address, pace, settings, budget
        self._ips: tuple[str, ...] = ()
        self._first = 0

    def in_parallel(self, count: int, one: Callable[[int], Awaitable[T]]) -> Iterator[T]:
        """What ``one`` makes of the numbers below ``count``, in the order in which it is done.

        At the first error no further number is begun; those under way are finished and yielded,
        then the error is raised. Nothing moves between two results: take them without delay. An
        interrupt, or an end before the last result, cancels what is under way.
        """
        retries = stamina.retry_context(
            on=Unresolved, attempts=self._settings.attempts, timeout=None
        )
        for attempt in retries:
            with attempt:
                self._ips = self._address.resolve()
        with asyncio.Runner() as runner:
            results = self._results(count, one)
            while (found := runner.run(_next(results))) is not None:
                yield found[0]

    async def call(
        self,
        request: Request,
        read: Callable[[Any], tuple[T, Usage]],
        budget: Budget | None = None,
    ) -> tuple[T, Usage]:
        """What ``read`` makes of the parsed answer, and all that was billed for it.

        ``budget`` is a part of the client's own, for calls that belong together.

        ``read`` raises ValueError for an answer that cannot be right, `Malformed` if it could read
        the bill. Such answers, 429, 5xx and failures of the network are tried again; every try
        waits for its turn and is allowed by the budget by itself.

        Raises:
            SpendCapReached: the budget allows no further try.
            Declined: the service does not take this request.
            ServiceError: the service refuses, or no try came to anything.
        """
        used = Usage()
        retries = stamina.retry_context(
            on=_TryAgain,
            attempts=self._settings.attempts,
            timeout=None,
            wait_initial=0.5,
            wait_max=30.0,
        )
        try:
            async for attempt in retries:
                with attempt:
                    try:
                        made, billed = await self._try(request, read, budget or self._budget)
                    except _TryAgain as failure:
                        used += failure.used
                        raise
        except _TryAgain as failure:
            raise ServiceError(
                f"{self._address.family}: {self._settings.attempts} tries of POST {request.path} "
                f"at {self._address.origin} came to nothing, the last one: {failure}"
            ) from None
        return made, used + billed

    async def _try(
        self, request: Request, read: Callable[[Any], tuple[T, Usage]], budget: Budget
    ) -> tuple[T, Usage]:
        expected = request.expected + Usage(requests=1)
        budget.reserve(expected)
        used = Usage()
        try:
            status, headers, raw = await self._post(request)
            if not 200 <= status < 300:
                raise self._failure(request, status, headers, raw)
            try:
                made, billed = read(request.parse(raw))
            except Malformed as error:
                used = Usage(unread=1) if error.used is None else error.used + Usage(requests=1)
                raise _TryAgain(str(error), used) from None
            except (ValueError, RecursionError):
                used = Usage(unread=1)
                raise _TryAgain("an answer of no known form", used) from None
            used = billed + Usage(requests=1)
            return made, used
        finally:
            budget.settle(expected, used)

    async def _post(self, request: Request) -> tuple[int, httpx2.Headers, bytes]:
        async with self._turns:
            await self._pace.start(request.tokens)
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                return await self._reach(request)
        except httpx2.ConnectError as error:
            raise _TryAgain(f"ConnectError: {error}") from None
        except (httpx2.RequestError, TimeoutError) as error:
            # No more than its name: it may quote what the service sent, and that may be anything.
            raise _TryAgain(type(error).__name__) from None
        finally:
            self._pace.end(request.tokens)

    async def _reach(self, request: Request) -> tuple[int, httpx2.Headers, bytes]:
        """The answer of the first of the addresses, from the last good one on, that connects."""
        content = json.dumps(request.body, allow_nan=False).encode()
        last = self._first + len(self._ips) - 1
        for number in range(self._first, last + 1):
            try:
                ip = self._ips[number % len(self._ips)]
                return await self._send(self._address.url(ip, request.path), content)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                if number == last:
                    raise
                self._first = number + 1
        raise AssertionError("a name that was resolved has an address")

    async def _send(self, url: str, content: bytes) -> tuple[int, httpx2.Headers, bytes]:
        named = {"sni_hostname": self._address.host}
        async with self._http.stream("POST", url, content=content, extensions=named) as response:
            raw = bytearray()
            async for piece in response.aiter_bytes():
                raw += piece
                if len(raw) > MOST_BYTES:
                    raise _TryAgain(f"an answer of more than {MOST_BYTES} bytes")
            return response.status_code, response.headers, bytes(raw)

    def _failure(
        self, request: Request, status: int, headers: httpx2.Headers, raw: bytes
    ) -> Exception:
        """What an answer other than a success means: to try again, or the end."""
        secrets = [*request.private, *([self._address.key] if self._address.key else [])]
        message = public_message(raw, secrets)
        what = f"HTTP {status}{f': {message}' if message else ''}"
        if status != 429 and status < 500:
            redirect = ", a redirect, and none is followed" if 300 <= status < 400 else ""
            where = f"{self._address.family} at {self._address.origin}"
            kind = Declined if status in _ABOUT_THE_CONTENT else ServiceError
            return kind(f"{where} answered POST {request.path} with {what}{redirect}")
        wait = _retry_after(headers)
        if wait is not None and wait > LONGEST_WAIT:
            return ServiceError(f"{self._address.family} asks to wait {wait:.0f} s: {what}")
        self._pace.hold(wait or 0.0)
        return _TryAgain(what)

    async def _results(self, count: int, one: Callable[[int], Awaitable[T]]) -> AsyncIterator[T]:
        """See `in_parallel`."""
        self._turns = asyncio.Lock()
        numbers = iter(range(count))
        under_way: set[asyncio.Future[T]] = set()
        failure: BaseException | None = None
        async with self._open() as self._http:
            try:
                while True:
                    while failure is None and len(under_way) < self._settings.concurrency:
                        if (number := next(numbers, None)) is None:
                            break
                        under_way.add(asyncio.ensure_future(one(number)))
                    if not under_way:
                        break
                    done, under_way = await asyncio.wait(
                        under_way, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in done:
                        failure = failure or task.exception()
                    for task in done:
                        if task.exception() is None:
                            yield task.result()
            finally:
                for task in under_way:
                    task.cancel()
                await asyncio.gather(*under_way, return_exceptions=True)
        if failure is not None:
            raise failure

    def _open(self) -> httpx2.AsyncClient:
        headers = {
            "Host": self._address.origin,
            "Content-Type": "application/json",
            "User-Agent": "rerank-batch",
        }
        if self._address.key is not None:
            headers["Authorization"] = f"Bearer {self._address.key}"
        return httpx2.AsyncClient(
            headers=headers,
            follow_redirects=False,
            trust_env=False,
            verify=_tls(),
            limits=httpx2.Limits(max_connections=self._settings.concurrency),
            timeout=httpx2.Timeout(None, connect=_CONNECT_SECONDS),
        )


class _TryAgain(Exception):
    """A try came to nothing that another may come to something after. ``used`` was billed."""

    def __init__(self, reason: str, used: Usage = _NOTHING) -> None:
        super().__init__(reason)
        self.used = used


@functools.cache
def _tls() -> ssl.SSLContext:
    """Reading all the certificates takes a fifth of a second, so it is done once per process."""
    return httpx2.create_ssl_context()


async def _next(results: AsyncIterator[T]) -> tuple[T] | None:
    """The next result, alone in a tuple; None after the last."""
    try:
        return (await anext(results),)
    except StopAsyncIteration:
        return None


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds, from either form of the header; None where it says nothing sensible."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.replace(".", "", 1).isdigit():
        return float(value)
    try:
        until = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(until - time.time(), 0.0)
