"""No minute ever holds more than the limit, wherever in its time a call reached the service."""

import asyncio
import heapq
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.errors import ConfigError
from rerank_batch.services.pace import Pace, part_of


class Simulation:
    """A clock that moves when someone waits, and calls that end on the way."""

    def __init__(self, requests: int | None, tokens: int | None) -> None:
        self.now = 0.0
        self.pace = Pace(requests, tokens, clock=lambda: self.now, sleep=self.sleep)
        self._ends: list[tuple[float, int, int]] = []
        self._number = itertools.count()

    async def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        while self._ends and self._ends[0][0] <= until:
            self.now, _, tokens = heapq.heappop(self._ends)
            self.pace.end(tokens)
        self.now = until

    def call(self, tokens: int = 0, lasts: float = 0.0) -> float:
        """When it was started."""
        asyncio.run(self.pace.start(tokens))
        heapq.heappush(self._ends, (self.now + lasts, next(self._number), tokens))
        return self.now

    def pause(self, seconds: float) -> None:
        asyncio.run(self.sleep(seconds))


CALLS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.001, 1.0, 59.0, 61.0]) | st.floats(0, 70),  # pause before
        st.integers(0, 40),  # tokens
        st.sampled_from([0.0, 0.5, 60.0]) | st.floats(0, 90),  # how long it lasts
        st.floats(0, 1),  # when in that time it arrives
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(
    calls=CALLS,
    requests=st.none() | st.integers(1, 30),
    tokens=st.none() | st.integers(40, 400),
)
def test_any_minute_holds_at_most_the_limit(calls, requests, tokens):
    simulation = Simulation(requests, tokens)
    arrivals = []
    for pause, size, lasts, part in calls:
        simulation.pause(pause)
        arrivals.append((simulation.call(size, lasts) + part * lasts, size))
    arrivals.sort()
    for first, _ in arrivals:
        within = [size for arrived, size in arrivals if 0 <= arrived - first <= 60]
        assert requests is None or len(within) <= requests
        assert tokens is None or sum(within) <= tokens


def test_starts_are_spread_evenly_and_use_the_limit():
    simulation = Simulation(600, None)
    starts = [simulation.call() for _ in range(1500)]
    assert sum(start < 0.05 for start in starts) <= 11, "one second's worth at once"
    assert starts[599] < 60.5
    assert starts[-1] < 150.5
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts[20:590])]
    assert max(gaps) < 0.11


def test_without_limits_nothing_waits():
    simulation = Simulation(None, None)
    assert [simulation.call(10**9) for _ in range(1000)] == [0.0] * 1000


def test_a_hold_is_kept():
    simulation = Simulation(None, None)
    simulation.pace.hold(7.5)
    simulation.pace.hold(1.0)
    assert simulation.call() == pytest.approx(7.5)


def test_a_call_beyond_a_whole_minute_is_an_error():
    with pytest.raises(ConfigError, match=r"101 tokens is more than the 100.*compute\.scorers"):
        Simulation(None, 100).call(101)


def test_a_limit_is_shared():
    assert part_of(None, 8, "requests_per_minute") is None
    assert part_of(1000, 8, "requests_per_minute") == 125
    with pytest.raises(ConfigError, match="requests_per_minute is 7, too little for 8 scorers"):
        part_of(7, 8, "requests_per_minute")
