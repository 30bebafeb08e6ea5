"""Look-ups in a file of cached scores."""

import tempfile
import time
from pathlib import Path

from jobs.console import Console
from jobs.tables.facts import facts_table
from rerank_batch.score_cache.measure import make_segment, measure_lookups


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
