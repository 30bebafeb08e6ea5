"""What an update of the index costs beside a full build, when a small part of a corpus changes."""

import json
import subprocess
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from jobs.console import Console
from jobs.tables.facts import facts_table
from rerank_batch.benchmarks.command import command_line
from rerank_batch.benchmarks.synthetic_runs import texts
from rerank_batch.config import Config
from rerank_batch.errors import ComputeError

_PARTS = ("read", "encode", "bm25", "total")


def update(config: Config, documents: int, share: float, console: Console) -> None:
    """Build the index of made-up documents, change a share of them (a third added, a third
    changed, a third deleted), and time an update and a full build of what that leaves."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rng = np.random.default_rng(0)
        corpus = dict(zip(_ids("d", documents), texts(rng, documents), strict=True))
        updated, whole = _settings(config, folder, "updated"), _settings(config, folder, "whole")
        console.note(f"building the index of {documents:,} made-up documents")
        _write(folder, corpus)
        _build(updated)
        _change(corpus, max(1, round(documents * share / 3)), rng)
        _write(folder, corpus)
        console.note("updating it")
        update_seconds, after = _build(updated)
        console.note("building it in full")
        full_seconds, fresh = _build(whole)
    summary = {
        "documents": documents,
        "share": share,
        "kind": config.index.kind,
        "changes": after["changes"],
        "update": {"command": round(update_seconds, 2), **after["seconds"]},
        "full": {"command": round(full_seconds, 2), **fresh["seconds"]},
        "ratio": after["seconds"]["total"] / fresh["seconds"]["total"],
        "ratio_of_commands": update_seconds / full_seconds,
    }
    lines = {
        kind: f"{seconds['command']:.1f} s from the command to its end, of it "
        + ", ".join(f"{part} {seconds[part]:.1f}" for part in _PARTS)
        for kind, seconds in (("update", summary["update"]), ("full build", summary["full"]))
    }
    changes = ", ".join(f"{count:,} {what}" for what, count in after["changes"].items())
    facts = {
        "changes": changes,
        **lines,
        "ratio": f"{summary['ratio']:.2%} of the full build's time",
    }
    console.result(summary, facts_table(f"Update of {documents:,} documents", facts))


def _ids(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number:08d}" for number in range(count)]


def _change(corpus: dict[str, str], each: int, rng: np.random.Generator) -> None:
    """``each`` documents deleted, as many with another text, as many that are new, all over."""
    chosen = rng.permutation(sorted(corpus))[: 2 * each].tolist()
    for doc_id in chosen[:each]:
        del corpus[doc_id]
    corpus |= dict(zip(chosen[each:], texts(rng, len(chosen) - each), strict=True))
    corpus |= dict(zip(_ids("n", each), texts(rng, each), strict=True))


def _write(folder: Path, corpus: dict[str, str]) -> None:
    columns = {"doc_id": list(corpus), "text": list(corpus.values())}
    pq.write_table(pa.table(columns), folder / "corpus.parquet")


def _settings(config: Config, folder: Path, name: str) -> Path:
    raw = config.model_dump(mode="json")
    raw |= {"root": str(folder / "runs"), "collection": None}
    raw["corpus"] = {"path": str(folder / "corpus.parquet")}
    raw["index"]["path"] = str(folder / name)
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return file


def _build(config: Path) -> tuple[float, Any]:
    command = command_line("build-index", str(config), "--json")
    began = perf_counter()
    finished = subprocess.run(command, capture_output=True, check=False)
    if finished.returncode:
        raise ComputeError(f"build-index failed: {finished.stderr.decode()[-2000:]}")
    return perf_counter() - began, json.loads(finished.stdout)
