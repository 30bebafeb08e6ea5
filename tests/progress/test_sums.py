"""What workers report is summed by query: nothing counts twice, whatever is done again or lost."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_batch.progress import CallReport, Place, Progress, ProgressSender, pairs
from rerank_batch.progress.messages import read, write
from rerank_batch.progress.pairs import Pairs

BLOCKS = [(0, 4), (4, 8), (8, 13)]
PLACES = [
    Place("encode", "encode"),
    Place("rerank 1", "rerank", 1),
    Place("rerank 2", "rerank", 2),
]
DEPTHS = {1: 10, 2: 3}
"""How many pairs of a query each reranker reads; one of them is known before."""


def requested(queries: int, reranker: int) -> Pairs:
    return Pairs(requested=DEPTHS[reranker] * queries, known=queries)


def read_whole(queries: int, reranker: int) -> Pairs:
    pairs = requested(queries, reranker)
    return replace(pairs, scored=pairs.requested - pairs.known)


def part(block: int, share: float, done: bool = False, seconds: float = 1.0) -> CallReport:
    """A block of which the first reranker has scored a share; the second begins when it is done."""
    start, stop = BLOCKS[block]
    found = {}
    for reranker, scored in ((1, min(1.0, 2 * share)), (2, max(0.0, 2 * share - 1))):
        mine = requested(stop - start, reranker)
        found[reranker] = replace(mine, scored=int(scored * (mine.requested - mine.known)))
    if share < 0.5:
        del found[2]
    return CallReport(start, stop - start, done, seconds, found)


class Cluster:
    """Stands in for the head that keeps the last message of every worker, and for the clock."""

    def __init__(self, to_do=(0, 1, 2)) -> None:
        self.messages: dict[tuple[str, str], bytes] = {}
        self.now = 100.0
        self.progress = Progress(PLACES, BLOCKS, to_do, lambda: self.messages, lambda: self.now)

    def report(self, stage: str, worker: str, *parts: CallReport) -> None:
        self.messages[stage, worker] = write(parts)

    def commit(self, block: int) -> None:
        start, stop = BLOCKS[block]
        self.progress.commit(start, {n: read_whole(stop - start, n) for n in DEPTHS})

    def lines(self, after: float = 0.0):
        self.now += after
        return {line.name: line for line in self.progress.look().lines}


reports = st.tuples(
    st.sampled_from(["encode", "rerank"]),
    st.sampled_from(["first", "second", "restarted"]),
    st.integers(0, 2),
    st.floats(0, 1),
    st.booleans(),
)


@given(st.lists(st.one_of(reports, st.integers(0, 2)), max_size=40), st.sets(st.integers(0, 2)))
def test_never_more_than_there_is_and_all_of_it_at_the_end(steps, to_do):
    """Blocks begun by several workers, again after they were done or committed, in any order."""
    cluster = Cluster(to_do)
    total = {n: sum(DEPTHS[n] * (b - a) for a, b in map(BLOCKS.__getitem__, to_do)) for n in DEPTHS}
    for step in [*steps, *range(3)]:
        if isinstance(step, int):
            cluster.commit(step)
        else:
            stage, worker, block, share, done = step
            sent = part(block, 1.0 if done else share, done)
            cluster.report(stage, worker, replace(sent, pairs={}) if stage == "encode" else sent)
        for place in PLACES:
            line = cluster.lines(after=3)[place.name]
            assert 0 <= line.share <= 1
            assert line.queries <= 13 * line.share + 1e-9
            if place.reranker is not None:
                assert line.known <= line.pairs <= total[place.reranker]
    whole = cluster.progress.look()
    assert (whole.committed, whole.planned, whole.left) == (13, 13, 0)
    for line in whole.lines:
        assert (line.queries, line.share) == (13, 1)
    assert [line.pairs for line in whole.lines] == [None, total[1], total[2]]


def test_inside_a_block_pairs_say_how_fast_it_goes_and_what_is_left():
    cluster = Cluster(to_do=[2])
    half = CallReport(8, 5, False, 10.0, {1: Pairs(requested=50, known=10, scored=20)})
    cluster.report("rerank", "first", half)
    line = cluster.lines()["rerank 1"]
    assert (line.queries, line.pairs, line.known) == (8, 30, 10)
    assert line.rate == pytest.approx(2.0), "20 pairs in the ten seconds since it began"
    assert line.share == pytest.approx((8 + 2.5) / 13)
    assert line.left == pytest.approx(10.0)
    second = cluster.lines()["rerank 2"]
    assert (second.queries, second.pairs, second.rate, second.left) == (8, 0, None, None)
    assert cluster.progress.look().left is None, "what follows has not begun"


def test_of_a_block_that_is_begun_anew_only_the_new_attempt_counts():
    cluster = Cluster()
    cluster.report("rerank", "restarted", CallReport(4, 4, False, 1.0, {}))
    cluster.report("rerank", "died", CallReport(0, 4, False, 9.0, {1: Pairs(40, 0, 30)}))
    assert cluster.lines()["rerank 1"].pairs == 30
    cluster.report("rerank", "restarted", CallReport(0, 4, False, 1.0, {1: Pairs(40, 0, 10)}))
    assert cluster.lines(after=5)["rerank 1"].pairs == 10
    assert cluster.lines(after=5)["rerank 1"].pairs == 10, "what the dead one said is old"


def test_a_line_is_as_fast_as_it_was_when_all_is_done():
    cluster = Cluster(to_do=[0])
    cluster.report("encode", "first", CallReport(0, 4, True, 2.0, {}))
    assert cluster.lines()["encode"].rate == pytest.approx(2.0)
    assert cluster.lines(after=500)["encode"].rate == pytest.approx(2.0)


def test_a_worker_tells_what_changed_and_forgets_a_failed_attempt():
    sent: list[bytes] = []
    sender = ProgressSender(sent.append)
    sender.send()
    assert sent == []
    with sender.call(8, 5):
        with pytest.raises(MemoryError), pairs.reading(1, 50):
            pairs.scored(40)
            raise MemoryError
        pairs.forget()  # as an actor does before it tries again
        with pairs.reading(1, 50):
            pairs.known(10)
            pairs.scored(15)
            sender.send()
            (now,) = read(sent[-1])
            assert (now.start, now.queries, now.done) == (8, 5, False)
            assert now.pairs == {1: Pairs(requested=50, known=10, scored=15)}
    pairs.scored(99)  # nobody reads: a model that is tried out
    sender.send()
    (ended,) = read(sent[-1])
    assert (ended.done, ended.pairs) == (True, {1: Pairs(requested=50, known=10, scored=40)})
    sender.send()
    assert len(sent) == 2, "nothing new, nothing sent"
