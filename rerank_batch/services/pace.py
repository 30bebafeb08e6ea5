"""How fast a service may be called: so many requests and so many tokens a minute, in any minute.

Knows a clock and numbers. A call counts from its start until a minute after its end: whenever it
reached the service in between, no minute there holds more than the limit. Starts are also spread
evenly, with at most one second's worth at once.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

from rerank_batch.errors import ConfigError

MINUTE = 60.0
_MOMENT = 0.01


class Pace:
    """The limits of one key, or one scorer's part of them; for one event loop at a time.

    Calls are started one after the other: who waits in `start` must be alone there.
    """

    def __init__(
        self,
        requests: int | None = None,
        tokens: int | None = None,
        *,
        minute: float = MINUTE,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._most_requests, self._most_tokens = requests, tokens
        self._minute, self._clock, self._sleep = minute, clock, sleep
        self._requests = self._tokens = 0
        self._over: deque[tuple[float, int]] = deque()
        self._due = self._held = float("-inf")

    async def start(self, tokens: int) -> None:
        """Wait until a call of so many tokens may start; `end` must follow.

        Raises:
            ConfigError: such a call never may.
        """
        if self._most_tokens is not None and tokens > self._most_tokens:
            raise ConfigError(
                f"one call of about {tokens:,} tokens is more than the {self._most_tokens:,} a "
                "minute that this scorer may use: lower depth or max_chars, raise "
                "service.tokens_per_minute or set compute.scorers lower"
            )
        while (wait := self._wait(tokens)) > 0:
            await self._sleep(wait)
        self._requests += 1
        self._tokens += tokens
        self._due = max(self._clock(), self._due) + self._share(tokens) * self._minute

    def end(self, tokens: int) -> None:
        """The call is over, whatever came of it."""
        self._over.append((self._clock(), tokens))

    def hold(self, seconds: float) -> None:
        """Start no call for so long: the service asked for it."""
        self._held = max(self._held, self._clock() + seconds)

    def _wait(self, tokens: int) -> float:
        """How long at least until there may be room; 0 where there is."""
        now = self._clock()
        while self._over and now - self._over[0][0] > self._minute:
            self._requests -= 1
            self._tokens -= self._over.popleft()[1]
        full = self._most_requests is not None and self._requests >= self._most_requests
        full |= self._most_tokens is not None and self._tokens + tokens > self._most_tokens
        if full:
            # Without one that is over, room depends on a call whose end nobody knows.
            room = self._over[0][0] + self._minute if self._over else now
            return max(room - now, _MOMENT)
        second = self._minute / 60
        return max(self._due - second - now, self._held - now, 0.0)

    def _share(self, tokens: int) -> float:
        """The part of a minute's worth that a call is."""
        requests = 1 / self._most_requests if self._most_requests else 0.0
        return max(requests, tokens / self._most_tokens if self._most_tokens else 0.0)


def part_of(limit: int | None, sharers: int, setting: str) -> int | None:
    """One scorer's part of what a key allows.

    Raises:
        ConfigError: there are more scorers than parts.
    """
    if limit is not None and limit < sharers:
        raise ConfigError(
            f"service.{setting} is {limit}, too little for {sharers} scorers: "
            "set compute.scorers lower"
        )
    return None if limit is None else limit // sharers
