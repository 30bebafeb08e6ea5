"""Evaluate: run the judged queries (or take a finished run), compare, write metrics and report."""

import json
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from jobs import acceptance, insights, outcomes
from jobs.acceptance import Asked
from jobs.console import Console, facts_table
from jobs.labels import JUDGEMENTS, Labels, label_path, read_labels
from jobs.report_sections import (
    cost_summary,
    gate_signals,
    gate_study,
    gate_summary,
    scores_summary,
)
from jobs.rerank import Start, rerank
from jobs.scores import scores_line
from jobs.segments import check as check_segments
from jobs.segments import segment_parts, segment_summary, segments_of
from jobs.systems import descriptions, external_lists, with_missing
from rerank_batch.config import Config
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.evaluation.comparison import Comparison
from rerank_batch.evaluation.cost_table import CostTable, cost_table
from rerank_batch.evaluation.findings import (
    Findings,
    Part,
    Questions,
    conclude,
    find,
    find_in_file,
    join,
)
from rerank_batch.evaluation.gate_curve import GateStudy
from rerank_batch.evaluation.judged import RERANKED, RETRIEVAL, Lists, judged_blocks
from rerank_batch.evaluation.markdown import markdown
from rerank_batch.evaluation.measures import parse_measures
from rerank_batch.evaluation.report import MeasureRow, QueryGain, Report, p_text, render
from rerank_batch.evaluation.segments import SegmentStudy
from rerank_batch.evaluation.significance import paired_tests
from rerank_batch.pipeline import cluster, map_files
from rerank_batch.qrels import CompactQrels, Qrels
from rerank_batch.run import Run, latest_run, publish_parquet
from rerank_batch.storage import Root, open_root

_MANY = 20_000
"""Queries of a run from which on a cluster reads it faster than this process."""


@dataclass(frozen=True)
class Evaluated:
    """A finished run, the judgements, what these say of it, and what its systems are.

    ``missing`` says of systems whose lists were read for how many queries they have none.
    """

    run: Run
    labels: Labels
    findings: Findings
    described: Mapping[str, str]
    missing: Mapping[str, int]
    external: Mapping[str, Lists]

    @property
    def comparison(self) -> Comparison:
        """The values of every query."""
        return self.findings.comparison

    @property
    def qrels(self) -> Qrels:
        """The grades."""
        return self.labels.qrels


def evaluate(
    config: Config,
    console: Console,
    start: Start | None = None,
    from_run: str | None = None,
    asked: Asked | None = None,
) -> dict[str, Any]:
    """Compare systems on judged queries; write metrics.json, Parquet beside it and report.html.

    The systems are those of ``evaluation.systems``, or retrieval and reranked where there are none.
    ``from_run`` names a finished run ('latest' for the job's newest); without it the judged queries
    are run now, and latest.json is left alone. What is ``asked`` of the run is checked and told;
    `acceptance.judge` fails on it.
    """
    asked = asked or Asked()
    limits, other = acceptance.prepare(asked, config)
    prepared = outcomes.prepare_outcomes(config)
    evaluated = evaluated_run(config, console, start, from_run)
    run, comparison, findings = evaluated.run, evaluated.comparison, evaluated.findings
    theirs = None
    if other is not None:
        found = findings_of(other, evaluated.qrels, config, {}, console)
        theirs = (other.run_id, found.comparison)
    checks = acceptance.check(run.run_id, comparison, limits, asked.margin, theirs)
    best = comparison.best
    depth = findings.depths.get(best) or insights.why_no_depth(run, best)
    blocks = judged_blocks(run.results_paths(), evaluated.qrels, evaluated.external)
    became = outcomes.study(config, run, prepared, comparison, blocks, console)
    root, final = run.root, run.finished()
    rows = measure_rows(comparison)
    sections = _sections(evaluated, config)
    summary = {
        **{key: final.get(key) for key in _FROM_FINAL},
        "root": config.root,
        "judged": comparison.queries,
        "systems": dict(evaluated.described),
        "missing": dict(evaluated.missing),
        "best": best,
        "metrics": comparison.means(),
        "comparison": [as_json(row) for row in rows],
        "depth": insights.depth_summary(depth),
        "failures": insights.failures_summary(findings.failures[best]),
        "outcomes": outcomes.outcomes_summary(became),
        "checks": [vars(check) for check in checks],
        "segments": segment_summary(sections.segments),
        "scores": scores_summary(findings.scores),
        "gate": gate_summary(sections.gate),
        "costs": cost_summary(sections.costs),
        "labels": evaluated.labels.words,
        "clicks": clicks.as_json() if (clicks := evaluated.labels.clicks) else None,
    }
    prefix = f"runs/{run.run_id}/"
    for system, study in findings.depths.items():
        if not study.table.num_rows:
            continue  # too many queries to keep each at every depth
        name = "depth" if len(findings.depths) == 1 else f"depth-{_file_name(system)}"
        publish_parquet(root, prefix, f"report/{name}.parquet", study.table)
    publish_parquet(root, prefix, "report/metrics.parquet", comparison.tables())
    _publish_text(root, f"{prefix}report/metrics.json", json.dumps(summary, indent=1))
    report = replace(
        _report(evaluated, rows),
        depth=depth,
        failures=findings.failures[best],
        segments=sections.segments,
        scores=findings.scores,
        gate=sections.gate,
        costs=sections.costs,
        outcomes=became,
    )
    _publish_text(root, f"{prefix}report/report.html", render(report))
    if asked.markdown is not None:
        against = evaluated.labels.words if evaluated.labels.clicks else ""
        cells = headline_cells(summary)
        text = markdown(run.run_id, comparison.queries, cells, depth, checks, against)
        acceptance.write_markdown(asked.markdown, text)
    return {**summary, "report": root.path(f"{prefix}report/report.html")}


