"""Peak memory does not grow with the number of queries: 20,000 documents, depth 50."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from rerank_batch.config import load_config
from tests.conftest import run_json, sentences

DOCUMENTS, FEW, MANY, DEPTH = 20_000, 1_000, 5_000, 50


@pytest.fixture(scope="module")
def large_config(tmp_path_factory, config_file: Path) -> Path:
    """The small models over a large made-up collection, with its index built."""
    folder = tmp_path_factory.mktemp("large")
    texts = sentences(DOCUMENTS, seed=5, words=30)
    corpus = {"doc_id": [f"d{n:05d}" for n in range(DOCUMENTS)], "text": texts}
    pq.write_table(pa.table(corpus), folder / "corpus.parquet")
    for count in (FEW, MANY):
        asked = [f"{text} {n}" for n, text in enumerate(sentences(count, seed=6))]
        log = {"query_id": [f"q{n}" for n in range(count)], "query": asked}
        pq.write_table(pa.table(log), folder / f"log-{count}.parquet")
    settings = load_config(config_file).model_dump(mode="json")
    settings |= {"root": str(folder / "runs"), "qrels": None}
    settings["corpus"] = {"path": str(folder / "corpus.parquet")}
    settings["index"] |= {"path": str(folder / "index"), "shards": 4}
    settings["retrieval"] = {"depth": DEPTH}
    settings["compute"] = {"block_rows": 256}
    settings["queries"] = {"path": str(folder / f"log-{FEW}.parquet")}
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    run_json("build-index", file, timeout=600)
    return file


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_is_flat_in_the_number_of_queries(large_config: Path):
    peaks = {}
    for count in (FEW, MANY):
        log = large_config.parent / f"log-{count}.parquet"
        summary = run_json("rerank", large_config, "--set", f"queries.path={log}", timeout=900)
        assert summary["pairs"] == count * DEPTH
        peaks[count] = summary["peak_memory_gb"]
        print(
            f"\n{count:,} queries x {DEPTH} of {DOCUMENTS:,} documents: peak {peaks[count]} GiB "
            f"(whole process tree), {summary['pairs_per_second']:,} pairs/s"
        )
    assert peaks[MANY] < 1.15 * peaks[FEW]
