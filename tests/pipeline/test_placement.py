"""Indexes larger than a node: which groups a job makes of the shards, and when it refuses to."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rerank_batch import schema
from rerank_batch.comparison import graph as comparison_graph
from rerank_batch.comparison.graph import ComparisonWork, Retrieval
from rerank_batch.comparison.stages import Fused, SearchAlso, System
from rerank_batch.config import ComputeConfig, FusionConfig, parse_config
from rerank_batch.data.text_store import shard_bounds
from rerank_batch.errors import ConfigError
from rerank_batch.index.configured import OpenedIndex
from rerank_batch.index.manifest import IndexFile, Manifest, ShardEntry
from rerank_batch.index.open import Index, verify_files
from rerank_batch.models.fingerprint import ModelPin
from rerank_batch.pipeline import graph
from rerank_batch.pipeline.graph import RerankWork
from rerank_batch.pipeline.isolation import run_isolated
from rerank_batch.pipeline.placement import (
    Search,
    divide,
    group_name,
    group_stages,
    groups_line,
    in_gb,
    with_retrievers,
)
from rerank_batch.pipeline.pools import plan_pools
from rerank_batch.pipeline.resources import Cluster
from rerank_batch.pipeline.work import StagePlan
from rerank_batch.ray_backend.actors import StageActor
from rerank_batch.retrieval import ivf
from rerank_batch.retrieval.excluded import Excluded
from rerank_batch.retrieval.fusion import Fusion
from rerank_batch.retrieval.gate import Gate
from rerank_batch.retrieval.hits import RankedList, ranked_lists
from rerank_batch.retrieval.running_lists import merged
from rerank_batch.retrieval.shard_groups import Group
from rerank_batch.retrieval.shards import build_shard, open_shard, search_all
from rerank_batch.retrieval.sources import SourceUse
from rerank_batch.retrieval.stages import EncodeQueries, SearchGroup, SearchShards
from rerank_batch.schema import FEW_CANDIDATES
from rerank_batch.storage import NodeCache
from tests.retrieval.test_stages import encoded, index, planned
from tests.support.helpers import plan_row
from tests.support.index_in_process import (
    build,
    configured,
    opened,
    vector_of,
    without_ray,
    write_corpus,
)
from tests.workflows.test_update_index import EDITS, IDS, TEXTS, model

__all__ = ["index", "model"]  # fixtures: 40 documents in 3 shards, and an encoder's folder

GB = 1_000_000_000
DENSE, WORDS = SourceUse("dense", 12), SourceUse("bm25", 15)
SPLITS = ([(0, 1), (1, 3)], [(0, 2), (2, 3)], [(0, 1), (1, 2), (2, 3)])


def chained(index: Index, table: pa.Table, uses: Any, parts: Any, **last: Any) -> pa.Table:
    """What the stages of these groups make of a table, one after the other, and then the last."""
    groups = [Group(a, b, 1) for a, b in parts]
    for spec in group_stages("retrieve", index, uses, groups, plan_pools(ComputeConfig(), 2, 0)):
        table = schema.check(spec.stage(**spec.kwargs)(table), spec.output, spec.name)
    return SearchShards(index.part(*parts[-1]), 12, uses, **last)(table)


@pytest.mark.parametrize("parts", SPLITS)
@pytest.mark.parametrize("rejected", [None, 2])
@pytest.mark.parametrize("uses", [(DENSE,), (WORDS,), (WORDS, DENSE), "given first"])
def test_any_groups_give_the_rows_of_one(index, parts, rejected, uses):
    if uses == "given first":
        tied = SimpleNamespace(documents=np.array([9, 4]), scores=np.zeros(2, np.float32))
        tied.first = lambda _: tied
        uses = (SourceUse("given", 5, given={"q000": tied}), WORDS, DENSE)
    table = encoded(rejected)
    fusion = None
    if len(uses) > 1:
        fusion = Fusion.of(FusionConfig(), tuple(use.source for use in uses))
    settings_ = {"fusion": fusion, "gate": Gate("margin", 0.01)}
    whole = SearchShards(index, 12, uses, **settings_)(table)
    assert chained(index, table, uses, parts, **settings_).equals(whole)


def test_words_alone_need_no_vectors_in_groups_either(index):
    whole = SearchShards(index, 12, (WORDS,))(planned())
    assert chained(index, planned(), (WORDS,), SPLITS[2]).equals(whole)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(shards=st.integers(2, 6), cuts=st.integers(1, 31), seed=st.integers(0, 99))
def test_ties_across_groups_are_broken_as_in_one_search(tmp_path_factory, shards, cuts, seed):
    """Documents repeat four vectors, so the whole ranking is ties that cross every border."""
    rng = np.random.default_rng(seed)
    distinct = rng.normal(size=(4, 8)).astype(np.float32)
    vectors = distinct[rng.integers(0, 4, 50)]
    folder = tmp_path_factory.mktemp("ties")
    opened = []
    for start, stop in shard_bounds(50, shards):
        build_shard(vectors[start:stop], "Flat", folder / str(start))
        opened.append(open_shard(folder / str(start), start))
    asked = np.vstack([distinct, rng.normal(size=(2, 8)).astype(np.float32)])
    whole = ranked_lists(search_all(opened, asked, 20))
    edges = [0, *(n for n in range(1, shards) if cuts >> (n - 1) & 1), shards]
    running = [RankedList(np.empty(0, np.int64), np.empty(0, np.float32))] * len(asked)
    for a, b in pairwise(edges):
        found = ranked_lists(search_all(opened[a:b], asked, 20))
        running = [merged(x, y, 20) for x, y in zip(running, found, strict=True)]
    for one, other in zip(running, whole, strict=True):
        assert one.documents.tobytes() == other.documents.tobytes()
        assert one.scores.tobytes() == other.scores.tobytes()


@pytest.mark.parametrize("parts", SPLITS)
def test_a_comparison_in_groups_finds_the_same_and_flags_once_it_has_seen_all(index, parts):
    whole = grouped = encoded(rejected=1)
    for use in (SourceUse("dense", 20), SourceUse("bm25", 5)):
        whole = SearchAlso(index, use)(whole)
        groups = [Group(a, b, 1) for a, b in parts]
        pools = plan_pools(ComputeConfig(), 2, 0)
        for spec in group_stages("retrieve", index, (use,), groups, pools):
            grouped = schema.check(spec.stage(**spec.kwargs)(grouped), spec.output, spec.name)
        grouped = SearchAlso(index.part(*parts[-1]), use, goes_on=True)(grouped)
    assert grouped.equals(whole)
    for row in grouped.to_pylist():
        lengths = [len(found[schema.DOCUMENTS]) for found in row[schema.RETRIEVALS]]
        few = row[schema.REJECT] is None and (lengths[0] < 20 or lengths[1] < 5)
        assert row[schema.FLAGS] == ([FEW_CANDIDATES] if few else [])


def test_a_query_that_fails_in_one_group_is_rejected_and_the_others_go_on(index, monkeypatch):
    parts = SPLITS[2]
    groups = [SearchGroup(index.part(*part), (DENSE,), goes_on=part[0] > 0) for part in parts[:2]]
    find = groups[0]._sources.find

    def fails(asked: pa.Table, known: Any) -> Any:
        if "q003" in asked.column("query_id").to_pylist():
            raise FloatingPointError
        return find(asked, known)

    monkeypatch.setattr(groups[0]._sources, "find", fails)
    table = encoded()
    for group in groups:
        table = run_isolated(group, table, "retrieve-1of3", schema.SEARCHED)
    out = SearchShards(index.part(*parts[2]), 12, (DENSE,))(table)
    whole = SearchShards(index, 12, (DENSE,))(encoded())
    assert out.column(schema.REJECT)[3].as_py() == "retrieve-1of3_failed:FloatingPointError"
    others = [n for n in range(out.num_rows) if n != 3]
    for name in (schema.DOCUMENTS, schema.RETRIEVAL_SCORES):
        assert (
            out.column(name).take(others).to_pylist() == whole.column(name).take(others).to_pylist()
        )


def test_a_group_opens_its_own_files_and_no_others(index, monkeypatch):
    asked: list[str] = []
    fetch = NodeCache.fetch

    def noted(self: NodeCache, root: Any, wanted: Any) -> Any:
        asked.extend(each.key for each in wanted)
        return fetch(self, root, wanted)

    monkeypatch.setattr(NodeCache, "fetch", noted)
    SearchGroup(index.part(1, 2), (DENSE, WORDS), goes_on=False)
    shard = index.manifest.shards[1]
    assert asked == [shard.vectors.key, shard.postings.key]


def asked(queries: Any) -> pa.Table:
    """These queries with the vectors of what they say."""
    rows = [{**plan_row(n), "query": query} for n, query in enumerate(queries)]
    table = pa.Table.from_pylist(rows, schema=schema.PLAN)
    vectors = pa.array([vector_of(query).tolist() for query in queries], pa.list_(pa.float32()))
    reasons = pa.nulls(len(rows), pa.string())
    return table.append_column(schema.VECTOR, vectors).append_column(schema.REJECT, reasons)


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    first=st.dictionaries(IDS, TEXTS, min_size=8, max_size=15),
    edits=st.lists(EDITS, min_size=1, max_size=4),
    shards=st.integers(1, 5),
    compact_at=st.sampled_from([0.0, 0.25, 0.9]),
    cuts=st.integers(0, 255),
    depth=st.integers(1, 12),
    without=st.sets(st.integers(0, 6), max_size=3),
)
def test_an_updated_index_gives_in_groups_what_it_gives_undivided(
    tmp_path_factory, monkeypatch, model, first, edits, shards, compact_at, cuts, depth, without
):
    """Rows that are masked and numbered anew, and BM25 shards that are not those of the vectors."""
    without_ray(monkeypatch)
    folder = tmp_path_factory.mktemp("updated")
    config = configured(folder, model, shards=shards, compact_at=compact_at)
    documents = first
    for edit in [{}, *edits]:
        after = {key: text for key, text in {**documents, **edit}.items() if text is not None}
        documents = after or first
        write_corpus(folder, documents)
        build(config)
    index, excluded = opened(config), tuple(n for n in without if n < len(documents))
    table = asked(["t alpha beta", "river stone", "t", "t stone river", "none of it"])
    uses = tuple(SourceUse(each, depth, excluded=excluded) for each in ("bm25", "dense"))
    count = len(index.manifest.shards)
    drawn = [0, *(n for n in range(1, count) if cuts >> (n - 1) & 1), count]
    for edges in (drawn, range(count + 1)):
        parts = list(pairwise(edges))
        for searched in ((uses[0],), (uses[1],), uses):
            sources = tuple(use.source for use in searched)
            fusion = Fusion.of(FusionConfig(), sources) if len(sources) > 1 else None
            whole = SearchShards(index, 12, searched, fusion)(table)
            assert chained(index, table, searched, parts, fusion=fusion).equals(whole)
        words = [each for part in parts for each in index.part(*part).manifest.word_shards()]
        assert sorted(words, key=lambda each: each.start) == list(index.manifest.word_shards())
    files = [*(s.vectors for s in index.manifest.shards), *(each.postings for each in words)]
    assert sum(Search(index, ("dense", "bm25")).sizes()) == sum(file.bytes for file in files)


def test_ivf_shards_with_masked_rows_give_in_groups_what_is_left(tmp_path, monkeypatch, model):
    """All lists are probed: the exact ranking of what is left. A shard without masked rows is
    searched list by list, one with them is not, since that knows no mask."""
    without_ray(monkeypatch)
    documents = {f"d{n:03d}": f"{n:03d}" for n in range(240)}
    config = configured(tmp_path, model, kind="IVF4,Flat", shards=2)
    for gone in ((), ("d003", "d077", "d100")):
        documents = {key: text for key, text in documents.items() if key not in gone}
        write_corpus(tmp_path, documents)
        build(config)
    index = opened(config)
    assert index.manifest.bounds == ((0, 120), (120, 240)) and index.manifest.documents == 237
    by_lists = []
    search = ivf.search_by_lists
    monkeypatch.setattr(ivf, "search_by_lists", lambda *a: (by_lists.append(1), search(*a))[1])
    table = asked([f"t {n:03d}" for n in range(70, 110)])
    found = chained(index, table, (SourceUse("dense", 12, nprobe=4),), [(0, 1), (1, 2)])
    assert len(by_lists) == 1
    vectors = np.array([vector_of(f"t {text}") for text in documents.values()])
    for row in found.to_pylist():
        scores = vectors.astype(np.float64) @ vector_of(row["query"]).astype(np.float64)
        assert row[schema.DOCUMENTS] == np.argsort(-scores)[:12].tolist()
        assert row[schema.FLAGS] == []


class Away:
    """A root whose objects are nowhere on this machine."""

    uri = "s3://store/index"
    sizes: Any = None

    def local(self, key: str) -> None:
        return None


def search(*sizes: int, texts: int = 0, away: bool = False) -> Any:
    def file(size: int) -> IndexFile:
        return IndexFile(key="t", bytes=size, sha256="")

    shards = tuple(
        ShardEntry(
            start=n,
            stop=n + 1,
            vectors=file(size),
            texts=file(texts // len(sizes)),
            postings=file(10 * GB),
        )
        for n, size in enumerate(sizes)
    )
    root = Away() if away else SimpleNamespace(uri="/index", local=lambda key: Path(key))
    manifest = Manifest.model_construct(shards=shards)
    cache = SimpleNamespace(folder=Path("/cache"))
    return Search(SimpleNamespace(root=root, manifest=manifest, cache=cache), ("dense",))


def planned_groups(searched: Any, limit: Any = "auto", **cluster: Any) -> tuple[list[int], str]:
    """Bytes of the groups in GB, and what is said."""
    cache_gb = cluster.pop("cache_gb", math.inf)
    compute = ComputeConfig(index_memory_gb=limit, retrievers=cluster.pop("retrievers", 1))
    resources = Cluster(2, 0, **cluster)
    groups, notes = divide(compute, {"retrieve": searched}, resources, lambda _: cache_gb * GB)
    return [group.bytes // GB for group in groups["retrieve"]], "".join(notes)


def test_auto_is_half_of_the_smallest_nodes_memory():
    four = search(*[GB] * 4)
    assert planned_groups(four, memory=8 * GB, nodes=1) == ([4], "")
    assert planned_groups(four, memory=7 * GB, nodes=2) == ([2, 2], "")
    assert planned_groups(four, memory=2 * GB, nodes=4) == ([1, 1, 1, 1], "")


def test_groups_that_have_to_share_a_node_are_said_to():
    groups, note = planned_groups(search(*[GB] * 4), 2, nodes=1)
    assert groups == [2, 2]
    assert note == (
        "retrieve: a node may have to hold 4 GB of the index where 2 GB are meant for it "
        "(compute.index_memory_gb), and reads from disk what memory has no room for; add nodes"
    )


def test_more_groups_are_made_where_nodes_share_them_better_so():
    """Four actors for three groups would be six, so two groups on a node; of four each has one."""
    groups, note = planned_groups(search(*[GB] * 6), 2, nodes=4)
    assert (groups, note) == ([2, 2, 2], "")
    groups, note = planned_groups(search(*[GB] * 6), 2, nodes=4, retrievers=4)
    assert (len(groups), max(groups), note) == (4, 2, "")


def test_a_shard_larger_than_what_was_asked_for_is_refused():
    with pytest.raises(ConfigError) as refused:
        planned_groups(search(GB, 3 * GB), 2.5)
    assert str(refused.value) == (
        "a shard of /index takes 3 GB, more than compute.index_memory_gb (2.5) allows; raise it, "
        "or build the index with more shards (--set index.shards=2)"
    )


def test_one_larger_than_auto_is_searched_from_disk():
    """Memory that is short tonight refuses no run; a disk that is too small has to."""
    groups, note = planned_groups(search(3 * GB, 3 * GB), memory=4 * GB)
    assert (groups, "hold 6 GB" in note) == ([3, 3], True)
    with pytest.raises(ConfigError, match=r"more than a node's cache has beside 1 GB of texts "):
        planned_groups(search(3 * GB, away=True, texts=GB), memory=4 * GB, cache_gb=3.5)


def test_downloads_have_to_fit_the_cache_of_every_node():
    four = search(*[GB] * 4, texts=2 * GB, away=True)
    assert planned_groups(four, cache_gb=6, nodes=1) == ([4], "")
    with pytest.raises(ConfigError, match="needs 6 GB of node cache on each of 1 nodes"):
        planned_groups(four, cache_gb=5, nodes=1)
    assert planned_groups(four, cache_gb=5, nodes=2) == ([2, 2], "")
    assert planned_groups(four, cache_gb=3, nodes=4) == ([1, 1, 1, 1], "")
    with pytest.raises(ConfigError, match="keep the index in a folder that the nodes share"):
        planned_groups(four, cache_gb=2, nodes=9)


def test_a_cache_that_cannot_hold_the_texts_is_refused_before_anything_starts(index):
    """Whether it can hold its groups of shards is known when the nodes are."""
    texts = sum(shard.texts.bytes for shard in index.manifest.shards)
    away = Away()
    away.sizes = index.root.sizes
    verify_files(Index(away, index.manifest, NodeCache(Path("/nowhere"), texts)))
    with pytest.raises(ConfigError, match=r"raise storage\.cache_gb"):
        verify_files(Index(away, index.manifest, NodeCache(Path("/nowhere"), texts - 1)))


def test_a_long_search_gets_a_retriever_for_every_cpu(index):
    def sized(retrievers: Any = "auto", sources: Any = ("dense",), **manifest: Any) -> Any:
        changed = replace(index, manifest=index.manifest.model_copy(update=manifest))
        compute, searches = ComputeConfig(retrievers=retrievers), {"it": Search(changed, sources)}
        return with_retrievers(compute, searches, 8).retrievers

    assert sized() == "auto", "40 documents are compared in no time"
    assert sized(dimension=2_000_000) == 8
    assert sized(dimension=2_000_000, kind="IVF") == "auto", "one list of eight is visited"
    assert sized(dimension=20_000_000, kind="IVF") == 8
    assert sized(dimension=20_000_000, kind="HNSW") == "auto"
    assert sized(sources=("bm25",), dimension=2_000_000) == "auto", "no vectors are compared"
    assert sized(3, dimension=2_000_000) == 3


def test_what_a_run_tells(index):
    sizes = in_gb({"retrieve": (Group(0, 2, 3 * GB), Group(2, 3, GB)), "given": (Group(0, 3, 0),)})
    assert sizes == {"retrieve": [3.0, 1.0]}
    assert groups_line(sizes) == "4 GB to search in 2 groups of at most 3 GB"
    assert groups_line({"retrieve": [1.5], "retrieve-2": [0.5, 0.5]}) == (
        "retrieve: 1.5 GB to search\nretrieve-2: 1 GB to search in 2 groups of at most 0.5 GB"
    )
    assert [group_name("retrieve", n, 3) for n in (1, 3)] == ["retrieve-1of3", "retrieve-3of3"]
    own = Search(index, ("dense", "bm25"))
    files = [f for s in index.manifest.shards for f in (s.vectors, s.postings) if f is not None]
    assert sum(own.sizes()) == sum(file.bytes for file in files)
    assert sum(Search(index, ("given",)).sizes()) == 0


def run_through(specs: Any, table: pa.Table) -> pa.Table:
    """What the stages that come after encoding make of a table, each as its actor runs it."""
    for spec in specs:
        if spec.stage is not EncodeQueries:
            table = StageActor([spec], [dict(spec.kwargs)])(table)
    return table.drop_columns([schema.SIDE])


def in_parts(parts: Any) -> tuple[Group, ...]:
    return tuple(Group(a, b, 1) for a, b in parts)


@pytest.fixture
def hybrid(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A configuration of dense and BM25 retrieval without a reranker."""
    for module in (graph, comparison_graph):
        monkeypatch.setattr(module, "query_encoder_options", lambda *_: None)
    return parse_config(
        {
            "corpus": {"path": "c"},
            "index": {"path": "i", "encoder": "x:y", "bm25": {}},
            "retrieval": {"sources": ["dense", "bm25"], "depth": 12},
            "evaluation": {"measures": ["nDCG@10"]},
        }
    )


