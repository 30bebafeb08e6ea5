"""A run that is measured: run now or taken as it is, read with its labels, file by file."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from rerank_batch.comparison.describe import descriptions
from rerank_batch.comparison.external import external_lists, with_missing
from rerank_batch.config import Config
from rerank_batch.data.id_matches import unmatched_queries
from rerank_batch.data.qrels import CompactQrels, Qrels
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.evaluation.comparison import Comparison
from rerank_batch.evaluation.findings import (
    Findings,
    FindingsPart,
    Questions,
    conclude,
    find,
    find_in_file,
    join,
)
from rerank_batch.evaluation.gate.signals import gate_signals
from rerank_batch.evaluation.ground_truth import GroundTruth, ground_truth_path, read_ground_truth
from rerank_batch.evaluation.judged import Lists
from rerank_batch.evaluation.measures import parse_measures
from rerank_batch.evaluation.segments.columns import check_segments
from rerank_batch.ray_backend.cluster import cluster
from rerank_batch.ray_backend.execution import map_files
from rerank_batch.remarks import Remark, read_remarks
from rerank_batch.reporter import Reporter
from rerank_batch.runs import Run, latest_run
from rerank_batch.storage import open_root
from rerank_batch.workflows.outcomes import ids_of
from rerank_batch.workflows.rerank import rerank
from rerank_batch.workflows.run_systems import compared_systems, depths_of, of_one_model
from rerank_batch.workflows.start import Start

_MANY = 20_000
"""Queries of a run from which on a cluster reads it faster than this process."""


@dataclass(frozen=True)
class MeasuredRun:
    """A finished run, the judgements, what these say of it, and what its systems are.

    ``missing`` says of systems whose lists were read for how many queries they have none.
    ``remarks`` are what looks wrong about all that was read.
    """

    run: Run
    ground_truth: GroundTruth
    findings: Findings
    described: Mapping[str, str]
    missing: Mapping[str, int]
    external: Mapping[str, Lists]
    remarks: tuple[Remark, ...] = ()

    @property
    def comparison(self) -> Comparison:
        """The values of every query."""
        return self.findings.comparison

    @property
    def qrels(self) -> Qrels:
        """The grades."""
        return self.ground_truth.qrels


def measured_run(
    config: Config, reporter: Reporter, start: Start | None = None, from_run: str | None = None
) -> MeasuredRun:
    """A run, the judgements, and what they say of its systems; see `evaluate`.

    Raises:
        ConfigError: there are no judgements, or the run does not hold what is to be compared.
        InputError: none of them is of a query of the run.
    """
    if ground_truth_path(config) is None:
        raise ConfigError("evaluate needs qrels.path: without judgements nothing can be measured")
    parse_measures(config.evaluation.measures)
    remarks = list(check_segments(config.queries, config.evaluation.segments))
    root = open_root(config.root)
    if from_run is None:
        several = bool(config.evaluation.systems)
        done = rerank(config, reporter, start, judged_only=True, publish=False, compare=several)
        run = Run.open(root, done.run_id)
    else:
        run = latest_run(root, config.job) if from_run == "latest" else Run.open(root, from_run)
    final = run.finished()
    if "labels" in final:
        raise ConfigError(
            f"run {run.run_id} made training labels: there are no rankings in it to evaluate"
        )
    truth = read_ground_truth(config)
    assert truth is not None
    external: dict[str, Lists] = {}
    if run.spec.systems:
        external = external_lists(config, truth.qrels)
    findings = read_findings(run, truth.qrels, config, external, reporter)
    if not findings.comparison.queries:
        raise InputError(
            f"none of the {final['queries']:,} queries of run {run.run_id} is judged in "
            f"{ground_truth_path(config)}; query ids of log and judgements must match"
        )
    comparison = findings.comparison
    if from_run is not None:
        remarks += truth.remarks
        known = known_ids(run, comparison) if 2 * comparison.queries < len(truth.qrels) else None
        if known is not None:
            section = "qrels" if truth.clicks is None else "clicks"
            where = f"run {run.run_id}"
            remarks += unmatched_queries(section, "judged queries", truth.qrels, known, where)
    described = descriptions(config) if external or run.spec.systems else {}
    return MeasuredRun(
        run=run,
        ground_truth=truth,
        findings=findings,
        described={name: described.get(name, "") for name in comparison.systems},
        missing=with_missing(external, comparison.query_ids),
        external=external,
        remarks=tuple(dict.fromkeys((*read_remarks(final.get("remarks", ())), *remarks))),
    )


def known_ids(run: Run, comparison: Comparison) -> set[str]:
    """Every id that the judged queries of a run stand for."""
    return {each for ids in ids_of(run, comparison.query_ids) for each in ids}


def read_findings(
    run: Run,
    qrels: Qrels,
    config: Config,
    external: Mapping[str, Lists],
    reporter: Reporter,
) -> Findings:
    """What every judged query of a finished run says, rejected ones too.

    A large run is read by all workers of the cluster, file by file: what comes back are values,
    sums and a few cases, so that no process holds its lists.
    """
    paths, several = run.results_paths(), bool(run.spec.systems)
    questions = Questions(
        measures=config.evaluation.measures,
        systems=compared_systems(run, config, external),
        depths=depths_of(run),
        scored=of_one_model(run),
        signals={} if several else gate_signals(config.reranker.gate if config.reranker else None),
        rejected=frozenset(run.rejects().column("query_id").to_pylist()) & frozenset(qrels),
        large=run.finished()["queries"] > _MANY,
    )
    if external:
        return conclude(find(paths, qrels, questions, external), questions)
    return read_run(run, qrels, config, questions, reporter)


def read_run(
    run: Run, qrels: Qrels, config: Config, questions: Questions, reporter: Reporter
) -> Findings:
    """Read a finished run, on the cluster where it is large."""
    paths = run.results_paths()
    if run.finished()["queries"] <= _MANY:
        return conclude(find(paths, qrels, questions), questions)
    parts: list[FindingsPart | None] = [None] * len(paths)
    done = 0
    with (
        cluster(config.compute, reporter.verbose, reporter.note),
        reporter.progress("files", len(paths), lambda: done),
        closing(map_files(paths, find_in_file, CompactQrels(qrels), questions)) as found,
    ):
        for number, part in found:
            parts[number] = part
            done += 1
    return conclude(join((part for part in parts if part), questions), questions)
