"""Evaluate: run the judged queries (or take a finished run), compare, write metrics and report."""

import json
import tempfile
from pathlib import Path
from typing import Any

from rich.table import Table

from jobs.console import Console, facts_table
from jobs.rerank import Start, rerank
from rerank_batch.config import Config
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.evaluation.comparison import Comparison, compare
from rerank_batch.evaluation.measures import parse_measures
from rerank_batch.evaluation.report import MeasureRow, QueryGain, Report, p_text, render
from rerank_batch.evaluation.significance import paired_tests
from rerank_batch.qrels import read_qrels
from rerank_batch.run import Run, latest_run, publish_parquet
from rerank_batch.storage import Root, open_root


def evaluate(
    config: Config, console: Console, start: Start | None = None, from_run: str | None = None
) -> dict[str, Any]:
    """Compare retrieval and reranked lists and write metrics.json, metrics.parquet, report.html.

    ``from_run`` names a finished run ('latest' for the job's newest); without it the judged queries
    are run now, and latest.json is left alone.
    """
    run, comparison = compared(config, console, start, from_run)
    root, final = run.root, run.finished()
    rows = measure_rows(comparison)
    summary = {
        **{key: final[key] for key in _FROM_FINAL},
        "root": config.root,
        "judged": len(comparison.retrieval),
        "metrics": comparison.means(),
        "comparison": [as_json(row) for row in rows],
    }
    report = _report(run, final, comparison, rows)
    prefix = f"runs/{run.run_id}/"
    publish_parquet(root, prefix, "report/metrics.parquet", comparison.table())
    _publish_text(root, f"{prefix}report/metrics.json", json.dumps(summary, indent=1))
    _publish_text(root, f"{prefix}report/report.html", render(report))
    return {**summary, "report": root.path(f"{prefix}report/report.html")}


def compared(
    config: Config, console: Console, start: Start | None = None, from_run: str | None = None
) -> tuple[Run, Comparison]:
    """The judged queries of a run, measured with and without the reranker; see `evaluate`.

    Raises:
        ConfigError: there are no judgements.
        InputError: none of them is of a query of the run.
    """
    if config.qrels is None:
        raise ConfigError("evaluate needs qrels.path: without judgements nothing can be measured")
    parse_measures(config.evaluation.measures)
    root = open_root(config.root)
    if from_run is None:
        run_id = rerank(config, console, start, judged_only=True, publish=False)["run_id"]
        run = Run.open(root, run_id)
    else:
        run = latest_run(root, config.job) if from_run == "latest" else Run.open(root, from_run)
    final = run.finished()
    qrels = read_qrels(config.qrels)
    rejected = set(run.rejects().column("query_id").to_pylist()) & set(qrels)
    comparison = compare(run.results_paths(), qrels, rejected, config.evaluation.measures)
    if not comparison.retrieval:
        raise InputError(
            f"none of the {final['queries']:,} queries of run {run.run_id} is judged in "
            f"{config.qrels.path}; query ids of log and judgements must match"
        )
    return run, comparison


def measure_rows(comparison: Comparison) -> tuple[MeasureRow, ...]:
    """The headline table: means of every measure, and what a test of their difference says."""
    means = comparison.means()
    tests = paired_tests({name: comparison.gains(name) for name in comparison.measures})
    return tuple(
        MeasureRow(name, means["retrieval"][name], means["reranked"][name], test)
        for name, test in tests.items()
    )


def show(summary: dict[str, Any], console: Console) -> None:
    """Print the comparison, what it cannot decide, and where the report is."""
    title = f"{summary['judged']:,} judged queries"
    table = Table(title=title, title_justify="left", pad_edge=False)
    table.add_column("measure")
    for column in (
        "retrieval",
        "reranked",
        "gain",
        "95 % interval",
        "better/\nsame/worse",
        "p",
        "result",
    ):
        table.add_column(column, justify="right")
    for row in summary["comparison"]:
        table.add_row(
            row["measure"],
            f"{row['retrieval']:.4f}",
            f"{row['reranked']:.4f}",
            f"{row['difference']:+.4f}",
            "–" if row["interval"] is None else "{:+.3f} {:+.3f}".format(*row["interval"]),
            f"{row['wins']}/{row['ties']}/{row['losses']}",
            p_text(row["corrected_p_value"]),
            row["outcome"],
        )
    doubts = [f"{row['measure']}: {row['doubt']}" for row in summary["comparison"] if row["doubt"]]
    facts = {"run": summary["run_id"], "report": summary["report"]}
    console.result(
        summary,
        table,
        "p: randomisation test, corrected by Holm over this table. Intervals are not corrected.",
        *doubts,
        facts_table("Evaluation", facts),
    )


def as_json(row: MeasureRow) -> dict[str, Any]:
    """A row of metrics.json: the means, everything the test says, the decision and the doubt."""
    values = {"measure": row.measure, "retrieval": row.retrieval, "reranked": row.reranked}
    return {**values, **vars(row.test), "outcome": row.test.outcome, "doubt": row.test.doubt}


_FROM_FINAL = ("run_id", "job", "queries", "rejects", "pairs", "seconds", "fingerprint")


def _report(
    run: Run, final: dict[str, Any], comparison: Comparison, rows: tuple[MeasureRow, ...]
) -> Report:
    headline = comparison.measures[0]
    config = run.spec["config"]
    reranker = config["reranker"] or {"model": "none", "stages": []}
    models = [reranker["model"], *(stage["model"] for stage in reranker["stages"])]
    gains = tuple(
        QueryGain(
            query_id=query,
            query=comparison.texts[query],
            retrieval=comparison.retrieval[query][headline],
            reranked=comparison.reranked[query][headline],
        )
        for query in sorted(comparison.retrieval)
    )
    facts = {
        "fingerprint": run.spec["fingerprint"],
        "created": run.spec["created"],
        "encoder": config["index"]["encoder"],
        "index": f"{config['index']['kind']}, {config['index']['shards']} shards",
        "reranker": ", then ".join(model for model in models if model),
        "depth": str(config["retrieval"]["depth"]),
        **run.spec["versions"],
    }
    return Report(
        title=f"Evaluation of {run.spec['job']}",
        run_id=run.run_id,
        headline=headline,
        measures=rows,
        gains=gains,
        queries=final["queries"],
        judged=len(comparison.retrieval),
        pairs=final["pairs"],
        rejects=final["rejects"],
        seconds=final["seconds"],
        facts=facts,
    )


def _publish_text(root: Root, key: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "text"
        local.write_text(text, encoding="utf-8")
        root.publish(key, local)
