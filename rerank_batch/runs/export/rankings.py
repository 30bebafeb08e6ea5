"""A finished run in the forms that other tools read: TREC run files, jsonl, pairs as Parquet.

The retrieval run is exported at full depth, the reranked run at the top-k that was asked for, the
systems of a comparison at full depth.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq

from rerank_batch import schema
from rerank_batch.data.trec import run_lines
from rerank_batch.errors import ConfigError, RunConflict
from rerank_batch.runs import Run
from rerank_batch.runs.export.pairs import write_pairs
from rerank_batch.schema import TableRow
from rerank_batch.storage import open_file

Format = Literal["trec", "jsonl", "pairs"]


def export_run(run: Run, format: Format, system: str, out: Path) -> int:
    """Write one system's rankings to ``out`` and return the number of rows.

    ``trec`` writes a line per query id and document; a query that stands for several ids is written
    under each, so that judgements under any of them find it. Its score column is minus the rank,
    because TREC tools sort by score and break ties by rules of their own; the scores are in the
    other formats. ``jsonl`` writes a line per query, ``pairs`` a Parquet row per pair.

    Raises:
        RunConflict: the run is not finished, or holds labels.
        ConfigError: it holds no such system.
        InputError: an id with white space cannot stand in a TREC file.
    """
    paths = run.results_paths()
    if "labels" in run.finished():
        raise RunConflict(f"run {run.run_id} holds labels, no rankings; see make-labels --out")
    systems = run.spec.systems or schema.SYSTEMS
    if system not in systems:
        raise ConfigError(
            f"run {run.run_id} holds no system {system!r}; it has {', '.join(systems)}"
        )
    rows = _placed_rows(paths, system) if run.spec.systems else _rows(paths, system)
    out.parent.mkdir(parents=True, exist_ok=True)
    staged = out.with_name(f".{out.name}.part")
    try:
        if format == "pairs":
            count = write_pairs(rows, staged)
        elif format == "trec":
            count = _write_lines(_trec_lines(rows, f"{run.run_id}-{system}"), staged)
        else:
            count = _write_lines(_json_lines(rows), staged)
        staged.replace(out)
    finally:
        staged.unlink(missing_ok=True)
    return count


def _write_lines(lines: Iterator[str], out: Path) -> int:
    count = 0
    with out.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(line + "\n")
            count += 1
    return count


def _rows(paths: list[str], system: str) -> Iterator[TableRow]:
    """Queries with their ``ranking`` [{doc_id, rank, score}], block by block."""
    columns = ["query_id", "query_ids", "query", "weight", "results", "candidates"]
    for path in paths:
        for batch in pq.ParquetFile(open_file(path)).iter_batches(batch_size=1024, columns=columns):
            for row in batch.to_pylist():
                results, candidates = row.pop("results"), row.pop("candidates")
                if system == "reranked":
                    keys = ("doc_id", "rank", "score")
                    row["ranking"] = [{key: hit[key] for key in keys} for hit in results]
                else:
                    row["ranking"] = [
                        {"doc_id": hit["doc_id"], "rank": rank, "score": hit["retrieval_score"]}
                        for rank, hit in enumerate(candidates, start=1)
                    ]
                yield row


def _placed_rows(paths: list[str], system: str) -> Iterator[TableRow]:
    """The same of one system of a comparison."""
    columns = ["query_id", "query_ids", "query", "weight", "candidates", "systems"]
    for path in paths:
        for batch in pq.ParquetFile(open_file(path)).iter_batches(batch_size=1024, columns=columns):
            for row in batch.to_pylist():
                listed, ids = row.pop("systems")[system], row.pop("candidates")
                hits = zip(listed["places"], listed["scores"], strict=True)
                row["ranking"] = [
                    {"doc_id": ids[place], "rank": rank, "score": score}
                    for rank, (place, score) in enumerate(hits, start=1)
                ]
                yield row


def _trec_lines(rows: Iterator[TableRow], tag: str) -> Iterator[str]:
    for row in rows:
        ranking = [(hit["doc_id"], hit["rank"]) for hit in row["ranking"]]
        for query_id in row["query_ids"]:
            yield from run_lines(query_id, ranking, tag)


def _json_lines(rows: Iterator[TableRow]) -> Iterator[str]:
    for row in rows:
        yield json.dumps(row, ensure_ascii=False)
