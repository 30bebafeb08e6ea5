"""The messages of a worker about its calls: about once a second, each replaces the one before.

A thread of its own sends them, so that work never waits for whoever reads. A message holds the call
that is going on and the last ones that ended: a reader that missed some learns of them from the
next, or from their commit.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rerank_batch.progress import pairs as counts
from rerank_batch.progress.pairs import Pairs

EVERY_SECONDS = 1.0

_ENDED = 64


@dataclass(frozen=True)
class CallReport:
    """What a stage has made, ``seconds`` after it began, of so many queries from number ``start``.

    ``pairs`` are those of each reranker that has begun, by its number.
    """

    start: int
    queries: int
    done: bool
    seconds: float
    pairs: Mapping[int, Pairs]


class ProgressSender:
    """Sends the progress of the calls that one process works on, one after the other.

    ``put`` takes a message and may take long; it must not raise.
    """

    def __init__(self, put: Callable[[bytes], None]) -> None:
        self._put = put
        self._ended: deque[CallReport] = deque(maxlen=_ENDED)
        self._now: tuple[int, int, float] | None = None
        self._sent = b""

    def start(self) -> None:
        """Send from now on, for as long as the process lives."""
        threading.Thread(target=self._send_always, name="progress", daemon=True).start()

    @contextmanager
    def call(self, start: int, queries: int) -> Iterator[None]:
        """A call about so many queries, the first of them number ``start``."""
        counts.forget()
        began = time.monotonic()
        self._now = (start, queries, began)
        try:
            yield
            took = time.monotonic() - began
            self._ended.append(CallReport(start, queries, True, took, counts.counted()))
        finally:
            self._now = None

    def send(self) -> None:
        """Send a message, unless it would be the same as the last one."""
        parts = list(self._ended)
        if (now := self._now) is not None:
            start, queries, began = now
            took = time.monotonic() - began
            parts.append(CallReport(start, queries, False, took, counts.counted()))
        message = write(parts)
        if parts and message != self._sent:
            self._put(message)
            self._sent = message

    def _send_always(self) -> None:
        while True:
            time.sleep(EVERY_SECONDS)
            self.send()


def write(parts: Iterable[CallReport]) -> bytes:
    """The message of some parts."""
    rows = [
        [
            part.start,
            part.queries,
            part.done,
            round(part.seconds, 2),
            {number: [p.requested, p.known, p.scored] for number, p in part.pairs.items()},
        ]
        for part in parts
    ]
    return json.dumps(rows, separators=(",", ":")).encode()


def read(message: bytes) -> list[CallReport]:
    """The parts of a message."""
    return [
        CallReport(start, queries, done, seconds, {int(n): Pairs(*p) for n, p in pairs.items()})
        for start, queries, done, seconds, pairs in json.loads(message)
    ]
