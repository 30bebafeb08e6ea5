"""Evaluate: run the judged queries (or take a finished run), compare, write metrics and report."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from jobs import acceptance, insights
from jobs.acceptance import Asked
from jobs.console import Console, facts_table
from jobs.rerank import Start, rerank
from rerank_batch.config import Config
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.evaluation.comparison import Comparison, compare
from rerank_batch.evaluation.depth import DepthStudy
from rerank_batch.evaluation.markdown import markdown
from rerank_batch.evaluation.measures import parse_measures
from rerank_batch.evaluation.report import MeasureRow, QueryGain, Report, p_text, render
from rerank_batch.evaluation.significance import paired_tests
from rerank_batch.qrels import Qrels, read_qrels
from rerank_batch.run import Run, latest_run, publish_parquet
from rerank_batch.storage import Root, open_root


def evaluate(
    config: Config,
    console: Console,
    start: Start | None = None,
    from_run: str | None = None,
    asked: Asked | None = None,
) -> dict[str, Any]:
    """Compare retrieval and reranked lists; write metrics.json, Parquet beside it and report.html.

    ``from_run`` names a finished run ('latest' for the job's newest); without it the judged queries
    are run now, and latest.json is left alone. What is ``asked`` of the run is checked and told;
    `acceptance.judge` fails on it.
    """
    asked = asked or Asked()
    limits, other = acceptance.prepare(asked, config)
    run, qrels, comparison = compared(config, console, start, from_run)
    theirs = (other.run_id, measured(other, qrels, config)) if other else None
    checks = acceptance.check(run.run_id, comparison, limits, asked.margin, theirs)
    depth = insights.study_depth(run, qrels, comparison)
    failures = insights.failures_of(run, qrels, comparison)
    root, final = run.root, run.finished()
    rows = measure_rows(comparison)
    summary = {
        **{key: final[key] for key in _FROM_FINAL},
        "root": config.root,
        "judged": len(comparison.retrieval),
        "metrics": comparison.means(),
        "comparison": [as_json(row) for row in rows],
        "depth": insights.depth_summary(depth),
        "failures": insights.failures_summary(failures),
        "checks": [vars(check) for check in checks],
    }
    report = replace(_report(run, final, comparison, rows), depth=depth, failures=failures)
    prefix = f"runs/{run.run_id}/"
    if isinstance(depth, DepthStudy):
        publish_parquet(root, prefix, "report/depth.parquet", depth.table)
    publish_parquet(root, prefix, "report/metrics.parquet", comparison.table())
    _publish_text(root, f"{prefix}report/metrics.json", json.dumps(summary, indent=1))
    _publish_text(root, f"{prefix}report/report.html", render(report))
    if asked.markdown is not None:
        cells = headline_cells(summary)
        text = markdown(run.run_id, len(comparison.retrieval), cells, depth, checks)
        acceptance.write_markdown(asked.markdown, text)
    return {**summary, "report": root.path(f"{prefix}report/report.html")}


def compared(
    config: Config, console: Console, start: Start | None = None, from_run: str | None = None
) -> tuple[Run, Qrels, Comparison]:
    """A run, the judgements, and what they say with and without the reranker; see `evaluate`.

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
    comparison = measured(run, qrels, config)
    if not comparison.retrieval:
        raise InputError(
            f"none of the {final['queries']:,} queries of run {run.run_id} is judged in "
            f"{config.qrels.path}; query ids of log and judgements must match"
        )
    return run, qrels, comparison


def measured(run: Run, qrels: Qrels, config: Config) -> Comparison:
    """The measures of every judged query of a finished run, rejected ones too."""
    rejected = set(run.rejects().column("query_id").to_pylist()) & set(qrels)
    return compare(run.results_paths(), qrels, rejected, config.evaluation.measures)


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
    (first, *others), *rows = headline_cells(summary)
    table.add_column(first)
    for column in others:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    doubts = [f"{row['measure']}: {row['doubt']}" for row in summary["comparison"] if row["doubt"]]
    facts = {"run": summary["run_id"], "report": summary["report"]}
    console.result(
        summary,
        table,
        "p: randomisation test, corrected by Holm over this table. Intervals are not corrected.",
        *doubts,
        *insights.depth_parts(summary["depth"]),
        insights.failures_line(summary["failures"]),
        *acceptance.lines(summary["checks"]),
        facts_table("Evaluation", facts),
    )


def headline_cells(summary: dict[str, Any]) -> list[list[str]]:
    """The headline table as text, its heads first."""
    heads = [
        "measure",
        "retrieval",
        "reranked",
        "gain",
        "95 % interval",
        "better/\nsame/worse",
        "p",
        "result",
    ]
    rows = [
        [
            row["measure"],
            f"{row['retrieval']:.4f}",
            f"{row['reranked']:.4f}",
            f"{row['difference']:+.4f}",
            "–" if row["interval"] is None else "{:+.3f} {:+.3f}".format(*row["interval"]),
            f"{row['wins']}/{row['ties']}/{row['losses']}",
            p_text(row["corrected_p_value"]),
            row["outcome"],
        ]
        for row in summary["comparison"]
    ]
    return [heads, *rows]


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
