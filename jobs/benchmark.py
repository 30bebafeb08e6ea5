"""Measurements, each against what one would use otherwise, in turn and in one process tree."""

import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from jobs.console import Console, facts_table
from rerank_batch import schema
from rerank_batch.config import ComputeConfig, Lossy, load_config
from rerank_batch.errors import ComputeError, ConfigError, ModelError
from rerank_batch.pipeline import cluster, commit_tables, map_naively, write_tables
from rerank_batch.run import Commit, CommitName, Done, Run, block_bounds
from rerank_batch.score_cache.measure import make_segment, measure_lookups
from rerank_batch.scoring.modes import modes_for
from rerank_batch.storage import Root, open_root

if TYPE_CHECKING:
    from rerank_batch.benchmarks.scoring import Comparison, Workload

_MEASURES = ("nDCG@10",)
_DEPTH = 20
_BATCH = 32


def scoring(
    sizes: list[str] | None,
    mixes: list[str] | None,
    pairs: int,
    rounds: int,
    threads: int,
    allow: tuple[Lossy, ...],
    console: Console,
) -> None:
    """Our scorer in each mode, `predict`, `predict` tuned, and `predict` in a naive Ray job."""
    from rerank_batch.benchmarks import scoring as peers

    sizes = _among(sizes or ["minilm-l6", "base"], peers.SIZES, "--size")
    mixes = _among(mixes or list(peers.MIXES), peers.MIXES, "--mix")
    results = []
    with (
        tempfile.TemporaryDirectory() as folder,
        cluster(ComputeConfig(cpus=threads), console.verbose),
    ):
        for size in sizes:
            model = peers.write_model(Path(folder) / size, size)
            for mix in mixes:
                work = peers.workload(mix, max(1, pairs // _DEPTH), _DEPTH)
                note = partial(_note, console, f"{size}, {mix}")
                results.append(_compare(model, size, mix, work, rounds, threads, allow, note))
    tables = [_scoring_table(result) for result in results]
    console.result({"comparisons": [result.to_dict() for result in results]}, *tables)


def _compare(
    model: Path,
    size: str,
    mix: str,
    work: "Workload",
    rounds: int,
    threads: int,
    allow: tuple[Lossy, ...],
    note: Callable[[str], None],
) -> "Comparison":
    from rerank_batch.benchmarks import scoring as peers
    from rerank_batch.scoring.device import pick_device

    note(f"{len(work.lengths):,} pairs of {work.lengths.mean():.0f} tokens")
    systems = {"B0 predict(32, float32)": peers.plain_predict(model, work, threads)}
    name, system = peers.tuned_predict(model, work)
    systems[name] = system
    scorers = {}
    for mode in modes_for("auto", allow, "auto", pick_device()):
        try:
            scorer, system = peers.engine(model, work, mode, threads)
        except ModelError as error:
            note(f"{mode}: {error}")
            continue
        systems[str(mode)], scorers[str(mode)] = system, scorer
    # Last: Ray's processes are still leaving when the next system begins.
    systems["B2 predict in Ray"] = partial(_predict_in_ray, model, work, threads)
    timings, peak = peers.measure(systems, rounds, note)
    return peers.Comparison(
        size=size,
        mix=mix,
        pairs=len(work.lengths),
        mean_tokens=float(work.lengths.mean()),
        rounds=rounds,
        threads=threads,
        padding=next(iter(scorers.values())).runtime.budget.padding(),
        gemm_peak=peak,
        peak_share={
            t.system: peers.peak_share(size, work.lengths, t.median, peak)
            for t in timings
            if t.system in scorers
        },
        timings=timings,
    )


def _predict_in_ray(model: Path, work: "Workload", threads: int) -> tuple[Any, float]:
    """From the first batch's beginning to the last one's end: Ray's start is not counted."""
    from rerank_batch.benchmarks.scoring import PredictActor

    queries, documents = zip(*work.pairs, strict=True)
    table = pa.table(
        {"number": range(len(queries)), "query": list(queries), "document": list(documents)}
    )
    arguments = {"folder": model, "threads": threads}
    scored = map_naively(table, PredictActor, arguments, _BATCH, threads).sort_by("number")
    seconds = pc.max(scored["ended"]).as_py() - pc.min(scored["began"]).as_py()
    return scored["score"].to_numpy(), seconds


def _scoring_table(result: "Comparison") -> Table:
    table = Table(
        title=f"{result.size}, {result.mix}: {result.pairs:,} pairs of {result.mean_tokens:.0f} "
        f"tokens, {result.threads} threads, {result.padding:.1%} padding, "
        f"float32 peak {result.gemm_peak:.0f} GFLOP/s",
        title_justify="left",
    )
    table.add_column("system")
    for column in ("pairs/s", "range", "to B0", "range", "of the peak", "largest difference"):
        table.add_column(column, justify="right")
    for timing in result.timings:
        share = result.peak_share.get(timing.system)
        table.add_row(
            timing.system,
            f"{timing.median:.1f}",
            f"{timing.low:.1f}-{timing.high:.1f}",
            f"{timing.ratio:.2f}",
            f"{timing.ratio_low:.2f}-{timing.ratio_high:.2f}",
            "" if share is None else f"{share:.0%}",
            f"{timing.largest_difference:.1e}",
        )
    return table


def _among(given: list[str], known: Collection[str], option: str) -> list[str]:
    for each in given:
        if each not in known:
            raise ConfigError(f"{option} takes {', '.join(known)}, not {each!r}")
    return given


def _note(console: Console, what: str, text: str) -> None:
    console.note(f"{what}: {text}")


def protocol(
    root_uri: str, rows: int, block_rows: int, depth: int, rounds: int, console: Console
) -> None:
    """Write the same blocks plainly and by the protocol, in turn, in one Ray."""
    root = open_root(root_uri)
    root.check_writes()
    seconds: dict[str, list[float]] = {"plain": [], "protocol": []}
    bounds = block_bounds(rows, block_rows)
    with tempfile.TemporaryDirectory() as folder, cluster(ComputeConfig(), console.verbose):
        blocks = _write_blocks(Path(folder), bounds, depth)
        for number in range(rounds + 1):
            plain = partial(write_tables, blocks, root.path(f"plain/{secrets.token_hex(4)}"))
            ours = partial(_write_run, root, blocks, rows, block_rows)
            for name, write in (("plain", plain), ("protocol", ours)):
                took = _timed(write)
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


def resume(config_file: Path, overrides: list[str], done: float, console: Console) -> None:
    """Run a job, then the same run again with a share of it done, each in a process of its own."""
    config = load_config(config_file, overrides)
    root = open_root(config.root)
    name = f"bench-{secrets.token_hex(3)}"
    settings = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "jobs", "rerank", str(config_file), *settings]

    def job(*arguments: str) -> None:
        finished = subprocess.run(
            [*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
        )
        if finished.returncode:
            raise ComputeError(f"the job failed: {finished.stderr.decode()[-2000:]}")

    console.note("the whole run")
    full = _timed(lambda: job("--run-id", f"{name}-full"))
    whole = Run.open(root, f"{name}-full")
    commits = whole.commits([CommitName.parse(text) for text in whole.finished()["commits"]])
    kept = commits[: int(len(commits) * done)]
    _copy_part(root, whole, f"{name}-part", kept)
    console.note(f"the same run with {len(kept)} of {len(commits)} blocks done")
    again = _timed(lambda: job("--resume", f"{name}-part"))
    summary = {
        "config": str(config_file),
        "blocks": len(commits),
        "blocks_done": len(kept),
        "full_seconds": full,
        "resume_seconds": again,
        "share": again / full,
    }
    facts = {
        "whole run": f"{full:.1f} s for {len(commits)} blocks",
        "resumed": f"{again:.1f} s with {len(kept)} of {len(commits)} blocks done",
        "share": f"{again / full:.1%} of the whole run",
    }
    console.result(summary, facts_table("Resume", facts))


def cache(pairs: int, hits: float, windows: int, console: Console) -> None:
    """Make a file of so many cached scores and look windows of 256 queries up in it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scores.arrow"
        began = time.perf_counter()
        make_segment(file, pairs)
        console.note(f"{pairs:,} pairs written in {time.perf_counter() - began:.0f} s")
        found = measure_lookups(file, pairs, hits, windows)
    summary = {"pairs": pairs, "hits": hits, "windows": windows, **found}
    facts = {
        "file": f"{pairs:,} pairs, {found['bytes_per_pair']:.1f} bytes each",
        "look-ups": f"{found['pairs_per_second']:,.0f} pairs/s in one thread "
        f"({found['slowest']:,.0f} to {found['fastest']:,.0f}), {hits:.0%} of them found",
        "opened in": f"{found['open_seconds']:.3f} s",
        "memory": f"{found['own_bytes'] / 1e6:.1f} MB of its own, "
        f"{found['mapped_bytes'] / 1e6:.1f} MB mapped",
    }
    console.result(summary, facts_table("Score cache", facts))


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


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


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
        {"doc_id": f"document-{rng.integers(1_000_000):07d}", "retrieval_score": s, "score": s}
        for s in scores
    ]
    results = [
        {
            "doc_id": hit["doc_id"],
            "rank": rank,
            "score": hit["score"],
            "retrieval_rank": rank,
            "retrieval_score": hit["score"],
        }
        for rank, hit in enumerate(candidates[:10], start=1)
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
    spec = {
        "job": "benchmark",
        "created": datetime.now(UTC).isoformat(),
        "made_of": {},
        "planned": rows,
        "block_rows": block_rows,
        "fingerprint": "",
        "blocks": len(blocks),
    }
    run = Run.create(root, f"benchmark-{secrets.token_hex(4)}", spec)
    run.claim()
    with run.lease(seconds=20):
        for _ in commit_tables(blocks, run.writer()):
            pass
        run.finish({"queries": rows, "rejects": {}})
    run.publish()


def _copy_part(root: Root, whole: Run, run_id: str, kept: list[Commit]) -> None:
    """The run under another id as if its driver had died after ``kept``."""
    prefix = f"runs/{whole.run_id}/"
    files = {file.key for commit in kept for file in commit.files}
    files |= {commit.name.key for commit in kept}
    for key in root.sizes(prefix):
        name = key.removeprefix(prefix)
        folder = name.partition("/")[0]
        if folder in ("spec.json", "plan", "epochs") or name in files or "plan" in name:
            raw = root.read(key) or b""
            with tempfile.TemporaryDirectory() as local:
                file = Path(local) / "object"
                file.write_bytes(raw)
                root.publish(f"runs/{run_id}/{name}", file)
