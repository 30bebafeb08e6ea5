"""Small builders that several test files share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rerank_batch import schema
from rerank_batch.run import Run
from rerank_batch.storage import Folder

MEASURES = ("nDCG@10", "RR@10", "R@5")


def write_parquet(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, **options), path)
    return path


def broken_strings(values: Sequence[bytes | None]) -> pa.Array:
    """A string column over bytes that nobody checked, as Parquet readers hand them out."""
    raw = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(raw), raw.buffers(), raw.null_count)


def plan_row(qidx: int, query_ids: Sequence[str] = ()) -> dict[str, Any]:
    ids = list(query_ids) or [f"q{qidx:03d}"]
    return {
        "qidx": qidx,
        "query_id": ids[0],
        "query_ids": ids,
        "query": f"query number {qidx}",
        "weight": 1.0,
        "first_seen": None,
        "last_seen": None,
        "flags": [],
    }


def result_row(
    qidx: int,
    candidates: Sequence[tuple[str, float, float]],
    query_ids: Sequence[str] = (),
    top_k: int = 10,
) -> dict[str, Any]:
    """A row of `schema.results` from (doc_id, retrieval score, reranker score) in any order."""
    first = sorted(candidates, key=lambda hit: (-hit[1], hit[0]))
    rank = {doc_id: number for number, (doc_id, _, _) in enumerate(first, start=1)}
    best = sorted(candidates, key=lambda hit: (-hit[2], hit[0]))[:top_k]
    return {
        **plan_row(qidx, query_ids),
        "results": [
            {
                "doc_id": doc_id,
                "rank": number,
                "score": score,
                "retrieval_rank": rank[doc_id],
                "retrieval_score": before,
            }
            for number, (doc_id, before, score) in enumerate(best, start=1)
        ],
        "candidates": [
            {"doc_id": doc_id, "retrieval_score": before, "score": score}
            for doc_id, before, score in first
        ],
        "metrics": None,
    }


def result_table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=schema.results(MEASURES))


def spec(job: str = "nightly", created: str = "2026-01-02T03:00:00", **made_of: Any) -> Any:
    return {"job": job, "created": created, "made_of": {"depth": 50, **made_of}}


def finished_run(root: Path, blocks: list[list[dict[str, Any]]], run_id: str = "run-1") -> Run:
    """A finished run whose blocks hold the given rows."""
    run = Run.create(Folder(str(root)), run_id, spec())
    run.claim()
    for rows in blocks:
        qidx = [row["qidx"] for row in rows]
        run.writer().write(qidx, result_table(rows), schema.REJECTS.empty_table(), {}, {})
    run.finish(sum(map(len, blocks)), {})
    return run
