"""What evaluating a large run takes: made-up rows, the whole of `evaluate`, and ir-measures beside.

The peer is ir-measures in one process over the same rows: it holds a run as dictionaries, so it
gets as many of the queries as fit, and is compared per query.
"""

import json
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.table import Table

from jobs.console import Console
from rerank_batch import schema
from rerank_batch.config import Config, parse_config
from rerank_batch.data.qrels import read_qrels
from rerank_batch.evaluation.findings import Questions
from rerank_batch.runs import Run, RunSpec, block_bounds
from rerank_batch.storage import open_root
from rerank_batch.workflows.evaluate import evaluate
from rerank_batch.workflows.measured_run import read_run
from rerank_batch.workflows.peak_memory import PeakMemory

_MEASURES = ("nDCG@10", "RR@10", "R@5", "R@50")
_RUN = "synthetic"
_BLOCK = 5_000
_DOCUMENTS = 10_000_000
_JUDGED = 3


def evaluation(
    queries: int, candidates: int, peer_queries: int, kept: Path | None, console: Console
) -> None:
    """Make a run, evaluate it, and measure the first of its queries by ir-measures alone.

    The run is made in the folder ``kept`` and stays there for the next time; without one it goes.
    """
    with tempfile.TemporaryDirectory() as passing:
        name = f"{queries}x{candidates}"
        folder = Path(passing) if kept is None else (kept / name).absolute()
        config = _config(folder, candidates)
        if not (folder / "made").exists():
            console.note(f"making {queries:,} queries with {candidates} candidates each")
            folder.mkdir(parents=True, exist_ok=True)
            _in_a_process(_make, folder, queries, candidates)
            (folder / "made").touch()
        stored = sum(file.stat().st_size for file in folder.rglob("*.parquet"))
        run = Run.open(open_root(config.root), _RUN)
        questions = Questions(_MEASURES, schema.SYSTEMS, large=True)
        took: dict[str, tuple[float, float, int]] = {}

        began = time.perf_counter()
        with PeakMemory() as memory:
            measured = read_run(run, read_qrels(_qrels(config)), config, questions, console)
        took["the measures"] = time.perf_counter() - began, memory.bytes / 2**30, queries
        del measured

        began = time.perf_counter()
        with PeakMemory() as memory:
            summary = evaluate(config, console, from_run=_RUN)
        took["all of evaluate"] = time.perf_counter() - began, memory.bytes / 2**30, queries

        seconds, peak, means = _in_a_process(_peer, folder, peer_queries)
        took["ir-measures"] = seconds, peak / 2**30, peer_queries
    per_query = {name: 1e6 * each[0] / each[2] for name, each in took.items()}
    ratio = per_query["ir-measures"] / per_query["the measures"]
    result = {
        "queries": queries,
        "candidates": candidates,
        "stored_bytes": stored,
        "means": summary.comparison.means(),
        "peer_means": means,
        "measured": {
            name: {
                "seconds": s,
                "peak_gb": p,
                "queries": q,
                "microseconds_per_query": per_query[name],
            }
            for name, (s, p, q) in took.items()
        },
        "ratio": ratio,
    }
    table = Table(title=f"{queries:,} queries x {candidates} candidates, {stored / 1e9:.2f} GB")
    for column in ("", "queries", "seconds", "us a query", "peak GiB"):
        table.add_column(column, justify="right" if column else "left")
    for name, (s, p, q) in took.items():
        table.add_row(name, f"{q:,}", f"{s:,.1f}", f"{per_query[name]:,.0f}", f"{p:.2f}")
    console.result(
        result,
        table,
        "the measures: of retrieval and reranked, on all workers, with starting Ray and reading "
        "rows and judgements; all of evaluate: with every depth, failures, tests and report; "
        "ir-measures: in one process, what it reads being in memory. "
        f"Per query ir-measures / the measures: {ratio:.2f}",
    )


def _config(folder: Path, candidates: int) -> Config:
    return parse_config(
        {
            "root": str(folder / "runs"),
            "job": "synthetic",
            "corpus": {"path": "none"},
            "qrels": {"path": str(folder / "qrels.parquet")},
            "index": {"path": "none", "encoder": "sentence-transformers:none"},
            "retrieval": {"depth": candidates},
            "evaluation": {"measures": list(_MEASURES)},
        }
    )


def _qrels(config: Config) -> Any:
    assert config.qrels is not None
    return config.qrels


