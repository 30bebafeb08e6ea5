"""The totals of a run, from its commits: what final.json holds beside the files."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rerank_batch import schema
from rerank_batch.config import Config
from rerank_batch.pipeline.placement import in_gb
from rerank_batch.pipeline.work import Work
from rerank_batch.rerankers.cascade import pairs_of, seconds_of, skipped_of
from rerank_batch.runs import Commit, Run, total
from rerank_batch.runs.cost import cost_book
from rerank_batch.runs.summary import CacheFacts, Metrics, RunTotals, Seconds
from rerank_batch.schema import FELL_BACK, GATED
from rerank_batch.tally import CPU_SECONDS
from rerank_batch.workflows.execute import Execution
from rerank_batch.workflows.reranking import Reranking


def run_totals(
    run: Run,
    config: Config,
    work: Work,
    task: Reranking,
    execution: Execution,
    began: float,
    peak_bytes: int,
    cache: CacheFacts | None,
) -> RunTotals:
    """Sum up what every driver of the run has committed, and what this one took.

    ``began`` is the `time.perf_counter` of the beginning of the workflow.
    """
    commits = run.commits()
    sums = total(commits, "sums")
    plan = work.plan
    seconds = Seconds(
        plan=execution.began - began,
        start=execution.start_seconds,
        stages=total(commits, "seconds"),
        execute=execution.execute_seconds,
        total=time.perf_counter() - began,
    )
    judged = int(sums.get("judged", 0)) + work.judged_rejects
    pairs = int(sum(sums.get(pairs_of(scorer.number), 0) for scorer in work.scorers))
    skipped = {s.number: int(sums.get(skipped_of(s.number), 0)) for s in work.scorers}
    new_share = 1 - execution.done_before / max(plan.queries.num_rows, 1)
    return RunTotals(
        fingerprint=run.spec.fingerprint,
        queries=int(sums.get("queries", 0)),
        log_rows=plan.log_rows,
        left_out=asdict(plan.left_out),
        log=_log_of_night(config),
        weight=sums.get("weight", 0.0),
        rejects=_all_rejects(plan.reject_counts(), commits),
        documents=work.index.manifest.documents,
        excluded=work.excluded.counts() or None,
        remarks=tuple(dict.fromkeys(work.remarks)),
        index_groups=in_gb(task.groups),
        pairs=pairs,
        pairs_skipped=sum(skipped.values()),
        gate_saved_seconds=round(_saved_seconds(skipped, sums), 1),
        gated=int(sums.get(f"flag.{GATED}", 0)),
        fell_back=int(sums.get(f"flag.{FELL_BACK}", 0)),
        judged=judged,
        judged_not_in_log=work.judged_elsewhere,
        metrics=_means(sums, config.evaluation.measures, judged, work.systems or schema.SYSTEMS),
        seconds=seconds,
        cpu_seconds=_by_stage(sums, CPU_SECONDS),
        pairs_per_second=round(pairs * new_share / max(execution.execute_seconds, 1e-9), 1),
        peak_memory_gb=round(peak_bytes / 2**30, 2),
        events={name: int(count) for name, count in total(commits, "events").items()},
        done_before=execution.done_before,
        mode=", ".join(str(choice.mode) for choice in task.modes if choice) or None,
        cache=cache,
        actors={name: pool.size for name, pool in task.pools.items()},
        dashboard=execution.dashboard,
        cost=cost_book(run, config, work.scorers, sums, seconds, task.pools),
    )


def _log_of_night(config: Config) -> dict[str, str] | None:
    """The log of a run that reads one night's."""
    queries = config.queries
    if queries is None or not queries.date:
        return None
    return {"date": str(queries.date), "path": queries.path}


def _saved_seconds(skipped: Mapping[int, int], sums: Mapping[str, float]) -> float:
    """What the skipped pairs of each model take, at the pace of those that it read."""
    return sum(
        count * sums.get(seconds_of(number), 0.0) / max(sums.get(pairs_of(number), 0.0), 1)
        for number, count in skipped.items()
    )


def _by_stage(sums: Mapping[str, float], what: str) -> dict[str, float]:
    """The sums of that name by stage."""
    named = ((name.partition("."), value) for name, value in sums.items())
    return {stage: round(value, 2) for (name, _, stage), value in named if name == what}


def _all_rejects(planned: Mapping[str, int], commits: Sequence[Commit]) -> dict[str, int]:
    """Rejects of the plan and of the stages by reason, sorted."""
    counts = dict(planned)
    for reason, count in total(commits, "reject_reasons").items():
        counts[reason] = counts.get(reason, 0) + int(count)
    return dict(sorted(counts.items()))


def _means(
    sums: Mapping[str, float], measures: tuple[str, ...], judged: int, systems: Sequence[str]
) -> Metrics:
    if not judged:
        return {}
    return {
        system: {name: sums.get(f"{system}/{name}", 0.0) / judged for name in measures}
        for system in systems
    }
