"""The scoring engine beside sentence-transformers, in every mode."""

import tempfile
from collections.abc import Callable, Collection
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from jobs.console import Console
from rerank_batch.config import ComputeConfig, Lossy
from rerank_batch.errors import ConfigError, ModelError
from rerank_batch.ray_backend.cluster import cluster
from rerank_batch.ray_backend.peers import map_naively
from rerank_batch.scoring.modes import modes_for

if TYPE_CHECKING:
    from rerank_batch.benchmarks.scoring_speed import Comparison, Workload

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
    from rerank_batch.benchmarks import scoring_speed as peers

    sizes = _among(sizes or ["minilm-l6", "base"], peers.SIZES, "--size")
    mixes = _among(mixes or list(peers.MIXES), peers.MIXES, "--mix")
    results = []
    with (
        tempfile.TemporaryDirectory() as folder,
        cluster(ComputeConfig(cpus=threads), console.verbose, console.note),
    ):
        for size in sizes:
            model = peers.write_model(Path(folder) / size, size)
            for mix in mixes:
                work = peers.workload(mix, max(1, pairs // _DEPTH), _DEPTH)
                note = partial(_note, console, f"{size}, {mix}")
                results.append(_compare(model, size, mix, work, rounds, threads, allow, note))
    tables = [_scoring_table(result) for result in results]
    console.result({"comparisons": [result.to_dict() for result in results]}, *tables)


def ablation(size: str, mix: str, pairs: int, rounds: int, threads: int, console: Console) -> None:
    """The engine in float32, and without each of its techniques, alone."""
    from rerank_batch.benchmarks import ablation as without
    from rerank_batch.benchmarks import scoring_speed as peers
    from rerank_batch.scoring.device import pick_device

    _among([size], peers.SIZES, "--size")
    _among([mix], peers.MIXES, "--mix")
    mode = modes_for("fp32", (), "auto", pick_device())[0]
    with tempfile.TemporaryDirectory() as folder:
        model = peers.write_model(Path(folder) / size, size)
        work = peers.workload(mix, max(1, pairs // _DEPTH), _DEPTH)
        note = partial(_note, console, f"{size}, {mix}")
        systems = without.systems(model, work, mode, threads)
        timings, _ = peers.measure(systems, rounds, threads, note)
    table = Table(
        title=f"{size}, {mix}, {mode}: {len(work.lengths):,} pairs of {work.lengths.mean():.0f} "
        f"tokens, {threads} threads, {rounds} rounds",
        title_justify="left",
    )
    table.add_column("without")
    for column in ("pairs/s", "to all", "range", "largest difference"):
        table.add_column(column, justify="right")
    for timing in timings:
        table.add_row(
            "nothing" if timing.system == without.ALL else timing.system,
            f"{timing.median:.1f}",
            f"{timing.ratio:.2f}",
            f"{timing.ratio_low:.2f}-{timing.ratio_high:.2f}",
            f"{timing.largest_difference:.1e}",
        )
    summary = {
        "size": size,
        "mix": mix,
        "mode": str(mode),
        "pairs": len(work.lengths),
        "rounds": rounds,
        "threads": threads,
        "systems": [asdict(timing) for timing in timings],
    }
    console.result(summary, table)


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
    from rerank_batch.benchmarks import scoring_speed as peers
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
    timings, peaks = peers.measure(systems, rounds, threads, note)
    return peers.Comparison(
        size=size,
        mix=mix,
        pairs=len(work.lengths),
        mean_tokens=float(work.lengths.mean()),
        rounds=rounds,
        threads=threads,
        padding=max(scorer.runtime.budget.padding() for scorer in scorers.values()),
        gemm_peaks=peaks,
        peak_share={
            t.system: peers.peak_share(
                size,
                work.lengths,
                t.median,
                peaks[scorers[t.system].mode.format],
            )
            for t in timings
            if t.system in scorers and scorers[t.system].mode.format in peaks
        },
        timings=timings,
    )


def _predict_in_ray(model: Path, work: "Workload", threads: int) -> tuple[Any, float]:
    """From the first batch's beginning to the last one's end: Ray's start is not counted."""
    from rerank_batch.benchmarks.scoring_speed import PredictActor

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
        + ", ".join(f"{name} peak {peak:,.0f}" for name, peak in result.gemm_peaks.items())
        + " GFLOP/s",
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
