"""IVF list by list gives what FAISS's own search gives, and is chosen where it pays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.retrieval import ivf
from rerank_batch.retrieval.approximate import SearchOptions
from rerank_batch.retrieval.shards import build_shard, faiss, open_shard

EVERY = SearchOptions(nprobe=10**6)


def clustered(rng, count: int, dimension: int):
    centres = rng.normal(size=(8, dimension))
    vectors = centres[rng.integers(0, 8, count)] + 0.7 * rng.normal(size=(count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def opened(folder, vectors, lists: int, options: SearchOptions):
    build_shard(vectors, f"IVF{lists},Flat", folder / "shard")
    return open_shard(folder / "shard", 100, options)


@settings(max_examples=40, deadline=None)
@given(
    documents=st.integers(40, 900),
    lists=st.integers(1, 20),
    nprobe=st.integers(1, 24),
    queries=st.integers(1, 300),
    k=st.integers(1, 150),
    dimension=st.sampled_from([1, 7, 24, 96]),
    seed=st.integers(0, 2**32 - 1),
)
def test_list_by_list_is_query_by_query_to_the_last_bit(
    tmp_path_factory, documents, lists, nprobe, queries, k, dimension, seed
):
    rng = np.random.default_rng(seed)
    vectors = clustered(rng, documents, dimension)
    shard = opened(tmp_path_factory.mktemp("ivf"), vectors, lists, SearchOptions())
    asked = clustered(rng, max(queries, lists + 2), dimension)
    nprobe, k = min(nprobe, lists), min(k, documents)
    parameters = faiss.SearchParametersIVF(nprobe=nprobe)
    scores, found = shard._index.search(asked, k, params=parameters)
    by_lists = ivf.search_by_lists(shard._index, asked, k, nprobe)
    assert by_lists[0].tobytes() == scores.tobytes()
    if dimension > 1:  # with one there are but two directions: everything is a tie
        assert by_lists[1].tolist() == found.tolist()


def test_of_equal_documents_only_the_last_of_a_list_may_be_others(tmp_path):
    """Every vector is there ten times: what is above the last score is the same documents."""
    rng = np.random.default_rng(0)
    vectors = np.repeat(clustered(rng, 60, 16), 10, axis=0)[rng.permutation(600)]
    asked = clustered(rng, 200, 16)
    hits = []
    for by_lists in (True, False):
        shard = opened(tmp_path, vectors, 6, SearchOptions(nprobe=3, by_lists=by_lists))
        hits.append(shard.search(asked, 25))
    one, other = hits
    assert one.scores.tobytes() == other.scores.tobytes()
    above = one.scores > one.scores[:, -1:]
    assert one.documents[above].tolist() == other.documents[above].tolist()
    assert 0 < above.sum() < above.size


@pytest.mark.parametrize(("queries", "nprobe", "is_chosen"), [(63, 2, False), (64, 2, True)])
def test_it_is_chosen_from_so_many_queries_a_list_on(
    tmp_path, monkeypatch, queries, nprobe, is_chosen
):
    vectors = clustered(np.random.default_rng(0), 400, 16)
    shard = opened(tmp_path, vectors, 8, SearchOptions(nprobe=nprobe))
    taken = []
    search = ivf.search_by_lists
    monkeypatch.setattr(ivf, "search_by_lists", lambda *a: (taken.append(1), search(*a))[1])
    hits = shard.search(vectors[:queries], 5)
    assert bool(taken) == is_chosen
    assert hits.documents[:, 0].tolist() == list(range(100, 100 + queries))


def test_every_list_may_be_probed_and_other_kinds_are_left_alone(tmp_path, capsys):
    vectors = clustered(np.random.default_rng(0), 400, 16)
    exact = np.argsort(-(vectors @ vectors.T), axis=1, kind="stable")[:, 0]
    assert (
        opened(tmp_path, vectors, 8, EVERY).search(vectors, 5).documents[:, 0].tolist()
        == (exact + 100).tolist()
    )
    assert capsys.readouterr().out == ""
    build_shard(vectors, "IVF8,SQ8", tmp_path / "coded")
    assert not ivf.pays(open_shard(tmp_path / "coded", 0)._index, 10**6, 8)
    build_shard(vectors, "HNSW", tmp_path / "graph")
    assert not ivf.pays(open_shard(tmp_path / "graph", 0)._index, 10**6, 8)


def test_what_it_changes_of_faiss_is_put_back(tmp_path):
    before = faiss.cvar.distance_compute_blas_threshold
    vectors = clustered(np.random.default_rng(0), 400, 16)
    opened(tmp_path, vectors, 8, EVERY).search(vectors, 5)
    assert faiss.cvar.distance_compute_blas_threshold == before < ivf._NO_BLAS
