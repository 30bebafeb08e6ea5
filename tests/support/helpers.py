"""Small builders that several test files share."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rerank_batch import schema
from rerank_batch.runs import Commit, Run, RunSpec, publish_run
from rerank_batch.storage import Root, open_root

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
    best = sorted(candidates, key=lambda hit: (-hit[2], hit[0]))
    place = {doc_id: number for number, (doc_id, _, _) in enumerate(best, start=1)}
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
            for number, (doc_id, before, score) in enumerate(best[:top_k], start=1)
        ],
        "candidates": [
            {
                "doc_id": doc_id,
                "retrieval_score": before,
                "rank": place[doc_id],
                "score": score,
            }
            for doc_id, before, score in first
        ],
        "metrics": None,
    }


def result_table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=schema.results(MEASURES))


def reject_row(qidx: int | None, reason: str = "bad_score", rows: int = 1) -> dict[str, Any]:
    query_id = None if qidx is None else f"q{qidx:03d}"
    return {"qidx": qidx, "query_id": query_id, "reason": reason, "rows": rows, "query": None}


def reject_table(rows: Sequence[Mapping[str, Any]] = ()) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=schema.REJECTS)


def plan_table(planned: int) -> pa.Table:
    return pa.Table.from_pylist([plan_row(n) for n in range(planned)], schema=schema.PLAN)


def spec(
    job: str = "nightly",
    created: str = "2026-01-02T03:00:00",
    planned: int = 10,
    block_rows: int = 2,
    **made_of: Any,
) -> RunSpec:
    return RunSpec(
        job=job,
        created=created,
        made_of={"depth": 50, **made_of},
        config={"evaluation": {"measures": list(MEASURES)}},
        planned=planned,
        block_rows=block_rows,
    )


def write_block(
    run: Run,
    start: int,
    stop: int,
    score: float = 1.0,
    rejected: Sequence[int] = (),
    sums: Mapping[str, float] | None = None,
) -> Commit:
    """Commit queries ``start`` up to ``stop``, each with one document; some of them rejected."""
    good = [result_row(n, [("d1", 0.5, score)]) for n in range(start, stop) if n not in rejected]
    bad = reject_table([reject_row(n) for n in rejected])
    return run.writer().write(start, stop, result_table(good), bad, sums or {}, {"score": 0.5}, {})


def write_all(run: Run, score: float = 1.0, rejected: Sequence[int] = ()) -> None:
    """Commit every block that is not done."""
    for number in run.blocks_to_do(run.done()):
        start, stop = run.blocks()[number]
        write_block(run, start, stop, score, [n for n in rejected if start <= n < stop])


def finish(run: Run) -> dict[str, Any]:
    """Finish with the totals that the commits add up to."""
    commits = run.commits()
    plan = run.root.read(f"runs/{run.run_id}/rejects/plan.parquet")
    rejects: dict[str, int] = {}
    dropped = [] if plan is None else pq.read_table(pa.BufferReader(plan)).to_pylist()
    counted = [{row["reason"]: row["rows"]} for row in dropped]
    for counts in (*counted, *(commit.reject_reasons for commit in commits)):
        for reason, rows in counts.items():
            rejects[reason] = rejects.get(reason, 0) + rows
    queries = sum(commit.results.rows for commit in commits if commit.results)
    return run.finish({"queries": queries, "rejects": rejects})


def complete_run(
    root: Root,
    run_id: str = "run-1",
    score: float = 1.0,
    rejected: Sequence[int] = (),
    publish: bool = False,
    **what: Any,
) -> Run:
    """A finished run over every planned query."""
    run = Run.create(root, run_id, spec(**what))
    run.write_plan(plan_table(run.spec.planned), reject_table())
    run.claim()
    write_all(run, score, rejected)
    finish(run)
    if publish:
        assert publish_run(run)
    return run


def finished_run(root: Path, blocks: list[list[dict[str, Any]]], run_id: str = "run-1") -> Run:
    """A finished run in a folder whose blocks hold the given rows."""
    planned = sum(map(len, blocks))
    run = Run.create(open_root(str(root)), run_id, spec(planned=planned, block_rows=1))
    run.claim()
    for rows in blocks:
        start, stop = rows[0]["qidx"], rows[-1]["qidx"] + 1
        run.writer().write(start, stop, result_table(rows), reject_table(), {}, {}, {})
    run.finish({"queries": planned})
    return run


def overwrite(root: Root, key: str, body: bytes) -> None:
    """Put an object in the place of another, as damage or a forger would."""
    root.delete([key])
    assert root.create_once(key, body)


def everything_under(root: Root, prefix: str = "") -> dict[str, bytes | None]:
    return {key: root.read(key) for key in root.sizes(prefix)}


def content(run: Run) -> list[str]:
    """Every result and reject row of a finished run as JSON, in the order of the queries.

    Equal for runs that say the same, however their rows are cut into files.
    """
    lines = []
    results = [
        row for file in run.finished()["results"] for row in run.read_table(file).to_pylist()
    ]
    for rows in (results, run.rejects().to_pylist()):
        written = [(row["qidx"], json.dumps(row, sort_keys=True, default=str)) for row in rows]
        written.sort(key=lambda pair: (pair[0] is None, pair[0] or 0, pair[1]))
        lines += [line for _, line in written]
    return lines


def wait_for(look: Callable[[], Any], seconds: float = 120) -> Any:
    """What ``look`` finds, as soon as it finds anything."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")