def _in_a_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run it in a process of its own, so that its memory is not counted here."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _make(folder: Path, queries: int, candidates: int) -> None:
    """A finished run of random lists, and judgements of some of their documents."""
    config = _config(folder, candidates)
    model: dict[str, Any] = {
        "model": "cross-encoder:none",
        "stages": [],
        "depth": None,
        "method": "yes-no",
    }
    spec = RunSpec(
        job="synthetic",
        created="2026-01-01T00:00:00+00:00",
        fingerprint="synthetic",
        made_of={},
        config={**config.model_dump(mode="json"), "reranker": {**model, "method": "yes-no"}},
        systems=[],
        versions={},
        planned=queries,
        block_rows=_BLOCK,
        blocks=len(block_bounds(queries, _BLOCK)),
    )
    run = Run.create(open_root(config.root), _RUN, spec)
    run.claim()
    writer = run.writer()
    rejects = schema.REJECTS.empty_table()
    with pq.ParquetWriter(folder / "qrels.parquet", _QRELS) as qrels:
        for start, stop in block_bounds(queries, _BLOCK):
            rng = np.random.default_rng(start)
            documents = rng.integers(0, _DOCUMENTS, (stop - start, candidates), dtype=np.int64)
            # No document twice in a list: it is told apart by its place.
            documents += np.arange(candidates) * _DOCUMENTS
            writer.write(start, stop, _block(start, stop, documents, rng), rejects, {}, {}, {})
            qrels.write_table(_judgements(start, stop, documents, rng))
    run.finish(
        {"queries": queries, "rejects": {}, "pairs": queries * candidates, "seconds": {},
         "fingerprint": "synthetic", "metrics": {}}
    )  # fmt: skip


def _block(
    start: int, stop: int, documents: NDArray[np.int64], rng: np.random.Generator
) -> pa.Table:
    rows, width = documents.shape
    scores = -np.sort(-rng.normal(size=documents.shape).astype(np.float32), axis=1)
    reranked = rng.normal(size=documents.shape).astype(np.float32)
    ranks = np.empty_like(documents)
    np.put_along_axis(ranks, np.argsort(-reranked, axis=1), np.arange(1, width + 1)[None, :], 1)
    output = schema.results(_MEASURES)
    hits = pa.StructArray.from_arrays(
        [
            _names(documents.ravel()),
            pa.array(scores.ravel()),
            pa.array(ranks.ravel().astype(np.int32)),
            pa.array(reranked.ravel()),
        ],
        fields=list(output.field("candidates").type.value_type),
    )
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * width)
    ids = pa.array([f"q{number:08d}" for number in range(start, stop)])
    none = pa.array([[]] * rows, pa.list_(pa.string()))
    columns = {
        "qidx": pa.array(np.arange(start, stop)),
        "query_id": ids,
        "query_ids": pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32)), ids),
        "query": ids,
        "weight": pa.array(np.ones(rows)),
        "first_seen": pa.nulls(rows, output.field("first_seen").type),
        "last_seen": pa.nulls(rows, output.field("last_seen").type),
        "flags": none,
        "results": pa.array([[]] * rows, output.field("results").type),
        "candidates": pa.ListArray.from_arrays(offsets, hits, type=output.field("candidates").type),
        "metrics": pa.nulls(rows, output.field("metrics").type),
    }
    return pa.table(list(columns.values()), schema=output)


def _judgements(
    start: int, stop: int, documents: NDArray[np.int64], rng: np.random.Generator
) -> pa.Table:
    rows = len(documents)
    places = np.argsort(rng.uniform(size=documents.shape), axis=1)[:, :_JUDGED]
    found = np.take_along_axis(documents, places, axis=1).ravel()
    ids = np.repeat(np.arange(start, stop), _JUDGED)
    return pa.table(
        [
            pa.array([f"q{number:08d}" for number in ids]),
            _names(found),
            pa.array(rng.integers(0, 3, rows * _JUDGED), pa.int64()),
        ],
        schema=_QRELS,
    )


def _names(numbers: NDArray[np.int64]) -> pa.Array:
    return pa.array(numbers).cast(pa.string())


_QRELS = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("relevance", pa.int64())])


def _peer(folder: Path, queries: int) -> tuple[float, int, dict[str, dict[str, float]]]:
    """ir-measures on the first queries: seconds without reading, peak bytes, means."""
    runs: dict[str, dict[str, dict[str, float]]] = {system: {} for system in schema.SYSTEMS}
    files = sorted((folder / "runs").rglob("data/*.parquet"))
    for file in files:
        for row in pq.read_table(file, columns=["query_id", "candidates"]).to_pylist():
            hits = row["candidates"]
            runs["retrieval"][row["query_id"]] = {
                h["doc_id"]: -float(n) for n, h in enumerate(hits)
            }
            runs["reranked"][row["query_id"]] = {h["doc_id"]: -float(h["rank"]) for h in hits}
        if len(runs["retrieval"]) >= queries:
            break
    wanted = set(list(runs["retrieval"])[:queries])
    runs = {name: {q: run[q] for q in wanted} for name, run in runs.items()}
    qrels: dict[str, dict[str, int]] = {}
    for row in pq.read_table(folder / "qrels.parquet").to_pylist():
        if row["query_id"] in wanted:
            qrels.setdefault(row["query_id"], {})[row["doc_id"]] = row["relevance"]
    measures = [ir_measures.parse_measure(name) for name in _MEASURES]
    began = time.perf_counter()
    means = {
        system: {str(m): v for m, v in ir_measures.calc_aggregate(measures, qrels, run).items()}
        for system, run in runs.items()
    }
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return seconds, peak, json.loads(json.dumps(means))