def evaluated_run(
    config: Config, console: Console, start: Start | None = None, from_run: str | None = None
) -> Evaluated:
    """A run, the judgements, and what they say of its systems; see `evaluate`.

    Raises:
        ConfigError: there are no judgements, or the run does not hold what is to be compared.
        InputError: none of them is of a query of the run.
    """
    if label_path(config) is None:
        raise ConfigError("evaluate needs qrels.path: without judgements nothing can be measured")
    parse_measures(config.evaluation.measures)
    check_segments(config)
    root = open_root(config.root)
    if from_run is None:
        several = bool(config.evaluation.systems)
        done = rerank(config, console, start, judged_only=True, publish=False, compare=several)
        run = Run.open(root, done["run_id"])
    else:
        run = latest_run(root, config.job) if from_run == "latest" else Run.open(root, from_run)
    final = run.finished()
    labels = read_labels(config)
    assert labels is not None
    external: dict[str, Lists] = {}
    if run.spec.get("systems"):
        external = external_lists(config, labels.qrels)
    findings = findings_of(run, labels.qrels, config, external, console)
    if not findings.comparison.queries:
        raise InputError(
            f"none of the {final['queries']:,} queries of run {run.run_id} is judged in "
            f"{label_path(config)}; query ids of log and judgements must match"
        )
    comparison = findings.comparison
    described = descriptions(config) if external or run.spec.get("systems") else {}
    return Evaluated(
        run=run,
        labels=labels,
        findings=findings,
        described={name: described.get(name, "") for name in comparison.systems},
        missing=with_missing(external, comparison.query_ids),
        external=external,
    )


def findings_of(
    run: Run,
    qrels: Qrels,
    config: Config,
    external: Mapping[str, Lists],
    console: Console,
) -> Findings:
    """What every judged query of a finished run says, rejected ones too.

    A large run is read by all workers of the cluster, file by file: what comes back are values,
    sums and a few cases, so that no process holds its lists.
    """
    paths, several = run.results_paths(), bool(run.spec.get("systems"))
    questions = Questions(
        measures=config.evaluation.measures,
        systems=_systems(run, config, external),
        depths=insights.depths_of(run),
        scored=insights.of_one_model(run),
        signals={} if several else gate_signals(config.reranker.gate if config.reranker else None),
        rejected=frozenset(run.rejects().column("query_id").to_pylist()) & frozenset(qrels),
        large=run.finished()["queries"] > _MANY,
    )
    if external:
        return conclude(find(paths, qrels, questions, external), questions)
    return measure_run(run, qrels, config, questions, console)


