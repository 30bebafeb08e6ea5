"""A finished run to mine that never ran: made-up documents, queries, candidates and judgements.

Words follow Zipf's law, so that queries and documents share what real ones share. Everything is
drawn with a fixed seed: the same numbers give the same run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rerank_batch import schema
from rerank_batch.config import Config, Ingredients, parse_config
from rerank_batch.data.text_store import shard_bounds, write_texts
from rerank_batch.index.generations import publish_manifest
from rerank_batch.index.manifest import FORMAT, IndexFile, Manifest, ShardEntry
from rerank_batch.runs import Run, RunSpec, block_bounds, publish_run
from rerank_batch.storage import open_root, sha256_file

MEASURES = ("nDCG@10",)

_VOCABULARY = 30_000
_DOCUMENT_WORDS = (20, 100)
_QUERY_WORDS = (3, 9)
_BUILD = "made-up"
_SHARDS = 4


def write_run(
    folder: Path,
    documents: int,
    queries: int,
    candidates: int,
    block_rows: int = 4096,
    seed: int = 0,
) -> Config:
    """Write corpus texts, judgements (one relevant document a query) and a finished run of them.

    Returns the configuration that mines it; its root is ``folder``/runs.
    """
    rng = np.random.default_rng(seed)
    config = parse_config(
        {
            "root": str(folder / "runs"),
            "job": "made-up",
            "corpus": {"path": str(folder / "corpus.parquet")},
            "queries": {"path": str(folder / "log.parquet")},
            "qrels": {"path": str(folder / "qrels.parquet")},
            "index": {"path": str(folder / "index"), "encoder": "sentence-transformers:made-up"},
            "retrieval": {"depth": candidates},
            "reranker": {"model": "cross-encoder:made-up", "top_k": min(10, candidates)},
            "evaluation": {"measures": list(MEASURES)},
        }
    )
    ids = [f"d{number:08d}" for number in range(documents)]
    made_of = _write_index(folder / "index", ids, texts(rng, documents))
    relevant = rng.integers(0, documents, queries)
    pq.write_table(
        pa.table(
            {
                "query_id": _query_ids(0, queries),
                "doc_id": [ids[number] for number in relevant],
                "relevance": np.ones(queries, dtype=np.int32),
            }
        ),
        folder / "qrels.parquet",
    )
    _write_results(config, made_of, ids, relevant, block_rows, rng)
    return config


def texts(
    rng: np.random.Generator, count: int, words: tuple[int, int] = _DOCUMENT_WORDS
) -> list[str]:
    """Texts of ``words`` words from so many up to so many, drawn by Zipf's law."""
    weights = 1 / np.arange(1, _VOCABULARY + 1)
    names = [f"w{number}" for number in range(_VOCABULARY)]
    lengths = rng.integers(*words, count)
    drawn = rng.choice(_VOCABULARY, int(lengths.sum()), p=weights / weights.sum()).tolist()
    ends = np.cumsum(lengths).tolist()
    starts = [0, *ends[:-1]]
    return [
        " ".join([names[word] for word in drawn[start:end]])
        for start, end in zip(starts, ends, strict=True)
    ]


def _query_ids(start: int, stop: int) -> list[str]:
    return [f"q{number:08d}" for number in range(start, stop)]


def _write_index(folder: Path, ids: Sequence[str], contents: Sequence[str]) -> dict[str, Any]:
    """An index whose vectors nobody will read; what it is made of."""
    large = pa.large_string()
    table = pa.table(
        {
            "doc_id": pa.array(ids, large),
            "title": pa.array([""] * len(ids), large),
            "text": pa.array(contents, large),
        }
    )
    bounds = shard_bounds(len(ids), _SHARDS)
    files = write_texts(table, bounds, folder / _BUILD / "texts")
    shards = []
    for file, (start, stop) in zip(files, bounds, strict=True):
        vectors = folder / _BUILD / "shards" / file.with_suffix(".faiss").name
        vectors.parent.mkdir(exist_ok=True)
        vectors.write_bytes(b"no vectors")
        shards.append(
            ShardEntry(
                start=start, stop=stop, vectors=_file(folder, vectors), texts=_file(folder, file)
            )
        )
    made_of = {"corpus": "made-up", "format": FORMAT}
    manifest = Manifest(
        format=FORMAT,
        fingerprint="made-up",
        kind="Flat",
        metric="ip",
        dimension=1,
        documents=len(ids),
        dropped={},
        encoder="made-up",
        encoder_mode={},
        recall_at_100=None,
        recall_queries=0,
        made_of=made_of,
        builds=(_BUILD,),
        shards=tuple(shards),
    )
    publish_manifest(open_root(str(folder)), manifest)
    return made_of


