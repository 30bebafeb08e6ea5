"""Groups of shards: the fewest that fit, as even as can be; what they find together is what the
whole index finds, to the last bit."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch import ranking
from rerank_batch.ranking import PAD
from rerank_batch.retrieval.hits import RankedList
from rerank_batch.retrieval.running_lists import merged
from rerank_batch.retrieval.shard_groups import groups_per_node, plan_groups


def every_plan(shards: int):
    """All ways to divide so many shards in a row."""
    for cuts in itertools.product((False, True), repeat=shards - 1):
        edges = [0, *(n for n, cut in enumerate(cuts, start=1) if cut), shards]
        yield list(itertools.pairwise(edges))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=7), st.integers(0, 30), st.integers(1, 3))
def test_the_groups_are_the_fewest_that_fit_and_the_largest_is_as_small_as_can_be(
    sizes, spare, at_least
):
    limit = max(sizes) + spare
    at_least = min(at_least, len(sizes))
    groups = plan_groups(sizes, limit, at_least)
    assert [n for g in groups for n in range(g.start, g.stop)] == list(range(len(sizes)))
    assert [g.bytes for g in groups] == [sum(sizes[g.start : g.stop]) for g in groups]
    plans = [[sum(sizes[a:b]) for a, b in plan] for plan in every_plan(len(sizes))]
    fitting = [plan for plan in plans if max(plan) <= limit and len(plan) >= at_least]
    fewest = min(map(len, fitting))
    assert len(groups) == fewest
    most_even = min(max(plan) for plan in fitting if len(plan) == fewest)
    assert max(g.bytes for g in groups) == most_even


def test_what_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match="no 1 groups of 3 shards hold 4 bytes each"):
        plan_groups([3, 5, 2], 4)
    with pytest.raises(ValueError, match="no 4 groups of 3 shards"):
        plan_groups([3, 5, 2], 9, at_least=4)


def test_a_node_has_its_share_of_the_groups_and_at_most_all():
    assert groups_per_node(5, 1, 1) == 5
    assert groups_per_node(5, 1, 2) == 3
    assert groups_per_node(5, 3, 2) == 5
    assert groups_per_node(4, 1, 9) == 1


@settings(max_examples=150, deadline=None)
@given(
    shards=st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=6),
    depth=st.integers(1, 12),
    cuts=st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_lists_that_travel_are_those_of_one_search_of_everything(shards, depth, cuts):
    """Few different scores, so that ties cross the borders of groups all the time."""
    first = itertools.accumulate([0, *map(len, shards)])
    hits = []
    for start, values in zip(first, shards, strict=False):
        scores = np.array(values, np.float32)
        documents = np.arange(start, start + len(values))
        best = ranking.order(scores, documents)[:depth]
        padding = depth - len(best)
        hits.append(
            (
                np.concatenate([scores[best], np.full(padding, -np.inf, np.float32)])[None],
                np.concatenate([documents[best], np.full(padding, PAD)])[None],
            )
        )
    scores, documents = (part[0] for part in ranking.merge(hits, depth))
    running = RankedList(np.empty(0, np.int64), np.empty(0, np.float32))
    group: list[tuple[np.ndarray, np.ndarray]] = []
    for number, hit in enumerate(hits):
        group.append(hit)
        if number == len(hits) - 1 or cuts[number]:
            s, d = (part[0] for part in ranking.merge(group, depth))
            running = merged(running, RankedList(d[d != PAD], s[d != PAD]), depth)
            group = []
    assert running.documents.tolist() == documents[documents != PAD].tolist()
    assert running.scores.tobytes() == scores[documents != PAD].tobytes()
