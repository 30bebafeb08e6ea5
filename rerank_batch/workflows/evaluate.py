"""Evaluate: run the judged queries (or take a finished run), compare, write metrics and report."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rerank_batch.config import Config
from rerank_batch.data.outcomes import outcome_remarks
from rerank_batch.evaluation.comparison import Comparison
from rerank_batch.evaluation.cost.study import CostTable, cost_table
from rerank_batch.evaluation.depth.study import DepthStudy
from rerank_batch.evaluation.gate.signals import gate_study
from rerank_batch.evaluation.gate.study import GateStudy
from rerank_batch.evaluation.judged import judged_blocks
from rerank_batch.evaluation.report.headline import as_json, headline_cells
from rerank_batch.evaluation.report.markdown import markdown
from rerank_batch.evaluation.report.page import MeasureRow, QueryGain, Report, render
from rerank_batch.evaluation.scores.study import ScoreStudy
from rerank_batch.evaluation.segments.study import SegmentStudy
from rerank_batch.evaluation.segments.traffic import segments_of
from rerank_batch.evaluation.significance import paired_tests
from rerank_batch.remarks import NotKnown, joined_remarks
from rerank_batch.reporter import Reporter
from rerank_batch.runs import publish_parquet
from rerank_batch.storage import Root
from rerank_batch.workflows import acceptance, outcomes
from rerank_batch.workflows.acceptance import Asked
from rerank_batch.workflows.measured_run import Evaluated, evaluated_run, findings_of, known_ids
from rerank_batch.workflows.run_systems import why_no_depth
from rerank_batch.workflows.start import Start


def evaluate(
    config: Config,
    reporter: Reporter,
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
    evaluated = evaluated_run(config, reporter, start, from_run)
    run, comparison, findings = evaluated.run, evaluated.comparison, evaluated.findings
    theirs = None
    if other is not None:
        found = findings_of(other, evaluated.qrels, config, {}, reporter)
        theirs = (other.run_id, found.comparison)
    checks = acceptance.check(run.run_id, comparison, limits, asked.margin, theirs)
    best = comparison.best
    depth = findings.depths.get(best) or why_no_depth(run, best)
    blocks = judged_blocks(run.results_paths(), evaluated.qrels, evaluated.external)
    became = outcomes.study(config, run, prepared, comparison, blocks, reporter)
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
        "depth": _as_json(depth),
        "failures": findings.failures[best].as_json(),
        "outcomes": became and became.as_json(),
        "checks": [vars(check) for check in checks],
        "segments": sections.segments.as_json(),
        "scores": {name: _as_json(study) for name, study in findings.scores.items()},
        "gate": _as_json(sections.gate),
        "costs": {name: _as_json(table) for name, table in sections.costs.items()},
        "labels": evaluated.labels.words,
        "remarks": list(_remarks(evaluated, prepared)),
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


def _as_json(study: ScoreStudy | DepthStudy | GateStudy | CostTable | NotKnown) -> dict[str, Any]:
    """A study as metrics.json holds it, or why there is none."""
    return {"refused": study.reason} if isinstance(study, NotKnown) else study.as_json()


def _remarks(evaluated: Evaluated, prepared: outcomes.Prepared) -> tuple[dict[str, Any], ...]:
    """What looks wrong about all that was read, outcomes included."""
    if prepared.outcomes is None:
        return evaluated.remarks
    known = known_ids(evaluated.run, evaluated.comparison)
    return joined_remarks(evaluated.remarks, outcome_remarks(prepared.outcomes, known))


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
    "dashboard",
)


def _report(evaluated: Evaluated, rows: tuple[MeasureRow, ...]) -> Report:
    run, comparison = evaluated.run, evaluated.comparison
    final, config = run.finished(), run.spec.config
    reranker = config["reranker"] or {"model": "none", "stages": []}
    models = [reranker["model"], *(stage["model"] for stage in reranker["stages"])]
    before, after = (
        comparison.values[system][comparison.headline].tolist()
        for system in (comparison.baseline, comparison.best)
    )
    columns = (comparison.query_ids, comparison.texts, before, after)
    facts = {
        "fingerprint": run.spec.fingerprint,
        "created": run.spec.created,
        "encoder": config["index"]["encoder"],
        "index": f"{config['index']['kind']}, {config['index']['shards']} shards",
        "reranker": ", then ".join(model for model in models if model),
        "depth": str(config["retrieval"]["depth"]),
        **run.spec.versions,
    }
    if run.spec.systems:
        for name in ("encoder", "index", "reranker", "depth"):
            del facts[name]
    return Report(
        title=f"Evaluation of {run.spec.job}",
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
    """The parts of the report that are about one thing each."""

    segments: SegmentStudy
    gate: GateStudy | NotKnown
    costs: Mapping[str, CostTable | NotKnown]


def _sections(evaluated: Evaluated, config: Config) -> _Sections:
    run, comparison = evaluated.run, evaluated.comparison
    final = run.finished()
    gate: GateStudy | NotKnown = NotKnown(
        "it compares several systems: a gate is studied in a run of one reranker"
    )
    if not run.spec.systems:
        own = config.reranker.gate if config.reranker else None
        gate = gate_study(run.spec.reranker, own, comparison)
    name = "all systems" if run.spec.systems else comparison.best
    return _Sections(
        segments=segments_of(run.results_paths(), config, comparison),
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