def _file(folder: Path, file: Path) -> IndexFile:
    key = str(file.relative_to(folder))
    return IndexFile(key=key, bytes=file.stat().st_size, sha256=sha256_file(file))


def _write_results(
    config: Config,
    made_of: Ingredients,
    ids: Sequence[str],
    relevant: NDArray[np.int64],
    block_rows: int,
    rng: np.random.Generator,
) -> None:
    queries = len(relevant)
    run = Run.create(
        open_root(config.root),
        "made-up",
        RunSpec(
            job=config.job,
            created="2026-01-01T00:00:00",
            fingerprint="made-up",
            made_of={"index": made_of, "reranker": ["made-up"]},
            config=config.model_dump(mode="json"),
            versions={},
            planned=queries,
            block_rows=block_rows,
            blocks=len(block_bounds(queries, block_rows)),
        ),
    )
    run.claim()
    for start, stop in run.blocks():
        rows = _rows(config.retrieval.depth, ids, relevant[start:stop], start, rng)
        run.writer().write(start, stop, rows, schema.REJECTS.empty_table(), {}, {}, {})
    run.finish({"queries": queries, "rejects": {}, "pairs": 0, "metrics": {}, "mode": "made-up"})
    publish_run(run)


def _rows(
    depth: int, ids: Sequence[str], relevant: NDArray[np.int64], start: int, rng: Any
) -> pa.Table:
    """Result rows: the relevant document at a random rank, mostly liked by the reranker."""
    count = len(relevant)
    places = rng.integers(0, depth, count)
    # Steps that never lead once around, so that no document is there twice.
    steps = np.cumsum(rng.integers(1, len(ids) // depth, (count, depth), endpoint=True), axis=1)
    start_at = relevant - steps[np.arange(count), places]
    found = (start_at[:, None] + steps) % len(ids)
    found = rng.permuted(found, axis=1)
    places = np.argmax(found == relevant[:, None], axis=1)
    scores = rng.normal(-2, 2, (count, depth))
    scores[np.arange(count), places] = rng.normal(3, 1, count)
    ranks = np.empty((count, depth), dtype=np.int32)
    np.put_along_axis(ranks, np.argsort(-scores, axis=1), np.arange(1, depth + 1)[None, :], axis=1)
    columns = schema.results(MEASURES)
    hits = columns.field("candidates").type.value_type
    values = pa.StructArray.from_arrays(
        [
            pa.array([ids[number] for number in found.ravel()], pa.string()),
            pa.array(np.tile(np.linspace(1, 0, depth), count), pa.float32()),
            pa.array(ranks.ravel(), pa.int32()),
            pa.array(scores.ravel(), pa.float32()),
        ],
        fields=list(hits),
    )
    offsets = pa.array(np.arange(count + 1) * depth, pa.int32())
    names = _query_ids(start, start + count)
    return pa.table(
        {
            "qidx": pa.array(range(start, start + count), pa.int64()),
            "query_id": names,
            "query_ids": pa.array([[name] for name in names], pa.list_(pa.string())),
            "query": texts(rng, count, _QUERY_WORDS),
            "weight": np.ones(count),
            "first_seen": pa.nulls(count, columns.field("first_seen").type),
            "last_seen": pa.nulls(count, columns.field("last_seen").type),
            "flags": pa.array([[]] * count, pa.list_(pa.string())),
            "results": pa.array([[]] * count, columns.field("results").type),
            "candidates": pa.ListArray.from_arrays(offsets, values),
            "metrics": pa.nulls(count, columns.field("metrics").type),
        },
    ).cast(columns)