def measure_run(
    run: Run, qrels: Qrels, config: Config, questions: Questions, console: Console
) -> Findings:
    """Read a finished run, on the cluster where it is large."""
    paths = run.results_paths()
    if run.finished()["queries"] <= _MANY:
        return conclude(find(paths, qrels, questions), questions)
    parts: list[Part | None] = [None] * len(paths)
    done = 0
    with (
        cluster(config.compute, console.verbose),
        console.progress("files", len(paths), lambda: done),
        closing(map_files(paths, find_in_file, CompactQrels(qrels), questions)) as found,
    ):
        for number, part in found:
            parts[number] = part
            done += 1
    return conclude(join((part for part in parts if part), questions), questions)


def _systems(run: Run, config: Config, external: Mapping[str, Lists]) -> tuple[str, ...]:
    """The systems of a run that are to be compared, the baseline first."""
    there = run.spec.get("systems") or []
    if not there:
        return (RETRIEVAL, RERANKED)
    asked = list(config.evaluation.systems) or there
    if missing := [name for name in asked if name not in there and name not in external]:
        raise ConfigError(
            f"run {run.run_id} does not hold the systems {', '.join(missing)} (it has "
            f"{', '.join(there)}); evaluate without --run: only what is new is scored"
        )
    return tuple(asked)


def measure_rows(comparison: Comparison) -> tuple[MeasureRow, ...]:
    """What the tests say of every system beside the baseline, in every measure."""
    means = comparison.means()
    pairs = [(system, name) for system in comparison.others for name in comparison.measures]
    tests = paired_tests({pair: comparison.gains(*pair).tolist() for pair in pairs})
    return tuple(
        MeasureRow(
            measure=name,
            before=means[comparison.baseline][name],
            after=means[system][name],
            test=test,
            system=system,
        )
        for (system, name), test in tests.items()
    )


def show(summary: dict[str, Any], console: Console) -> None:
    """Print the comparison, what it cannot decide, and where the report is."""
    title = f"{summary['judged']:,} judged queries"
    table = Table(title=title, title_justify="left", pad_edge=False)
    (first, *others), *rows = headline_cells(summary)
    table.add_column(first)
    for column in others:
        table.add_column(column, justify="right")
    several = len(summary["metrics"]) > 2
    for number, row in enumerate(rows):
        last_of_system = number + 1 < len(rows) and rows[number + 1][0] != ""
        table.add_row(*row, end_section=several and last_of_system)
    headline = summary["comparison"][0]["measure"]
    doubts = [
        f"{row['system'] if several else row['measure']}: {row['doubt']}"
        for row in summary["comparison"]
        if row["doubt"] and (not several or row["measure"] == headline)
    ]
    facts = {
        "run": summary["run_id"],
        "pairs": f"{summary['pairs']:,} read"
        + (f"; {scores_line(summary['cache'])}" if summary["cache"] else ""),
        "report": summary["report"],
    }
    about = f" of {summary['best']}, the best by the first measure" if several else ""
    console.result(
        summary,
        *([_systems_table(summary)] if several else []),
        table,
        "p: randomisation test, corrected by Holm over this table. Intervals are not corrected.",
        *([] if summary["labels"] == JUDGEMENTS else [summary["labels"]]),
        *doubts,
        *(
            f"{name} has no list for {count:,} of the queries: they count as 0"
            for name, count in summary["missing"].items()
            if count
        ),
        *insights.depth_parts(summary["depth"], about),
        insights.failures_line(summary["failures"], about),
        *segment_parts(summary["segments"]),
        *outcomes.outcomes_parts(summary["outcomes"]),
        *acceptance.lines(summary["checks"]),
        facts_table("Evaluation", facts),
    )


def headline_cells(summary: dict[str, Any]) -> list[list[str]]:
    """The table of differences as text, its heads first."""
    several = len(summary["metrics"]) > 2
    heads = ["gain", "95 % interval", "better/\nsame/worse", "p", "result"]
    baseline, *names = summary["metrics"]
    first = ["system", "measure", "value"] if several else ["measure", baseline, *names]
    rows = []
    before = ""
    for row in summary["comparison"]:
        value = f"{row['value']:.4f}"
        if several:
            cells = ["" if row["system"] == before else row["system"], row["measure"], value]
        else:
            cells = [row["measure"], f"{row['baseline']:.4f}", value]
        before = row["system"]
        rows.append(
            [
                *cells,
                f"{row['difference']:+.4f}",
                "–" if row["interval"] is None else "{:+.3f} {:+.3f}".format(*row["interval"]),
                f"{row['wins']}/{row['ties']}/{row['losses']}",
                p_text(row["corrected_p_value"]),
                row["outcome"],
            ]
        )
    return [[*first, *heads], *rows]


