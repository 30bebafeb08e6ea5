"""Finished runs that `evaluate` can read, without anything having been run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from typer.testing import CliRunner, Result

from jobs.__main__ import app
from rerank_batch.config import Config
from rerank_batch.evaluation.judged import RERANKED, RETRIEVAL, JudgedQuery, RankedDocuments
from rerank_batch.runs import Run
from rerank_batch.storage import open_root
from tests.support.helpers import reject_table, result_row, result_table, spec

DEPTH = 12

Row = dict[str, Any]


def row(number: int, relevant_at: int, reranked_to: int) -> Row:
    """A query with `DEPTH` candidates of which d01 is relevant, at a place before and after."""
    places = [place for place in range(1, DEPTH + 1) if place != relevant_at]
    after = [place for place in range(1, DEPTH + 1) if place != reranked_to]
    candidates = [("d01", -float(relevant_at), -float(reranked_to))]
    candidates += [
        (f"d{other + 2:02d}", -float(places[other]), -float(after[other]))
        for other in range(DEPTH - 1)
    ]
    return result_row(number, candidates, [f"q{number}"])


def judged_query(row: Row, grades: dict[str, int]) -> JudgedQuery:
    """The row as it is read, with its judgements."""
    before = row["candidates"]
    after = sorted(before, key=lambda hit: hit["rank"])
    retrieval, reranked = (
        RankedDocuments(
            [hit["doc_id"] for hit in hits], np.array([hit[name] for hit in hits], "f4")
        )
        for hits, name in ((before, "retrieval_score"), (after, "score"))
    )
    return JudgedQuery(
        query_id=row["query_id"],
        query_ids=row["query_ids"],
        text=row["query"],
        weight=row["weight"],
        grades=grades,
        lists={RETRIEVAL: retrieval, RERANKED: reranked},
        retrieved={RETRIEVAL: retrieval, RERANKED: retrieval},
    )


def gated(row: Row) -> Row:
    """The query as it is written when no reranker read it."""
    listed = [
        {**hit, "rank": place, "score": None}
        for place, hit in enumerate(row["candidates"], start=1)
    ]
    return {**row, "candidates": listed}


def write_run(root: Path, rows: list[Row], run_id: str = "one", reranker: Row | None = None) -> Run:
    """A finished run of one block."""
    model = reranker or {"model": "cross-encoder:x", "stages": [], "depth": None, "method": "grade"}
    config = {
        "reranker": model,
        "retrieval": {"depth": DEPTH},
        "index": {"encoder": "x:y", "kind": "Flat", "shards": 1},
    }
    what = spec(planned=len(rows), block_rows=len(rows))
    what = replace(what, config=config, fingerprint="f")
    run = Run.create(open_root(str(root)), run_id, what)
    run.claim()
    run.writer().write(0, len(rows), result_table(rows), reject_table(), {}, {}, {})
    totals = {"queries": len(rows), "rejects": {}, "pairs": 0, "seconds": {}, "fingerprint": "f"}
    run.finish(totals)
    return run


def write_config(folder: Path, rows: list[Row]) -> Path:
    """A configuration with judgements: d01 is relevant for every query."""
    (folder / "qrels.tsv").write_text("".join(f"{row['query_id']}\td01\t1\n" for row in rows))
    config = {
        "root": str(folder / "runs"),
        "job": "nightly",
        "corpus": {"path": "corpus.parquet"},
        "qrels": {"path": str(folder / "qrels.tsv")},
        "index": {"path": "index", "encoder": "sentence-transformers:x"},
        "evaluation": {"measures": ["nDCG@10", "RR@10"]},
    }
    Config.model_validate(config)
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def evaluate(config: Path, *options: str) -> Result:
    """`rerank-batch evaluate CONFIG …`."""
    return CliRunner().invoke(app, ["evaluate", str(config), *options])
