"""How fast labels are mined, and in how much memory: a made-up run, mined by the command."""

import json
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import yaml

from jobs.console import Console
from jobs.tables.facts import facts_table
from rerank_batch.benchmarks.command import command_line
from rerank_batch.benchmarks.synthetic_runs import write_run
from rerank_batch.errors import ComputeError, ConfigError


def labels(documents: int, queries: int, candidates: int, console: Console) -> None:
    """Make the run up, mine it in a process of its own, tell rows a second and peak memory."""
    if candidates > documents:
        raise ConfigError(f"{candidates} candidates a query take more than {documents} documents")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        console.note(f"making up {queries:,} queries of {candidates} candidates each")
        config = write_run(folder, documents, queries, candidates)
        file = folder / "config.yaml"
        file.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
        console.note("mining them")
        began = perf_counter()
        out = str(folder / "labels")
        card = _mine(str(file), "--out", out, "--set", "labels.formats=[margin-mse]")
        took = perf_counter() - began
    rows, mining = sum(card["rows"].values()), card["rows_per_second"]
    summary = {
        "documents": documents,
        "queries": queries,
        "candidates": candidates,
        "rows": rows,
        "seconds": took,
        "rows_per_second": rows / took,
        "rows_per_second_mining": mining,
        "looked_at": card["looked_at"],
        "peak_memory_gb": card["peak_memory_gb"],
        "leak_check": card["leak_check"]["passed"],
    }
    facts = {
        "rows": f"{rows:,} of {queries:,} queries, {card['looked_at']:,} documents looked at",
        "time": f"{took:.1f} s from the command to the dataset, {rows / took:,.0f} rows/s",
        "mining": f"{card['seconds']['execute']:.1f} s of it, {mining:,.0f} rows/s",
        "peak memory": f"{card['peak_memory_gb']} GiB, all processes",
    }
    console.result(summary, facts_table("Labels", facts))


def _mine(*arguments: str) -> Any:
    command = command_line("make-labels", *arguments, "--json")
    finished = subprocess.run(command, capture_output=True, check=False)
    if finished.returncode:
        raise ComputeError(f"make-labels failed: {finished.stderr.decode()[-2000:]}")
    return json.loads(finished.stdout)