def as_json(row: MeasureRow) -> dict[str, Any]:
    """A row of metrics.json: the means, everything the test says, the decision and the doubt."""
    values = {
        "system": row.system,
        "measure": row.measure,
        "baseline": row.before,
        "value": row.after,
    }
    return {**values, **vars(row.test), "outcome": row.test.outcome, "doubt": row.test.doubt}


def _systems_table(summary: Mapping[str, Any]) -> Table:
    """Every system with its means: the baseline first."""
    table = Table(title="Systems", title_justify="left", pad_edge=False)
    table.add_column("system")
    for name in next(iter(summary["metrics"].values())):
        table.add_column(name, justify="right")
    table.add_column("what it is")
    for system, means in summary["metrics"].items():
        values = [f"{value:.4f}" for value in means.values()]
        table.add_row(system, *values, summary["systems"].get(system, ""))
    return table


_FROM_FINAL = (
    "run_id",
    "job",
    "queries",
    "rejects",
    "pairs",
    "seconds",
    "fingerprint",
    "cache",
    "cost",
)


def _report(evaluated: Evaluated, rows: tuple[MeasureRow, ...]) -> Report:
    run, comparison = evaluated.run, evaluated.comparison
    final, config = run.finished(), run.spec["config"]
    reranker = config["reranker"] or {"model": "none", "stages": []}
    models = [reranker["model"], *(stage["model"] for stage in reranker["stages"])]
    before, after = (
        comparison.values[system][comparison.headline].tolist()
        for system in (comparison.baseline, comparison.best)
    )
    columns = (comparison.query_ids, comparison.texts, before, after)
    facts = {
        "fingerprint": run.spec["fingerprint"],
        "created": run.spec["created"],
        "encoder": config["index"]["encoder"],
        "index": f"{config['index']['kind']}, {config['index']['shards']} shards",
        "reranker": ", then ".join(model for model in models if model),
        "depth": str(config["retrieval"]["depth"]),
        **run.spec["versions"],
    }
    if run.spec.get("systems"):
        for name in ("encoder", "index", "reranker", "depth"):
            del facts[name]
    return Report(
        title=f"Evaluation of {run.spec['job']}",
        run_id=run.run_id,
        headline=comparison.headline,
        systems=comparison.systems,
        best=comparison.best,
        described=dict(evaluated.described),
        means=comparison.means(),
        missing=dict(evaluated.missing),
        measures=rows,
        gains=tuple(QueryGain(*each) for each in zip(*columns, strict=True)),
        queries=final["queries"],
        judged=comparison.queries,
        pairs=final["pairs"],
        rejects=final["rejects"],
        seconds=final["seconds"],
        facts=facts,
        clicks=evaluated.labels.words if evaluated.labels.clicks else "",
        limits=evaluated.labels.clicks.limits if evaluated.labels.clicks else (),
    )


@dataclass(frozen=True)
class _Sections:
    """The parts of the report that are about one thing each; a sentence says why one is missing."""

    segments: SegmentStudy
    gate: GateStudy | str
    costs: Mapping[str, CostTable | str]


def _sections(evaluated: Evaluated, config: Config) -> _Sections:
    run, comparison = evaluated.run, evaluated.comparison
    final = run.finished()
    gate: GateStudy | str = (
        "it compares several systems: a gate is studied in a run of one reranker"
    )
    if not run.spec.get("systems"):
        own = config.reranker.gate if config.reranker else None
        gate = gate_study(run.spec["config"]["reranker"], own, comparison)
    name = "all systems" if run.spec.get("systems") else comparison.best
    return _Sections(
        segments=segments_of(run, config, comparison),
        gate=gate,
        costs={name: cost_table(final.get("cost"), final["queries"], name)},
    )


def _publish_text(root: Root, key: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "text"
        local.write_text(text, encoding="utf-8")
        root.publish(key, local)


def _file_name(system: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in system).lower()
