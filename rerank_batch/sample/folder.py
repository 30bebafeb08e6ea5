"""The sample as a folder: corpus, query log by day, judgements, clicks, and a README.

The README has the versions of the packages. The clicks are simulated; see `clicks`.

A folder that is not a sample is never touched, and an old sample is replaced only by a whole one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rerank_batch.errors import InputError
from rerank_batch.sample.clicks import simulate_clicks
from rerank_batch.sample.document import Document
from rerank_batch.sample.query_log import (
    DAYS,
    LogRow,
    Query,
    choose_documents,
    choose_queries,
    log_table,
    write_log,
)

CORPUS = "corpus.parquet"
QUERY_LOG = "query_log"
QRELS = "qrels.parquet"
CLICKS = "clicks.parquet"
README = "README.txt"
TITLE = "A rerank_batch sample: API documentation as a test collection"

HARVESTER = "rerank_batch.sample.docstrings"

_QRELS_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("relevance", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class SampleSummary:
    """What was written, in numbers."""

    documents: int
    queries: int
    test_queries: int
    log_rows: int
    dirty_rows: dict[str, int]
    judgements: int
    click_rows: int
    days: int
    seconds: float
    packages: dict[str, str]
    skipped_modules: int


def write_sample(
    out: Path,
    *,
    docs: int = 1500,
    queries: int = 400,
    seed: int = 0,
    test_share: float = 0.5,
    harvest: pa.Table | None = None,
) -> SampleSummary:
    """Write a sample into the folder `out`; 0 documents or queries means all there are.

    `harvest` saves the harvest (about half a minute) when several samples are cut from one.
    """
    started = time.monotonic()
    out = Path(out).resolve()
    _check_arguments(docs, queries, test_share)
    _check_replaceable(out)
    table = harvest_docstrings() if harvest is None else harvest
    notes = {key.decode(): json.loads(value) for key, value in table.schema.metadata.items()}
    documents = [Document(**row) for row in table.to_pylist()]

    asked = choose_queries(documents, queries, seed, test_share)
    kept = choose_documents(documents, asked, docs, seed)
    log, dirty = write_log(asked, seed)
    judgements = _qrels(asked)
    clicks = simulate_clicks(asked, [document.doc_id for document in kept], seed)

    fresh = _sibling(out, "new")
    try:
        pq.write_table(_corpus(kept), fresh / CORPUS)
        pq.write_table(judgements, fresh / QRELS)
        pq.write_table(clicks, fresh / CLICKS)
        _write_days(fresh / QUERY_LOG, log)
        readme = _readme(notes["versions"], notes["skipped"])
        (fresh / README).write_text(readme, encoding="utf-8")
        _swap(fresh, out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return SampleSummary(
        documents=len(kept),
        queries=len(asked),
        test_queries=sum(query.split == "test" for query in asked),
        log_rows=len(log),
        dirty_rows=dirty,
        judgements=judgements.num_rows,
        click_rows=clicks.num_rows,
        days=len(DAYS),
        seconds=round(time.monotonic() - started, 3),
        packages=notes["versions"],
        skipped_modules=len(notes["skipped"]),
    )


def harvest_docstrings(sources: Sequence[str] = ()) -> pa.Table:
    """Harvest in a fresh process, so that a thousand imports leave no trace in this one.

    No sources means all of them.
    """
    here = str(Path(__file__).resolve().parents[2])
    search_path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "harvest.parquet"
        child = subprocess.run(
            [sys.executable, "-m", HARVESTER, str(path), *sources],
            cwd=scratch,  # -m puts it first on sys.path: nothing in it may hide a module
            env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": search_path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if child.returncode != 0:
            last = child.stderr.strip().splitlines()[-1:] or ["no message"]
            raise InputError(
                f"the harvest of docstrings failed with status {child.returncode}: {last[0]}; "
                f"run `python -m {HARVESTER} harvest.parquet` to see all of it"
            )
        return pq.read_table(path)


def _check_arguments(docs: int, queries: int, test_share: float) -> None:
    for name, count in (("docs", docs), ("queries", queries)):
        if count < 0:
            raise InputError(f"{name}={count}: give a positive number, or 0 for all there are")
    if not 0 <= test_share <= 1:
        raise InputError(f"test_share={test_share}: give a share between 0 and 1")


def _check_replaceable(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out} is a file: name a folder for the sample")
    entries = {entry.name for entry in out.iterdir()}
    parts = {CORPUS, QUERY_LOG, QRELS, README}
    without_clicks = entries - {CLICKS}  # as samples were once
    if not entries or (without_clicks == parts and _is_sample(out)):
        return
    raise InputError(
        f"{out} is not empty and holds something else than a sample "
        f"({', '.join(sorted(entries)[:4])}): name a new or empty folder, or remove it yourself"
    )


def _is_sample(out: Path) -> bool:
    return (out / README).read_text(encoding="utf-8", errors="replace").startswith(TITLE)


def _sibling(out: Path, role: str) -> Path:
    """A new empty folder beside `out`: on the same file system, so that a rename is one step."""
    out.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1000):
        folder = out.with_name(f".{out.name}.{role}-{os.getpid()}-{attempt}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise InputError(f"{out.parent} is full of unfinished samples: remove .{out.name}.{role}-*")


def _swap(fresh: Path, out: Path) -> None:
    if not out.exists():
        fresh.rename(out)
        return
    old = _sibling(out, "old")
    out.rename(old)  # over the empty folder
    try:
        fresh.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old)


def _corpus(documents: Sequence[Document]) -> pa.Table:
    return pa.table(
        {
            "doc_id": pa.array([document.doc_id for document in documents], pa.string()),
            "title": pa.array([document.kind for document in documents], pa.string()),
            "text": pa.array([document.text for document in documents], pa.string()),
        }
    )


def _qrels(queries: Sequence[Query]) -> pa.Table:
    rows = [
        {"query_id": query.query_id, "doc_id": doc_id, "relevance": 1, "split": query.split}
        for query in queries
        for doc_id in query.relevant
    ]
    return pa.Table.from_pylist(rows, schema=_QRELS_SCHEMA)


def _write_days(folder: Path, log: Sequence[LogRow]) -> None:
    for day in DAYS:
        part = folder / f"date={day.date().isoformat()}"
        part.mkdir(parents=True)
        rows = [row for row in log if row.ts.date() == day.date()]
        pq.write_table(log_table(rows), part / "part-0.parquet")


def _readme(versions: Mapping[str, str], skipped: Mapping[str, str]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"""{TITLE}

Documents are docstrings without their first paragraph, queries are those paragraphs, and a query's
relevant documents are the objects whose docstrings begin with it. The query log repeats the
queries as people would type them and holds broken rows on purpose: null, empty, blank, over-long,
not UTF-8, without an id. The split column of {QRELS} never has one text on both sides.
{CLICKS} is simulated: nobody clicked, a position-based model of users did (looked at with
probability 1/position), from the same relevant documents with noise.

Read from: {packages}. Modules that could not be imported: {len(skipped)}.

The texts belong to the projects they come from and stay under those projects' licences.
"""
