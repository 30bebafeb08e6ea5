"""Sources of retrieval, from an index that is built to fused rows: alone and in a comparison."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_batch import schema
from rerank_batch.comparison.stages import FuseAlso, Fused, SearchAlso
from rerank_batch.config import Bm25Config, FusionConfig, parse_config
from rerank_batch.data.text_store import shard_bounds, write_texts
from rerank_batch.errors import IndexMismatch, InputError
from rerank_batch.index.manifest import FORMAT, IndexFile, Manifest, ShardEntry
from rerank_batch.index.open import Index
from rerank_batch.pipeline.bm25_stages import BuildPostings, CountWords, forget_counts, sum_words
from rerank_batch.pipeline.index_stages import BuildTexts
from rerank_batch.retrieval.excluded import Excluded
from rerank_batch.retrieval.fusion import Fusion
from rerank_batch.retrieval.given import read_given
from rerank_batch.retrieval.shards import build_shard
from rerank_batch.retrieval.sources import SourceUse
from rerank_batch.retrieval.stages import SearchShards
from rerank_batch.schema import FEW_CANDIDATES
from rerank_batch.storage import NodeCache, open_root
from tests.conftest import sentences
from tests.support.helpers import plan_row

DOCUMENTS, DIMENSION, SHARDS = 40, 6, 3
SETTINGS = Bm25Config(stopwords="none")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return make_index(tmp_path_factory.mktemp("hybrid"), SHARDS)


def make_index(folder: Path, shards: int) -> Index:
    """40 documents with random vectors and their words."""
    root, cache = open_root(str(folder)), NodeCache(folder / "cache", 10**9)
    bounds = shard_bounds(DOCUMENTS, shards)
    columns = {
        "doc_id": [f"d{n:02d}" for n in range(DOCUMENTS)],
        "title": [""] * DOCUMENTS,
        "text": sentences(DOCUMENTS, seed=5),
    }
    table = pa.table(columns, schema=pa.schema([(name, pa.large_string()) for name in columns]))

    def kept(key: str, file: Path) -> IndexFile:
        stored = root.publish(key, file)
        return IndexFile(key=key, bytes=stored.bytes, sha256=stored.sha256)

    files = write_texts(table, bounds, folder / "made")
    texts = [kept(f"b/texts/{file.name}", file) for file in files]
    vectors = vectors_of(DOCUMENTS, seed=0)
    dense = []
    for start, stop in bounds:
        build_shard(vectors[start:stop], "Flat", folder / "made" / "shard.faiss")
        dense.append(kept(f"b/shards/{start}.faiss", folder / "made" / "shard.faiss"))

    rows = pa.Table.from_pylist(
        [{"shard": n, "start": a, "stop": b} for n, (a, b) in enumerate(bounds)]
    )
    opened = BuildTexts(root, cache, tuple(file.wanted for file in texts), tuple(bounds))
    counted = CountWords(root, "b/bm25", opened, SETTINGS)(rows)
    sum_words(root, "b/bm25", shards)
    length = sum(counted.column("length").to_pylist())
    built = BuildPostings(root, "b/bm25", DOCUMENTS, length, SETTINGS)(rows).to_pylist()
    forget_counts(root, "b/bm25")
    assert len(root.sizes("b/bm25/")) == shards
    postings = [IndexFile(key=b["key"], bytes=b["bytes"], sha256=b["sha256"]) for b in built]
    manifest = Manifest(
        format=FORMAT, fingerprint="f", kind="Flat", metric="ip", dimension=DIMENSION,
        documents=DOCUMENTS, dropped={}, encoder="x:y", encoder_mode={}, recall_at_100=None,
        recall_queries=0, made_of={}, builds=("b",), bm25=SETTINGS.model_dump(mode="json"),
        shards=tuple(
            ShardEntry(start=a, stop=b, vectors=v, texts=t, postings=p)
            for (a, b), v, t, p in zip(bounds, dense, texts, postings, strict=True)
        ),
    )  # fmt: skip
    return Index(root, manifest, cache)


def vectors_of(count: int, seed: int) -> Any:
    vectors = np.random.default_rng(seed).normal(size=(count, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def planned() -> pa.Table:
    """Six queries, the last of words that no document holds."""
    asked = [*sentences(5, seed=9), "nothing like it"]
    rows = [{**plan_row(n), "query": text} for n, text in enumerate(asked)]
    return pa.Table.from_pylist(rows, schema=schema.PLAN)


def encoded(rejected: int | None = None) -> pa.Table:
    table = planned()
    vectors = pa.array(list(vectors_of(6, seed=1)), pa.list_(pa.float32()))
    reasons = pa.array(["bad" if n == rejected else None for n in range(6)], pa.string())
    return table.append_column(schema.VECTOR, vectors).append_column(schema.REJECT, reasons)


DENSE, WORDS = SourceUse("dense", 12), SourceUse("bm25", 15)


def test_words_alone_need_no_vectors_and_find_what_holds_them(index: Index) -> None:
    out = schema.check(SearchShards(index, 15, (WORDS,))(planned()), schema.RETRIEVED, "search")
    texts = index.texts()
    for row in out.to_pylist():
        listed = [set(text.split()) for text in texts.contents(np.array(row["documents"], int))]
        assert all(words & set(row["query"].split()) for words in listed)
        assert sorted(row["retrieval_scores"], reverse=True) == row["retrieval_scores"]
    last = out.to_pylist()[-1]
    assert (last["documents"], last["flags"]) == ([], [FEW_CANDIDATES])


@pytest.mark.parametrize(
    "config", [FusionConfig(), FusionConfig(method="weighted", weights={"bm25": 0.4})]
)
def test_a_comparison_searches_each_source_once_and_fuses_the_same(index: Index, config) -> None:
    """Whatever the order, and though another system makes the sources go deeper."""
    fusion = Fusion.of(config, ("dense", "bm25"))
    table = encoded(rejected=2)
    alone = SearchShards(index, 10, (DENSE, WORDS), fusion)(table)
    deeper = [SourceUse("bm25", 25), SourceUse("dense", 20)]
    for use in deeper:
        table = schema.check(SearchAlso(index, use)(table), schema.SEARCHED, "search")
    fuse = FuseAlso((Fused((1, 0), (12, 15), fusion, 10),))
    lists = [row[2] for row in fuse(table).column(schema.RETRIEVALS).to_pylist()]
    for name in (schema.DOCUMENTS, schema.RETRIEVAL_SCORES):
        assert [found[name] for found in lists] == alone.column(name).to_pylist()
    assert lists[2]["documents"] == []
    assert {len(found["documents"]) for found in lists} == {0, 10}


def test_lists_that_are_given_are_a_source(index: Index, tmp_path: Path) -> None:
    run = tmp_path / "theirs.trec"
    run.write_text("q000 Q0 d07 1 3.5 me\nq000 Q0 d03 2 3.0 me\nq003 Q0 d39 1 1.0 me\n")
    lists = [["d07", "d03"], None, ["d39"]]
    log = pa.table({"query_id": ["q000", "q001", "q003"], "doc_ids": lists})
    pq.write_table(log, tmp_path / "log.parquet")
    for file in ({"trec": str(run)}, {"parquet": str(tmp_path / "log.parquet")}):
        given = read_given(configured(**file), index, Excluded())
        assert given is not None
        use = SourceUse("given", 1, given=given.lists)
        out = SearchShards(index, 5, (use,))(planned())
        assert out.column(schema.DOCUMENTS).to_pylist() == [[7], [], [], [39], [], []]

    run.write_text("q000 Q0 d07 1 3.5 me\nq000 Q0 other 2 3.0 me\n")
    with pytest.raises(InputError, match=r"1 of the 2 documents .* not in the corpus, first other"):
        read_given(configured(trec=str(run)), index, Excluded())
    twice = pa.table({"query_id": ["q0", "q0"], "doc_ids": [["d01"], ["d02"]]})
    pq.write_table(twice, tmp_path / "log.parquet")
    with pytest.raises(InputError, match="two different lists for query q0"):
        read_given(configured(parquet=str(tmp_path / "log.parquet")), index, Excluded())


def configured(**given: str) -> Any:
    return parse_config(
        {
            "corpus": {"path": "c"},
            "index": {"path": "i", "encoder": "x:y"},
            "retrieval": {"sources": ["given"], "given": given},
        }
    )


def test_an_index_without_words_says_how_to_get_them(index: Index) -> None:
    bare = Index(index.root, index.manifest.model_copy(update={"bm25": None}), index.cache)
    with pytest.raises(IndexMismatch, match="has no BM25 shards; build them with"):
        SearchShards(bare, 5, (WORDS,))


def test_a_source_that_found_nothing_leaves_the_others_list(index: Index) -> None:
    fusion = Fusion.of(FusionConfig(), ("dense", "bm25"))
    both = SearchShards(index, 12, (DENSE, WORDS), fusion)(encoded())
    dense = SearchShards(index, 12, (DENSE,))(encoded())
    last = [table.column(schema.DOCUMENTS).to_pylist()[-1] for table in (both, dense)]
    assert last[0] == last[1]
