"""Dense, BM25 and fused retrieval by the command: an index that gets BM25 later, one run of each,
and a comparison in which they share what they search."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from rerank_batch.errors import IndexMismatch
from tests.conftest import run_command, run_json

SYSTEMS: dict[str, Any] = {
    "dense": {"reranker": None},
    "words": {"reranker": None, "retrieval": {"sources": ["bm25"]}},
    "rrf": {"reranker": None, "retrieval": {"sources": ["dense", "bm25"], "depths": {"bm25": 30}}},
    "weighted": {
        "reranker": None,
        "retrieval": {
            "sources": ["dense", "bm25"],
            "fusion": {"method": "weighted", "weights": {"dense": 0.7, "bm25": 0.3}},
        },
    },
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_each_way_to_retrieve_is_what_its_own_run_gives(config_file: Path, tmp_path: Path) -> None:
    raw = yaml.safe_load(config_file.read_text())
    raw |= {"root": str(tmp_path / "runs"), "reranker": None}
    raw["index"]["path"] = str(tmp_path / "index")
    config = tmp_path / "hybrid.yaml"
    config.write_text(yaml.safe_dump(raw, sort_keys=False))
    before = run_json("build-index", config)
    assert before["bm25"] is None

    raw["index"]["bm25"] = {"k1": 0.9}
    raw["evaluation"]["systems"] = SYSTEMS
    config.write_text(yaml.safe_dump(raw, sort_keys=False))
    refused = run_command("evaluate", config)
    assert refused.returncode == IndexMismatch.exit_code
    assert "built from another bm25 (index: None" in refused.stderr
    built = run_json("build-index", config)
    assert built["bm25"]["k1"] == 0.9
    assert "encode" not in built["seconds"]  # the vectors that were there are still good
    assert not run_json("build-index", config)["built"]

    compared = run_json("evaluate", config)
    assert {"retrieve", "retrieve-2", "fuse"} <= compared["seconds"].keys()
    assert "retrieve-3" not in compared["seconds"]
    for name in ("words", "rrf"):
        retrieval = {"depth": 20, **SYSTEMS[name]["retrieval"]}
        alone = run_json(
            "evaluate",
            config,
            *("--set", "evaluation.systems={}"),
            *("--set", f"retrieval={json.dumps(retrieval)}"),
            *("--set", f"root={tmp_path / name}"),
        )
        assert alone["metrics"]["retrieval"] == pytest.approx(compared["metrics"][name], abs=1e-12)
        assert ("encode" in alone["seconds"]) == (name != "words")
        if name == "rrf":
            rows = pq.read_table(list((tmp_path / name).glob("runs/*/data/*.parquet")))
            best = [row[0]["retrieval_score"] for row in rows.column("candidates").to_pylist()]
            assert max(best) <= 2 / 61
