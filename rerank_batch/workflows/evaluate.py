"""Evaluate: run the judged queries (or take a finished run), compare, write metrics and report."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank_batch.config import Config
from rerank_batch.data.outcomes import outcome_remarks
from rerank_batch.evaluation.acceptance import Check
from rerank_batch.evaluation.comparison import Comparison
from rerank_batch.evaluation.cost.study import CostTable, cost_table
from rerank_batch.evaluation.depth.study import DepthStudy
from rerank_batch.evaluation.failures.study import Failures
from rerank_batch.evaluation.gate.signals import gate_study
from rerank_batch.evaluation.gate.study import GateStudy
from rerank_batch.evaluation.ground_truth import GroundTruth
from rerank_batch.evaluation.judged import judged_blocks
from rerank_batch.evaluation.outcomes.study import OutcomeStudy
from rerank_batch.evaluation.report.headline import MeasureRow, headline_cells, measure_rows
from rerank_batch.evaluation.report.markdown import markdown
from rerank_batch.evaluation.report.page import QueryGain, Report, render
from rerank_batch.evaluation.scores.study import ScoreStudy
from rerank_batch.evaluation.segments.study import SegmentStudy
from rerank_batch.evaluation.segments.traffic import segments_of
from rerank_batch.remarks import NotKnown, Remark, remark_objects
from rerank_batch.reporter import Reporter
from rerank_batch.runs import Run, publish_parquet
from rerank_batch.schema import JsonObject
from rerank_batch.storage import Root
from rerank_batch.workflows import acceptance, outcomes
from rerank_batch.workflows.acceptance import Requirements
from rerank_batch.workflows.measured_run import (
    MeasuredRun,
    known_ids,
    measured_run,
    read_findings,
)
from rerank_batch.workflows.run_systems import why_no_depth
from rerank_batch.workflows.start import Start

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
"""What metrics.json repeats of final.json."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found of a finished run; depth and failures are those of the best system.

    ``final`` is the final.json of the run, ``report`` where the page lies. ``systems`` says what
    each system is, ``missing`` for how many queries it has no list.
    """

    run_id: str
    final: Mapping[str, Any]
    root: str
    report: str
    ground_truth: GroundTruth
    comparison: Comparison
    rows: tuple[MeasureRow, ...]
    systems: Mapping[str, str]
    missing: Mapping[str, int]
    depth: DepthStudy | NotKnown
    failures: Failures
    outcomes: OutcomeStudy | None
    checks: tuple[Check, ...]
    segments: SegmentStudy
    scores: Mapping[str, ScoreStudy | NotKnown]
    gate: GateStudy | NotKnown
    costs: Mapping[str, CostTable | NotKnown]
    remarks: tuple[Remark, ...]

    def metrics(self) -> JsonObject:
        """The object of metrics.json."""
        clicks = self.ground_truth.clicks
        return {
            **{key: self.final.get(key) for key in _FROM_FINAL},
            "root": self.root,
            "judged": self.comparison.queries,
            "systems": dict(self.systems),
            "missing": dict(self.missing),
            "best": self.comparison.best,
            "metrics": self.comparison.means(),
            "comparison": [row.to_json() for row in self.rows],
            "depth": _to_json(self.depth),
            "failures": self.failures.to_json(),
            "outcomes": self.outcomes and self.outcomes.to_json(),
            "checks": [check.to_json() for check in self.checks],
            "segments": self.segments.to_json(),
            "scores": {system: _to_json(study) for system, study in self.scores.items()},
            "gate": _to_json(self.gate),
            "costs": {system: _to_json(table) for system, table in self.costs.items()},
            "labels": self.ground_truth.words,
            "remarks": remark_objects(self.remarks),
            "clicks": clicks and clicks.to_json(),
        }

    def to_json(self) -> JsonObject:
        """The object that ``--json`` prints."""
        return {**self.metrics(), "report": self.report}


def evaluate(
    config: Config,
    reporter: Reporter,
    start: Start | None = None,
    from_run: str | None = None,
    requirements: Requirements | None = None,
) -> Evaluation:
    """Compare systems on judged queries; write metrics.json, Parquet beside it and report.html.

    The systems are those of ``evaluation.systems``, or retrieval and reranked where there are none.
    ``from_run`` names a finished run ('latest' for the job's newest); without it the judged queries
    are run now, and latest.json is left alone. The ``requirements`` are checked; `acceptance.judge`
    fails on those that are not met.
    """
    requirements = requirements or Requirements()
    limits, other = acceptance.prepare(requirements, config)
    sources = outcomes.prepare_outcomes(config)
    measured = measured_run(config, reporter, start, from_run)
    run, comparison, findings = measured.run, measured.comparison, measured.findings
    earlier = None
    if other is not None:
        values = read_findings(other, measured.qrels, config, {}, reporter).comparison
        earlier = (other.run_id, values)
    checks = acceptance.check(run.run_id, comparison, limits, requirements.margin, earlier)
    best = comparison.best
    blocks = judged_blocks(run.results_paths(), measured.qrels, measured.external)
    evaluation = Evaluation(
        run_id=run.run_id,
        final=run.finished(),
        root=config.root,
        report=run.root.path(f"runs/{run.run_id}/report/report.html"),
        ground_truth=measured.ground_truth,
        comparison=comparison,
        rows=measure_rows(comparison),
        systems=measured.described,
        missing=measured.missing,
        depth=findings.depths.get(best) or why_no_depth(run, best),
        failures=findings.failures[best],
        outcomes=outcomes.study(config, run, sources, comparison, blocks, reporter),
        checks=checks,
        segments=segments_of(run.results_paths(), config, comparison),
        scores=findings.scores,
        gate=_gate(run, config, comparison),
        costs=_costs(run, best),
        remarks=_remarks(measured, sources),
    )
    _publish(measured, evaluation)
    if requirements.markdown is not None:
        acceptance.write_markdown(requirements.markdown, _markdown(evaluation))
    return evaluation


def _to_json(study: ScoreStudy | DepthStudy | GateStudy | CostTable | NotKnown) -> JsonObject:
    return {"refused": study.reason} if isinstance(study, NotKnown) else study.to_json()


def _gate(run: Run, config: Config, comparison: Comparison) -> GateStudy | NotKnown:
    if run.spec.systems:
        return NotKnown("it compares several systems: a gate is studied in a run of one reranker")
    gate = config.reranker.gate if config.reranker else None
    return gate_study(run.spec.reranker, gate, comparison)


def _costs(run: Run, best: str) -> dict[str, CostTable | NotKnown]:
    final = run.finished()
    name = "all systems" if run.spec.systems else best
    return {name: cost_table(final.get("cost"), final["queries"], name)}


def _remarks(measured: MeasuredRun, sources: outcomes.Prepared) -> tuple[Remark, ...]:
    """What looks wrong about all that was read, outcomes included."""
    if sources.outcomes is None:
        return measured.remarks
    known = known_ids(measured.run, measured.comparison)
    return tuple(dict.fromkeys((*measured.remarks, *outcome_remarks(sources.outcomes, known))))


def _publish(measured: MeasuredRun, evaluation: Evaluation) -> None:
    """Write everything into the folder of the run."""
    root, prefix = measured.run.root, f"runs/{measured.run.run_id}/"
    depths = measured.findings.depths
    for system, study in depths.items():
        if not study.table.num_rows:
            continue  # too many queries to keep each at every depth
        name = "depth" if len(depths) == 1 else f"depth-{_file_name(system)}"
        publish_parquet(root, prefix, f"report/{name}.parquet", study.table)
    publish_parquet(root, prefix, "report/metrics.parquet", evaluation.comparison.tables())
    metrics = json.dumps(evaluation.metrics(), indent=1)
    _publish_text(root, f"{prefix}report/metrics.json", metrics)
    _publish_text(root, f"{prefix}report/report.html", render(_page(measured, evaluation)))


def _markdown(evaluation: Evaluation) -> str:
    comparison, truth = evaluation.comparison, evaluation.ground_truth
    return markdown(
        evaluation.run_id,
        comparison.queries,
        headline_cells(comparison.systems, evaluation.rows),
        evaluation.depth,
        evaluation.checks,
        truth.words if truth.clicks else "",
    )


def _page(measured: MeasuredRun, evaluation: Evaluation) -> Report:
    """The evaluation as the page shows it."""
    run, comparison = measured.run, measured.comparison
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
        described=dict(measured.described),
        means=comparison.means(),
        missing=dict(measured.missing),
        measures=evaluation.rows,
        gains=tuple(QueryGain(*each) for each in zip(*columns, strict=True)),
        queries=final["queries"],
        judged=comparison.queries,
        pairs=final["pairs"],
        rejects=final["rejects"],
        seconds=final["seconds"],
        facts=facts,
        clicks=measured.ground_truth.words if measured.ground_truth.clicks else "",
        limits=measured.ground_truth.clicks.limits if measured.ground_truth.clicks else (),
        depth=evaluation.depth,
        failures=evaluation.failures,
        segments=evaluation.segments,
        scores=evaluation.scores,
        gate=evaluation.gate,
        costs=evaluation.costs,
        outcomes=evaluation.outcomes,
    )


def _publish_text(root: Root, key: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "text"
        local.write_text(text, encoding="utf-8")
        root.publish(key, local)


def _file_name(system: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in system).lower()
