"""The tiny project that the recorded commands work on: every input they read, all seeded.

Paths in it are relative to its folder, so that what the commands print does not depend on where
that lies.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.conftest import write_collection, write_cross_encoder, write_encoder

HYBRID = (
    "--set corpus.path=data/corpus-2.parquet --set index.path=index-2 --set index.bm25={} "
    "--set retrieval.sources=[dense,bm25] "
)
"""The same project over the changed corpus, with an index that has BM25 shards as well."""


def write_project(folder: Path) -> None:
    """Models, inputs and configurations."""
    data = folder / "data"
    write_collection(data)
    (folder / "models").mkdir()
    write_encoder(folder / "models/encoder", folder / "models/bert")
    write_cross_encoder(folder / "models/cross")
    _write_log_with_more_columns(data)
    _write_changed_corpus(data)
    _write_clicks(data)
    _write_outcomes_and_answers(data)
    _write_other_formats(data)
    _write_beir(folder / "beir", data)
    _write_odd_inputs(data)
    configs = {
        "config.yaml": _config(),
        "compare.yaml": _comparison(),
        "beir.yaml": _of_collection(),
        "finetune.yaml": _FINETUNE,
        "list.yaml": ["no", "mapping"],
    }
    for name, content in configs.items():
        (folder / name).write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    (folder / "twice.yaml").write_text("job: one\njob: two\n", "utf-8")
    (folder / "broken.yaml").write_text("job: [one\n", "utf-8")
    (folder / "a-file").write_text("no folder\n", "utf-8")


def _config() -> dict[str, Any]:
    return {
        "root": "store",
        "job": "tiny",
        "corpus": {"path": "data/corpus.parquet"},
        "queries": {"path": "data/log.parquet"},
        "qrels": {"path": "data/qrels.parquet"},
        "index": {
            "path": "index",
            "encoder": "sentence-transformers:models/encoder",
            "runtime": "torch",
            "shards": 2,
        },
        "retrieval": {"depth": 20},
        "reranker": {
            "model": "cross-encoder:models/cross",
            "runtime": "torch",
            "top_k": 5,
            "gate": {"signal": "margin", "threshold": 0.015},
        },
        "evaluation": {"measures": ["nDCG@10", "RR@10", "R@20"]},
        "compute": {"block_rows": 20, "cpus": 2},
        "guards": {"max_rejects": 0.2, "min_queries": 10},
    }


def _comparison() -> dict[str, Any]:
    config = _config()
    cross = {name: value for name, value in config["reranker"].items() if name != "gate"}
    late = {"model": "late-interaction:models/encoder", "runtime": "torch", "depth": 15}
    stage = {"model": cross["model"], "runtime": "torch", "depth": 6}
    config["evaluation"]["systems"] = {
        "retrieval": {"reranker": None},
        "cross": {"reranker": cross},
        "shallow": {"retrieval": {"depth": 8}, "reranker": cross},
        "cascade": {"reranker": {"top_k": 5, "stages": [late, stage]}},
        "file": {"trec": "data/other.trec"},
    }
    return config


def _of_collection() -> dict[str, Any]:
    """The same inputs, found where a collection in the layout of BEIR has them."""
    config = _config()
    for section in ("corpus", "queries", "qrels"):
        del config[section]
    return {**config, "collection": "beir", "split": "test"}


_FINETUNE = {
    "model": "cross-encoder:models/cross",
    "max_length": 48,
    "steps": 4,
    "queries_per_step": 4,
    "documents_per_query": 3,
    "learning_rate": 1e-3,
    "precision": "fp32",
    "dev": {"every": 2},
    "checkpoint": {"steps": 2, "minutes": None},
}


def _write_log_with_more_columns(data: Path) -> None:
    """Times and a column to divide the queries by, beside what the shared log has."""
    log = pq.read_table(data / "log.parquet")
    rows = range(log.num_rows)
    times = pa.array([1_760_000_000 + 3600 * n for n in rows], pa.timestamp("s"))
    log = log.append_column("ts", times)
    log = log.append_column("market", pa.array([["de", "fr", "it"][n % 3] for n in rows]))
    pq.write_table(log, data / "log.parquet")
    pq.write_table(log.slice(0, 20), data / "log-2026-01-01.parquet")


def _write_changed_corpus(data: Path) -> None:
    """Ten documents gone, ten with another text, five new."""
    rows = pq.read_table(data / "corpus.parquet").to_pylist()[10:]
    for row in rows[:10]:
        row["text"] = f"summer garden {row['text']}"
    rows += [{"doc_id": f"n{n}", "title": "new", "text": f"river stone {n}"} for n in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), data / "corpus-2.parquet")
    (data / "excluded.txt").write_text("d050\nd051\nnobody\n", "utf-8")


def _write_clicks(data: Path) -> None:
    """Every query saw ten documents; one place of them was clicked."""
    shown = [
        (f"q{n:02d}", f"d{(n * 3 + place) % 120:03d}", place)
        for n in range(30)
        for place in range(1, 11)
    ]
    clicks = {
        "query_id": [query for query, _, _ in shown],
        "doc_id": [document for _, document, _ in shown],
        "position": [place for _, _, place in shown],
        "clicked": [place == 3 for _, _, place in shown],
        "count": [200] * len(shown),
    }
    pq.write_table(pa.table(clicks), data / "clicks.parquet")


def _write_outcomes_and_answers(data: Path) -> None:
    outcomes = [
        {"query_id": f"q{n:02d}", "system": system, "outcome": "solved", "value": float(value)}
        for n in range(30)
        for system, value in (("retrieval", n % 3 == 0), ("reranked", n % 2 == 0))
    ]
    pq.write_table(pa.Table.from_pylist(outcomes), data / "outcomes.parquet")
    answers = {"query_id": ["q00", "q01", "q02"], "answer": ["river stone", "alpha", "cloud"]}
    pq.write_table(pa.table(answers), data / "answers.parquet")


def _write_other_formats(data: Path) -> None:
    """The log and the judgements in the other forms that are read."""
    log = pq.read_table(data / "log.parquet").to_pylist()[:40]
    tsv = "".join(f"{row['query_id']}\t{row['query']}\n" for row in log)
    (data / "log.tsv").write_text(tsv, "utf-8")
    topics = "".join(
        f"<top>\n<num> Number: {n}\n<title> {row['query']}\n</top>\n" for n, row in enumerate(log)
    )
    (data / "log.topics").write_text(topics, "utf-8")
    lines = "".join(json.dumps({"_id": r["query_id"], "text": r["query"]}) + "\n" for r in log)
    (data / "log.jsonl").write_text(lines, "utf-8")
    qrels = pq.read_table(data / "qrels.parquet").to_pylist()
    trec = "".join(f"{r['query_id']} 0 {r['doc_id']} {r['relevance']}\n" for r in qrels)
    (data / "qrels.trec").write_text(trec, "utf-8")
    run = "".join(
        f"q{n:02d} Q0 d{(n * 7 + place) % 120:03d} {place + 1} {9.5 - place} other\n"
        for n in range(30)
        for place in range(5)
    )
    (data / "other.trec").write_text(run, "utf-8")


def _write_beir(folder: Path, data: Path) -> None:
    """The collection as a folder in the layout of BEIR."""
    (folder / "qrels").mkdir(parents=True)
    corpus = pq.read_table(data / "corpus.parquet").to_pylist()
    lines = "".join(
        json.dumps({"_id": r["doc_id"], "title": r["title"], "text": r["text"]}) + "\n"
        for r in corpus
    )
    (folder / "corpus.jsonl").write_text(lines, "utf-8")
    (folder / "queries.jsonl").write_text((data / "log.jsonl").read_text("utf-8"), "utf-8")
    qrels = pq.read_table(data / "qrels.parquet").to_pylist()
    rows = "".join(f"{r['query_id']}\t{r['doc_id']}\t{r['relevance']}\n" for r in qrels)
    heading = "query-id\tcorpus-id\tscore\n"
    (folder / "qrels/test.tsv").write_text(heading + rows, "utf-8")


def _write_odd_inputs(data: Path) -> None:
    """What a user gets wrong: columns of other names, two texts of an id, a file cut short."""
    pq.write_table(pa.table({"id": ["q1"], "words": ["alpha"]}), data / "no-query.parquet")
    pq.write_table(pa.table({"query_id": ["q1"], "doc": ["d1"]}), data / "no-doc.parquet")
    twice = {"query_id": ["q1", "q1"], "query": ["alpha", "beta"]}
    pq.write_table(pa.table(twice), data / "twice.parquet")
    doubled = {"doc_id": ["d1", "d1"], "text": ["alpha", "beta"]}
    pq.write_table(pa.table(doubled), data / "doubled.parquet")
    whole = (data / "log.parquet").read_bytes()
    (data / "short.parquet").write_bytes(whole[: len(whole) // 2])
    (data / "bad.trec").write_text("q00 0 d000 many\n", "utf-8")
