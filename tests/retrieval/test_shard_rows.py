"""Rows that are masked never come back, and others fill their places, whatever the kind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.ranking import PAD, order
from rerank_batch.retrieval.approximate import SearchOptions
from rerank_batch.retrieval.shards import build_shard, keeps_vectors, open_shard, stored_vectors

ROWS, DIMENSION = 600, 8


def unit(vectors: Any) -> Any:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


# Three clusters far from each other: a graph or a list leads to few of the others.
CENTRES = 4 * np.eye(DIMENSION)[:3]
NOISE = np.random.default_rng(0).normal(size=(ROWS, DIMENSION))
VECTORS = unit(CENTRES[np.arange(ROWS) % 3] + NOISE)
KINDS = ("Flat", "HNSW", "HNSW8,Flat", "IVF", "IVF12,Flat", "SQ8")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("masks")
    made = {kind: folder / kind for kind in KINDS}
    for kind, file in made.items():
        build_shard(VECTORS, kind, file)
    return made


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(
    live=st.sampled_from([0, 1, 3, 40, ROWS - 7, ROWS]),
    k=st.sampled_from([1, 10, 200]),
    first=st.integers(0, 2),
    seed=st.integers(0, 2**16),
)
def test_no_masked_row_comes_back_and_the_depth_is_filled(
    files: dict[str, Path], kind: str, live: int, k: int, first: int, seed: int
) -> None:
    """Also where all that is near is gone: a whole cluster is masked before anything else is."""
    rng = np.random.default_rng(seed)
    rows = np.sort(np.roll(np.argsort(np.arange(ROWS) % 3, kind="stable"), 200 * first)[:live])
    numbers = np.full(ROWS, PAD, np.int64)
    numbers[rows] = np.sort(rng.choice(5 * ROWS, live, replace=False))
    shard = open_shard(files[kind], 0, SearchOptions(nprobe=1, ef_search=16), numbers)
    asked = np.concatenate([VECTORS[:6], unit(rng.normal(size=(2, DIMENSION)))])
    hits = shard.search(asked, k)
    wanted = min(k, live)
    assert hits.documents.shape == hits.scores.shape == (len(asked), wanted)
    for listed, scores, query in zip(hits.documents, hits.scores, asked, strict=True):
        if wanted and live < ROWS:
            assert set(listed.tolist()) <= set(numbers[rows].tolist())
            assert len(set(listed.tolist())) == wanted
        if kind == "Flat":
            exact = (VECTORS[rows].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
            best = order(exact.astype(np.float32), numbers[rows])[:k]
            assert listed.tolist() == numbers[rows][best].tolist()
            assert scores.tolist() == exact.astype(np.float32)[best].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_vectors_of_a_shard_come_back_to_the_last_bit(
    files: dict[str, Path], kind: str
) -> None:
    stored = stored_vectors(files[kind])
    assert keeps_vectors(files[kind]) == (kind != "SQ8") == (stored is not None)
    if stored is not None:
        np.testing.assert_array_equal(stored, VECTORS)
