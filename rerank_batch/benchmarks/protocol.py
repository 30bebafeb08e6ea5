"""What exactly-once costs: the protocol beside plain writes, and the bitmap of what is done."""

import secrets
import statistics
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.table import Table

from jobs.console import Console
from jobs.tables.facts import facts_table
from rerank_batch import schema
from rerank_batch.benchmarks.timing import timed
from rerank_batch.config import ComputeConfig
from rerank_batch.ray_backend.cluster import cluster
from rerank_batch.ray_backend.peers import commit_tables, write_tables
from rerank_batch.runs import CommitName, Done, Run, RunSpec, block_bounds, publish_run
from rerank_batch.storage import Root, open_root

_MEASURES = ("nDCG@10",)


def protocol(
    root_uri: str, rows: int, block_rows: int, depth: int, rounds: int, console: Console
) -> None:
    """Write the same blocks plainly and by the protocol, in turn, in one Ray."""
    root = open_root(root_uri)
    root.check_writes()
    seconds: dict[str, list[float]] = {"plain": [], "protocol": []}
    bounds = block_bounds(rows, block_rows)
    with (
        tempfile.TemporaryDirectory() as folder,
        cluster(ComputeConfig(), console.verbose, console.note),
    ):
        blocks = _write_blocks(Path(folder), bounds, depth)
        for number in range(rounds + 1):
            plain = partial(write_tables, blocks, root.path(f"plain/{secrets.token_hex(4)}"))
            ours = partial(_write_run, root, blocks, rows, block_rows)
            for name, write in (("plain", plain), ("protocol", ours)):
                took = timed(write)
                if number:  # the first round starts Ray's workers and is not counted
                    seconds[name].append(took)
            console.note(f"round {number} of {rounds} done")
    ratios = [b / a for a, b in zip(seconds["plain"], seconds["protocol"], strict=True)]
    extra = [
        (b - a) / len(bounds) for a, b in zip(seconds["plain"], seconds["protocol"], strict=True)
    ]
    summary = {
        "root": root_uri,
        "rows": rows,
        "blocks": len(bounds),
        "candidates": depth,
        "rounds": rounds,
        "seconds": seconds,
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "milliseconds_per_block": 1000 * statistics.median(extra),
    }
    table = Table(title=f"{rows:,} rows in {len(bounds)} blocks to {root_uri}, {rounds} rounds")
    for column in ("", "median s", "range s"):
        table.add_column(column, justify="right" if column else "left")
    for name, values in seconds.items():
        span = f"{min(values):.2f} – {max(values):.2f}"
        table.add_row(name, f"{statistics.median(values):.2f}", span)
    end = (
        f"protocol / plain: {summary['ratio']:.2f} ({min(ratios):.2f} – {max(ratios):.2f}), "
        f"{summary['milliseconds_per_block']:.0f} ms a block"
    )
    console.result(summary, table, end)


def done(rows: int, block_rows: int, share: float, console: Console) -> None:
    """The bitmap of a large run: its memory, and how long it takes to find what is left."""
    bounds = block_bounds(rows, block_rows)
    names = [str(CommitName(start, stop, 1)) for start, stop in bounds[: int(len(bounds) * share)]]
    began = time.perf_counter()
    bitmap = Done(rows)
    for name in map(CommitName.parse, names):
        bitmap.add(name.start, name.stop)
    built = time.perf_counter() - began
    left = sum(not bitmap.covers(*bound) for bound in bounds)
    dropped = time.perf_counter() - began - built
    summary = {
        "rows": rows,
        "blocks": len(bounds),
        "blocks_left": left,
        "bitmap_bytes": bitmap.bytes,
        "build_seconds": built,
        "drop_done_seconds": dropped,
    }
    facts = {
        "rows": f"{rows:,} in {len(bounds):,} blocks of {block_rows:,}, {len(bitmap):,} done",
        "bitmap": f"{bitmap.bytes / 1e6:.2f} MB, built from commit names in {built:.3f} s",
        "drop done": f"{dropped:.3f} s: {left:,} plan files to read, the others stay unread",
    }
    console.result(summary, facts_table("Done bitmap", facts))


def _write_blocks(folder: Path, bounds: list[tuple[int, int]], depth: int) -> list[str]:
    """Blocks of made-up results with the shape of real ones, as Arrow files."""
    rng = np.random.default_rng(0)
    output = schema.results(_MEASURES).append(schema.REJECT_FIELD)
    output = output.append(pa.field(schema.SIDE, pa.string()))
    files = []
    for start, stop in bounds:
        rows = [_row(qidx, rng, depth) for qidx in range(start, stop)]
        file = folder / f"{start:012d}.arrow"
        table = pa.Table.from_pylist(rows, schema=output)
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, output) as writer:
            writer.write_table(table)
        files.append(str(file))
    return files


def _row(qidx: int, rng: np.random.Generator, depth: int) -> dict[str, Any]:
    scores = np.sort(rng.normal(size=depth))[::-1].tolist()
    candidates = [
        {
            "doc_id": f"document-{rng.integers(1_000_000):07d}",
            "retrieval_score": score,
            "rank": rank,
            "score": score,
        }
        for rank, score in enumerate(scores, start=1)
    ]
    results = [
        {
            "doc_id": hit["doc_id"],
            "rank": hit["rank"],
            "score": hit["score"],
            "retrieval_rank": hit["rank"],
            "retrieval_score": hit["score"],
        }
        for hit in candidates[:10]
    ]
    return {
        "qidx": qidx,
        "query_id": f"query-{qidx}",
        "query_ids": [f"query-{qidx}"],
        "query": f"a query of some words, number {qidx}",
        "weight": 1.0,
        "flags": [],
        "results": results,
        "candidates": candidates,
    }


def _write_run(root: Root, blocks: list[str], rows: int, block_rows: int) -> None:
    """What a run does apart from retrieving and scoring: claim, commit every block, finish."""
    spec = RunSpec(
        job="benchmark",
        created=datetime.now(UTC).isoformat(),
        made_of={},
        planned=rows,
        block_rows=block_rows,
        fingerprint="",
        blocks=len(blocks),
    )
    run = Run.create(root, f"benchmark-{secrets.token_hex(4)}", spec)
    run.claim()
    with run.lease(seconds=20):
        for _ in commit_tables(blocks, run.writer()):
            pass
        run.finish({"queries": rows, "rejects": {}})
    publish_run(run)