def test_the_stages_of_the_job_make_the_same_rows_in_groups(index, hybrid):
    work = RerankWork(
        plan=None, qrels=None, index=index, encoder=ModelPin("y", "0"), scorers=(), made_of={},
        excluded=Excluded((3, 17)),
    )  # fmt: skip
    work.__dict__["planned_ids"] = set()
    made = {}
    for parts in ([(0, 3)], *SPLITS):
        groups = {"retrieve": in_parts(parts)}
        specs = work.stages(hybrid, StagePlan(Cluster(2, 0), 4, [], groups))
        made[len(parts)] = run_through(specs, encoded(rejected=3))
        assert made[len(parts)].equals(made[1])
        listed = {c["doc_id"] for each in made[len(parts)]["candidates"].to_pylist() for c in each}
        assert listed and not listed & {"d03", "d17"}
    assert [spec.name for spec in specs] == [
        "encode", "retrieve-1of3", "retrieve-2of3", "retrieve-3of3", "assemble"
    ]  # fmt: skip
    assert work.searches(hybrid) == {"retrieve": Search(index, ("dense", "bm25"))}


def test_the_stages_of_a_comparison_make_the_same_rows_in_groups(index, hybrid):
    opened = OpenedIndex(index, hybrid.index, ModelPin("y", "0"), {})
    fusion = Fusion.of(FusionConfig(), ("dense", "bm25"))
    work = ComparisonWork(
        plan=None, qrels=None, index=index, encoder=opened.encoder, scorers=(), made_of={},
        computed=(System("words", 1, 12), System("both", 2, 12)),
        retrievals=(Retrieval(opened, DENSE, {}), Retrieval(opened, WORDS, {})),
        fused=(Fused((0, 1), (12, 15), fusion, 12),),
    )  # fmt: skip
    work.__dict__["planned_ids"] = set()
    assert list(work.searches(hybrid)) == ["retrieve", "retrieve-2"]
    made = []
    for first, second in (([(0, 3)], [(0, 3)]), (SPLITS[0], SPLITS[2]), ([(0, 3)], SPLITS[1])):
        groups = {"retrieve": in_parts(first), "retrieve-2": in_parts(second)}
        specs = work.stages(hybrid, StagePlan(Cluster(2, 0), 4, [], groups))
        made.append(run_through(specs, encoded(rejected=3)))
        assert made[-1].equals(made[0])
        assert len({spec.name for spec in specs}) == len(specs)
