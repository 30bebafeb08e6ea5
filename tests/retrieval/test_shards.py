"""Sharded equals unsharded, ties included; approximate kinds say how much they miss."""

from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.data.text_store import shard_bounds
from rerank_batch.errors import ConfigError, IndexMismatch
from rerank_batch.ranking import order
from rerank_batch.retrieval.approximate import SearchOptions
from rerank_batch.retrieval.shards import (
    build_shard,
    factory_string,
    measure_recall,
    open_shard,
    search_all,
)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def shards_of(folder: Path, vectors, count: int, kind: str = "Flat", options=None):
    opened = []
    for start, stop in shard_bounds(len(vectors), count):
        file = folder / f"{count}-{start}.faiss"
        build_shard(vectors[start:stop], kind, file)
        opened.append(open_shard(file, start, options))
    return opened


@settings(max_examples=40, deadline=None)
@given(
    documents=st.integers(1, 300),
    distinct=st.integers(1, 40),
    queries=st.integers(1, 40),
    k=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_number_of_shards_gives_the_exact_top_k_of_the_whole(
    tmp_path_factory, documents, distinct, queries, k, seed
):
    """Documents repeat a few vectors, so most of the ranking is ties."""
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(distinct, 24)))[rng.integers(0, distinct, documents)]
    asked = unit(rng.normal(size=(queries, 24)))
    exact = (asked[:, None, :].astype(np.float64) * vectors[None].astype(np.float64)).sum(-1)
    exact = exact.astype(np.float32)
    folder = tmp_path_factory.mktemp("shards")
    for count in (1, 2, 4, 7):
        hits = search_all(shards_of(folder, vectors, count), asked, k)
        for row in range(queries):
            best = order(exact[row], np.arange(documents))[:k]
            found = hits.documents[row][hits.documents[row] >= 0]
            assert found.tolist() == best.tolist(), f"{count} shards"
            assert hits.scores[row][: len(best)].tolist() == exact[row][best].tolist()


def test_scores_do_not_depend_on_how_many_queries_are_asked_at_once(tmp_path):
    rng = np.random.default_rng(0)
    shards = shards_of(tmp_path, unit(rng.normal(size=(500, 64))), 3)
    asked = unit(rng.normal(size=(64, 64)))
    together = search_all(shards, asked, 50)
    for row in range(0, 64, 7):
        alone = search_all(shards, asked[row : row + 1], 50)
        assert alone.documents[0].tolist() == together.documents[row].tolist()
        assert alone.scores[0].tolist() == together.scores[row].tolist()


def test_fewer_documents_than_asked_for_come_back_without_padding(tmp_path):
    vectors = unit(np.random.default_rng(0).normal(size=(5, 8)))
    hits = search_all(shards_of(tmp_path, vectors, 2), vectors[:1], 20)
    assert sorted(hits.documents[0].tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["HNSW", "IVF", "IVF16,Flat", "HNSW16,Flat"])
def test_approximate_kinds_find_most_of_the_exact_answer(tmp_path, kind):
    vectors = unit(np.random.default_rng(0).normal(size=(3000, 16)))
    options = SearchOptions(nprobe=8, ef_search=256)
    shards = shards_of(tmp_path, vectors, 2, kind, options)
    assert 0.7 < measure_recall(shards, vectors, vectors[:50], 100) <= 1.0


def test_recall_shows_a_search_that_looks_too_little(tmp_path):
    vectors = unit(np.random.default_rng(0).normal(size=(3000, 16)))
    lazy = shards_of(tmp_path, vectors, 1, "IVF", SearchOptions(nprobe=1))
    eager = shards_of(tmp_path, vectors, 1, "IVF", SearchOptions(nprobe=1000))
    assert measure_recall(lazy, vectors, vectors[:50], 100) < 0.6
    assert measure_recall(eager, vectors, vectors[:50], 100) == 1.0


def test_ivf_of_a_small_shard_gets_lists_that_can_be_trained():
    assert factory_string("IVF", 10) == "IVF1,Flat"
    assert factory_string("IVF", 1_000_000) == "IVF4000,Flat"


def test_a_kind_that_faiss_does_not_know_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="Flat, HNSW, IVF"):
        build_shard(np.zeros((3, 4), np.float32), "Nonsense", tmp_path / "x")


def test_a_file_that_is_no_index_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"not an index")
    with pytest.raises(IndexMismatch, match="no readable FAISS index"):
        open_shard(tmp_path / "x", 0)


def test_mapped_shards_add_no_private_memory(tmp_path):
    """Many actors on a node share one copy: opening and scanning 128 MiB stays in shared pages."""
    vectors = np.random.default_rng(0).normal(size=(131_072, 256)).astype(np.float32)
    build_shard(vectors, "Flat", tmp_path / "big")
    size = vectors.nbytes
    del vectors
    rss, private = psutil.Process().memory_info().rss, anonymous()
    shard = open_shard(tmp_path / "big", 0)
    shard.search(np.ones((1, 256), np.float32), 10)
    assert psutil.Process().memory_info().rss - rss > 0.9 * size, "the whole file was read"
    assert anonymous() - private < 0.05 * size


def anonymous() -> int:
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * int(rollup.partition("Anonymous:")[2].split(maxsplit=1)[0])
