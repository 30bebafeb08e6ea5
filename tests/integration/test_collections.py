"""Figures on a classic judged collection, where RERANK_BATCH_COLLECTIONS names a folder with one.

The folder holds cranfield/ in BEIR layout: corpus.jsonl.gz, queries.jsonl, qrels/test.tsv.
"""

import os
from pathlib import Path

import pytest

from tests.conftest import run_json

FOLDER = Path(os.environ.get("RERANK_BATCH_COLLECTIONS", "nowhere")) / "cranfield"


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER.is_dir(), reason="RERANK_BATCH_COLLECTIONS names no cranfield")
def test_cranfield(tmp_path):
    paths = {
        "root": tmp_path / "runs",
        "index.path": tmp_path / "index",
        "collection": FOLDER,
    }
    overrides = [part for key, path in paths.items() for part in ("--set", f"{key}={path}")]
    run_json("build-index", "configs/eval.yaml", *overrides)
    metrics = run_json("evaluate", "configs/eval.yaml", *overrides)["metrics"]
    print(f"\ncranfield nDCG@10: {metrics['retrieval']['nDCG@10']:.4f} "
          f"-> {metrics['reranked']['nDCG@10']:.4f}")  # fmt: skip
    assert metrics["retrieval"]["nDCG@10"] == pytest.approx(0.3736, abs=0.0005)
    assert metrics["reranked"]["nDCG@10"] >= 0.378
