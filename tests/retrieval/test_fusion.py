"""Fused lists: the formulas by hand, and what holds for any lists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_batch.config import FusionConfig
from rerank_batch.ranking import order
from rerank_batch.retrieval.fusion import Fusion
from rerank_batch.retrieval.hits import RankedList


def found(*hits: tuple[int, float]) -> RankedList:
    documents, scores = zip(*hits, strict=True) if hits else ((), ())
    return RankedList(np.array(documents, np.int64), np.array(scores, np.float32))


DENSE = found((7, 0.9), (3, 0.5), (5, 0.4))
WORDS = found((3, 12.0), (8, 4.0))


def fused(config: FusionConfig, *lists: RankedList) -> dict[int, float]:
    best = Fusion.of(config, ("dense", "bm25")).fuse(lists or (DENSE, WORDS), 10)
    return dict(zip(best.documents.tolist(), best.scores.tolist(), strict=True))


def test_reciprocal_ranks():
    expected = {3: 1 / 62 + 1 / 61, 7: 1 / 61, 8: 1 / 62, 5: 1 / 63}
    scores = fused(FusionConfig())
    assert scores == pytest.approx(expected)
    assert list(scores) == [3, 7, 8, 5]
    heavy = fused(FusionConfig(k=10, weights={"bm25": 3}))
    assert heavy == pytest.approx({3: 1 / 12 + 3 / 11, 8: 3 / 12, 7: 1 / 11, 5: 1 / 13})


def test_weighted_scores_are_made_comparable_first():
    config = FusionConfig(method="weighted", weights={"dense": 0.7, "bm25": 0.3})
    assert fused(config) == pytest.approx({7: 0.7, 3: 0.7 * 0.2 + 0.3, 5: 0, 8: 0}, abs=1e-6)

    z = fused(FusionConfig(method="weighted", normalise="z"))
    mean, deviation = 0.6, np.std([0.9, 0.5, 0.4])
    last = (0.4 - mean) / deviation
    expected = {7: 0.3 / deviation - 1, 3: (0.5 - mean) / deviation + 1, 5: last - 1, 8: last - 1}
    assert z == pytest.approx(expected, abs=1e-5)


def test_a_list_of_one_or_none_or_weight_nothing():
    weighted = FusionConfig(method="weighted")
    assert fused(weighted, DENSE, found((8, 3.0))) == pytest.approx(
        {7: 1.0, 8: 1.0, 3: 0.2, 5: 0.0}, abs=1e-6
    )
    assert fused(weighted, found(), WORDS) == {3: 1.0, 8: 0.0}
    assert fused(weighted, found(), found()) == {}
    assert list(fused(FusionConfig(weights={"bm25": 0}))) == [7, 3, 5]


lists = st.dictionaries(st.integers(0, 30), st.floats(-5, 5, width=32), max_size=20).map(
    lambda scores: found(*sorted(scores.items(), key=lambda hit: (-hit[1], hit[0])))
)
configs = st.sampled_from(
    [
        FusionConfig(),
        FusionConfig(method="weighted", weights={"dense": 0.3}),
        FusionConfig(method="weighted", normalise="z"),
    ]
)


@given(config=configs, dense=lists, words=lists, depth=st.integers(1, 50))
def test_a_smaller_depth_is_the_beginning_of_a_larger_one(config, dense, words, depth):
    """What lets systems of a comparison share one fused list."""
    fusion = Fusion.of(config, ("dense", "bm25"))
    whole, some = fusion.fuse((dense, words), 100), fusion.fuse((dense, words), depth)
    assert some.documents.tolist() == whole.first(depth).documents.tolist()
    assert set(whole.documents.tolist()) == {*dense.documents.tolist(), *words.documents.tolist()}
    assert order(whole.scores, whole.documents).tolist() == list(range(len(whole.documents)))
    assert np.isfinite(whole.scores).all()
