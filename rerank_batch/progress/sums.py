"""The sums of what workers report: how far each stage of a run is, how fast, and what time is left.

Everything is counted by its queries, so that nothing counts twice: a block that is done again, by a
restarted actor or after a node was lost, is the same block. What is committed is through every
stage, whatever was reported of it. Shares and times left are of queries, which are planned: the
number of pairs is not known where a gate or a cache keeps some away. Inside a block a reranker is
as far as the share it has scored of the pairs that it has to score there.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

from rerank_batch.progress.messages import CallReport, read
from rerank_batch.progress.pairs import Pairs

LOOK_SECONDS = 2.0

ReadMessages = Callable[[], Mapping[tuple[str, str], bytes]]
"""The messages there are, by the stage and the worker that sent them."""


@dataclass(frozen=True)
class Place:
    """What gets a line: a stage, or one of the rerankers in it, by its number."""

    name: str
    stage: str
    reranker: int | None = None


@dataclass(frozen=True)
class StageProgress:
    """How far a stage is: so many ``queries`` are through, and a ``share`` of all with those that
    it is at.

    Of a reranker ``pairs`` are those it has read for this driver, ``known`` of them without scoring
    them. ``rate`` is queries, or pairs scored, a second since the stage began; ``left`` are the
    seconds that it takes as it goes. Each is None while it is not known.
    """

    name: str
    queries: int
    share: float
    rate: float | None
    left: float | None
    pairs: int | None = None
    known: int = 0


@dataclass(frozen=True)
class Snapshot:
    """How far a run is: of ``planned`` queries those that are committed, and its stages.

    ``left`` is that of the slowest stage, once all that score have begun.
    """

    committed: int
    planned: int
    seconds: float
    left: float | None
    lines: tuple[StageProgress, ...]


@dataclass
class _StageReports:
    """What was reported of a stage: parts by block and first query; pairs of committed blocks.

    ``began`` and ``ended`` on the clock of the sums, ended for each line.
    """

    parts: dict[int, dict[int, CallReport]] = field(default_factory=dict)
    committed: dict[int, Pairs] = field(default_factory=dict)
    began: float | None = None
    ended: dict[int | None, float] = field(default_factory=dict)


class Progress:
    """The sums of one run by one driver.

    ``blocks`` are the bounds of all blocks and ``to_do`` the numbers of those that are not done
    yet. ``commit`` and ``look`` may be called from different threads.
    """

    def __init__(
        self,
        places: Sequence[Place],
        blocks: Sequence[tuple[int, int]],
        to_do: Collection[int],
        read_messages: ReadMessages,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places, self._read_messages, self._clock = places, read_messages, clock
        self._starts = [start for start, _ in blocks]
        self._sizes = [stop - start for start, stop in blocks]
        self._done = set(range(len(blocks))) - set(to_do)
        self._planned = sum(self._sizes)
        self._before = self._committed = sum(self._sizes[block] for block in self._done)
        self._stages = {place.stage: _StageReports() for place in places}
        self._received: dict[tuple[str, str], bytes] = {}
        self._lock = Lock()
        self._began, self._looked = clock(), float("-inf")

    def commit(self, start: int, pairs: Mapping[int, Pairs]) -> None:
        """The block that begins with that query is committed, with those pairs of each reranker;
        they count for stages of which nothing was reported."""
        with self._lock:
            block = self._block_of(start)
            if block in self._done:
                return
            self._done.add(block)
            self._committed += self._sizes[block]
            for place in self._places:
                stage = self._stages[place.stage]
                if place.reranker is None:
                    continue
                reported = [part for part in stage.parts.get(block, {}).values() if part.done]
                if sum(part.queries for part in reported) == self._sizes[block]:
                    counted = _pairs_of(reported, place.reranker)
                else:
                    counted = pairs.get(place.reranker, Pairs())
                stage.committed[place.reranker] = counted + stage.committed.get(
                    place.reranker, Pairs()
                )
            for stage in self._stages.values():
                stage.parts.pop(block, None)

    def look(self) -> Snapshot:
        """How far everything is; reads the messages again when it last did so some seconds ago."""
        now = self._clock()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._receive(self._read_messages())
        with self._lock:
            lines = tuple(self._line(place, now) for place in self._places)
            scoring = [line for line in lines if line.pairs is not None] or lines
            left = [0.0 if line.share == 1 else line.left for line in scoring]
            estimates = [seconds for seconds in left if seconds is not None]
            return Snapshot(
                self._committed,
                self._planned,
                now - self._began,
                max(estimates, default=None) if len(estimates) == len(left) else None,
                lines,
            )

    def _receive(self, messages: Mapping[tuple[str, str], bytes]) -> None:
        now = self._clock()
        with self._lock:
            for key, message in messages.items():
                # A dead worker's message stays: another worker may have begun its block anew.
                if self._received.get(key) == message or key[0] not in self._stages:
                    continue
                self._received[key] = message
                self._add(self._stages[key[0]], read(message), now)

    def _add(self, stage: _StageReports, parts: Sequence[CallReport], now: float) -> None:
        if stage.began is None:
            stage.began = now - max((part.seconds for part in parts), default=0.0)
        for part in parts:
            block = self._block_of(part.start)
            if block in self._done:
                continue
            reported = stage.parts.setdefault(block, {})
            if part.start not in reported or not reported[part.start].done:
                reported[part.start] = part

    def _line(self, place: Place, now: float) -> StageProgress:
        stage = self._stages[place.stage]
        through, reached = self._committed, float(self._committed)
        for block, reported in stage.parts.items():
            whole = sum(part.queries for part in reported.values() if part.done)
            inside = sum(
                part.queries * pairs.share
                for part in reported.values()
                for reranker, pairs in part.pairs.items()
                if not part.done and reranker == place.reranker
            )
            through += min(whole, self._sizes[block])
            reached += min(whole + inside, self._sizes[block])
        share = reached / self._planned if self._planned else 1.0
        read, new = None, through - self._before
        if place.reranker is not None:
            parts = (part for reported in stage.parts.values() for part in reported.values())
            read = _pairs_of(parts, place.reranker)
            read += stage.committed.get(place.reranker, Pairs())
            new = read.scored
        elapsed = None
        if stage.began is not None:
            if share >= 1:
                now = stage.ended.setdefault(place.reranker, now)
            elapsed = max(now - stage.began, 1e-9)
        rate = new / elapsed if elapsed and new else None
        left = None
        if elapsed and reached > self._before:
            left = elapsed * (self._planned - reached) / (reached - self._before)
        return StageProgress(
            place.name,
            through,
            share,
            rate,
            left,
            None if read is None else read.known + read.scored,
            0 if read is None else read.known,
        )

    def _block_of(self, query: int) -> int:
        return bisect_right(self._starts, query) - 1


def _pairs_of(parts: Iterable[CallReport], reranker: int) -> Pairs:
    return sum((part.pairs.get(reranker, Pairs()) for part in parts), Pairs())
