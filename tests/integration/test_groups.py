"""An index larger than a node, by the command: five groups on two CPUs, and not a byte changes."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from rerank_batch import schema
from rerank_batch.config import ComputeConfig, FusionConfig, Source, load_config
from rerank_batch.errors import ConfigError
from rerank_batch.index.generations import read_manifest
from rerank_batch.index.open import Index
from rerank_batch.pipeline.assemble import AssembleResults
from rerank_batch.pipeline.placement import Search, group_stages
from rerank_batch.pipeline.pools import of_group, plan_pools
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.ray_backend.cluster import cluster
from rerank_batch.ray_backend.execution import run_queries
from rerank_batch.retrieval.fusion import Fusion
from rerank_batch.retrieval.shard_groups import Group
from rerank_batch.retrieval.sources import SourceUse
from rerank_batch.retrieval.stages import SearchShards
from rerank_batch.runs import Run
from rerank_batch.storage import NodeCache, open_root
from tests.conftest import run_command, run_json
from tests.retrieval.test_stages import encoded, make_index
from tests.support.helpers import MEASURES, content, finish, reject_table, spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FUSED = {"sources": ["dense", "bm25"], "depth": 20}


def test_five_groups_and_a_scorer_find_room_on_two_cpus(tmp_path: Path) -> None:
    """Actors of all groups live as long as the job: none may wait for another to end."""
    index = make_index(tmp_path / "index", 5)
    uses = (SourceUse("dense", 12), SourceUse("bm25", 15))
    fusion = Fusion.of(FusionConfig(), ("dense", "bm25"))
    rows = []
    with cluster(ComputeConfig(cpus=2)) as resources:
        for bounds in ([(0, 5)], [(n, n + 1) for n in range(5)]):
            parts = [Group(a, b, 1) for a, b in bounds]
            pools = plan_pools(ComputeConfig(), resources.cpus, 0, [len(parts)])
            search = {
                "index": index.part(*bounds[-1]), "depth": 12, "sources": uses, "fusion": fusion
            }  # fmt: skip
            last = of_group(pools.retrievers, len(parts))
            assemble = {"index": index, "top_k": 5, "measures": MEASURES, "qrels": None}
            output = schema.results(MEASURES).append(schema.REJECT_FIELD)
            stages = [
                *group_stages("retrieve", index, uses, parts, pools),
                StageSpec("retrieve", SearchShards, search, last, schema.RETRIEVED),
                StageSpec("assemble", AssembleResults, assemble, pools.scorers, output),
            ]
            run = Run.create(open_root(str(tmp_path)), f"in-{len(parts)}", spec(planned=6))
            run.write_plan(encoded(rejected=2), reject_table())
            run.claim()
            blocks = range(len(run.blocks()))
            list(run_queries(blocks, stages, run.writer(), False, plan=schema.ENCODED))
            finish(run)
            rows.append(content(run))
    assert rows[0] == rows[1]
    assert len(rows[0]) == 6


@pytest.fixture(scope="module")
def large(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small collection in five shards, with BM25."""
    folder = tmp_path_factory.mktemp("large")
    raw = yaml.safe_load(config_file.read_text("utf-8"))
    raw |= {"root": str(folder / "runs")}
    raw["index"] |= {"path": str(folder / "index"), "shards": 5, "bm25": {}}
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(raw), "utf-8")
    run_json("build-index", config)
    return config


def limit(config: Path, of: Sequence[Source]) -> list[str]:
    """As much as the largest shard takes: each is a group."""
    root = open_root(load_config(config).index.path)
    index = Index(root, read_manifest(root), NodeCache(config.parent, 0))
    largest = max(Search(index, tuple(of)).sizes())
    return ["--set", f"compute.index_memory_gb={largest / 1e9:.9f}"]


@pytest.mark.parametrize("name", ["dense", "fused"])
def test_results_in_five_groups_are_those_of_one(large: Path, name: str) -> None:
    settings = ["--set", f"retrieval={json.dumps(FUSED)}"] if name == "fused" else []
    sources: list[Source] = ["dense", "bm25"] if name == "fused" else ["dense"]
    small = [*settings, *limit(large, sources)]
    told = run_json("rerank", large, *small, "--dry-run")["index_groups"]
    assert len(told["retrieve"]) == 5
    runs = {
        "whole": run_json("rerank", large, *settings, "--run-id", f"{name}-whole"),
        "parts": run_json("rerank", large, *small, "--run-id", f"{name}-parts"),
    }
    assert runs["whole"]["fingerprint"] == runs["parts"]["fingerprint"]
    assert len(runs["whole"]["index_groups"]["retrieve"]) == 1
    assert runs["parts"]["index_groups"] == told
    assert {f"retrieve-{n}of5" for n in range(1, 6)} <= runs["parts"]["seconds"].keys()
    root = open_root(load_config(large).root)
    rows = [content(Run.open(root, f"{name}-{each}")) for each in runs]
    assert rows[0] == rows[1]


def test_a_comparison_in_groups_measures_the_same(large: Path) -> None:
    systems = {"dense": {"reranker": None}, "fused": {"reranker": None, "retrieval": FUSED}}
    compare = ["--set", f"evaluation.systems={json.dumps(systems)}"]
    alone = run_json("evaluate", large, *compare)
    compared = run_json("evaluate", large, *compare, *limit(large, ["bm25"]))
    assert compared["metrics"] == alone["metrics"]
    run = Run.open(open_root(load_config(large).root), compared["run_id"])
    assert len(run.finished()["index_groups"]["retrieve-2"]) > 1


def test_a_shard_that_is_too_large_is_refused_before_anything_starts(large: Path) -> None:
    refused = run_command("rerank", large, "--dry-run", "--set", "compute.index_memory_gb=1e-9")
    assert refused.returncode == ConfigError.exit_code
    assert "allows; raise it, or build the index with more shards" in refused.stderr
