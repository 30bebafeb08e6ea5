"""Sharded BM25 is unsharded BM25 to the last bit, and that is bm25s's own."""

import importlib.util
import math
from pathlib import Path

import bm25s
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.config import Bm25Config
from rerank_batch.data.text_store import shard_bounds
from rerank_batch.errors import ConfigError, IndexMismatch
from rerank_batch.ranking import PAD, order
from rerank_batch.retrieval.bm25 import (
    Bm25Search,
    Bm25Shard,
    Statistics,
    add_frequencies,
    build_postings,
    count_words,
    frequencies,
    write_table,
)


def search_of(folder: Path, texts: list[str], shards: int, config: Bm25Config) -> Bm25Search:
    bounds = shard_bounds(len(texts), shards)
    counted = [count_words([texts[start:stop]], config) for start, stop in bounds]
    statistics = Statistics(
        documents=len(texts),
        length=sum(length for _, length in counted),
        frequencies=add_frequencies([frequencies(counts) for counts, _ in counted]),
    )
    opened = []
    for (start, stop), (counts, _) in zip(bounds, counted, strict=True):
        file = folder / f"{shards}-{start}.arrow"
        write_table(build_postings(counts, statistics, config), file)
        opened.append(Bm25Shard(file, start, stop))
    return Bm25Search(opened, config)


def theirs(texts: list[str], queries: list[str], config: Bm25Config) -> np.ndarray:
    """Scores of all documents by an index that bm25s builds and searches itself."""
    stopwords = [] if config.stopwords == "none" else config.stopwords

    def words(each: list[str]) -> list[list[str]]:
        return bm25s.tokenize(each, stopwords=stopwords, return_ids=False, show_progress=False)

    model = bm25s.BM25(method="lucene", k1=config.k1, b=config.b)
    model.index(words(texts), show_progress=False)
    return np.array(
        [model.get_scores(w) if w else np.zeros(len(texts), np.float32) for w in words(queries)]
    )


# Few words, so that documents repeat and most of the ranking is ties; some are stop words.
text = st.lists(st.sampled_from("alpha beta Gamma delta über x the of is".split()), max_size=8)  # noqa: SIM905


@settings(max_examples=60, deadline=None)
@given(
    documents=st.lists(text, min_size=1, max_size=40),
    queries=st.lists(text, min_size=1, max_size=6),
    shards=st.integers(1, 9),
    k=st.integers(1, 50),
    k1=st.sampled_from([0.0, 0.9, 1.2, 1.5]),
    b=st.sampled_from([0.0, 0.4, 0.75, 1.0]),
    stopwords=st.sampled_from(["none", "english"]),
)
def test_any_number_of_shards_gives_the_scores_and_order_of_the_whole(
    tmp_path_factory, documents, queries, shards, k, k1, b, stopwords
):
    config = Bm25Config(k1=k1, b=b, stopwords=stopwords)
    texts, asked = [" ".join(each) for each in documents], [" ".join(each) for each in queries]
    if not any(bm25s.tokenize(texts, stopwords=[], return_ids=False, show_progress=False)):
        return  # bm25s builds no index of no words
    hits = search_of(tmp_path_factory.mktemp("bm25"), texts, shards, config).search(asked, k)
    try:
        whole = theirs(texts, asked, config)
    except ValueError:
        return  # nor of stop words alone
    for row, scores in enumerate(whole):
        matching = np.flatnonzero(scores)
        best = matching[order(scores[matching], matching)][:k]
        found = hits.documents[row] != PAD
        assert hits.documents[row][found].tolist() == best.tolist()
        assert hits.scores[row][found].tobytes() == scores[best].tobytes()


def test_a_score_is_the_formula_of_lucene(tmp_path):
    """Two documents of three words; idf of a word that one of two holds is ln(1 + 1.5/1.5)."""
    config = Bm25Config(k1=1.2, b=0.75, stopwords="none")
    hits = search_of(tmp_path, ["alpha alpha beta", "beta gamma gamma"], 2, config).search(
        ["Alpha? ALPHA!", "beta", "unknown", ""], k=2
    )
    of_alpha = math.log(2) * 2 / (1.2 + 2)
    assert hits.documents.tolist() == [[0, PAD], [0, 1], [PAD, PAD], [PAD, PAD]]
    assert hits.scores[0, 0] == pytest.approx(2 * of_alpha)  # asked twice, counts twice


def test_a_corpus_of_stop_words_alone_finds_nothing(tmp_path):
    hits = search_of(tmp_path, ["the", "of the", "is"], 2, Bm25Config()).search(["the of"], k=3)
    assert hits.documents.tolist() == [[PAD, PAD, PAD]]


def test_what_is_no_shard_is_refused(tmp_path):
    file = tmp_path / "shard.arrow"
    file.write_bytes(b"not Arrow")
    with pytest.raises(IndexMismatch, match="no readable BM25 shard"):
        Bm25Shard(file, 0, 1)
    counts, _ = count_words([["alpha"]], Bm25Config())
    write_table(counts, file)
    with pytest.raises(IndexMismatch, match="no BM25 shard of this version"):
        Bm25Shard(file, 0, 1)


def test_a_stemmer_finds_other_forms_of_a_word(tmp_path):
    config = Bm25Config(stemmer="english")
    if importlib.util.find_spec("Stemmer") is None:
        with pytest.raises(ConfigError, match=r"pip install 'rerank-batch\[stemmer\]'"):
            search_of(tmp_path, ["wings"], 1, config)
        return
    hits = search_of(tmp_path, ["the wings of birds", "flow"], 2, config).search(["winged bird"], 2)
    assert hits.documents.tolist() == [[0, PAD]]
    with pytest.raises(ConfigError, match="Snowball has no 'klingon'; it has arabic"):
        count_words([["a"]], Bm25Config(stemmer="klingon"))
