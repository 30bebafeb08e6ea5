"""The main job: plan the log, retrieve, rerank, measure, and publish the run as the latest."""

import secrets
import time
from dataclasses import replace

from rerank_batch.config import Config
from rerank_batch.pipeline.blocks import rows_per_block
from rerank_batch.pipeline.work import Work
from rerank_batch.ray_backend.start import check_ray
from rerank_batch.reporter import Reporter
from rerank_batch.retrieval.excluded import excluded_line
from rerank_batch.runs import (
    Lease,
    Run,
    guards,
    read_latest,
)
from rerank_batch.runs.differences import changes_since
from rerank_batch.runs.rejects import check_rejects
from rerank_batch.runs.summary import RunSummary, RunTotals
from rerank_batch.storage import Root, open_root
from rerank_batch.workflows.execute import execute
from rerank_batch.workflows.inputs import read_comparison, read_inputs
from rerank_batch.workflows.notify import notifying
from rerank_batch.workflows.peak_memory import PeakMemory
from rerank_batch.workflows.reranking import Reranking
from rerank_batch.workflows.run_scores import cache_facts, keep_scores
from rerank_batch.workflows.start import NewRun, Start, begin, driving, is_complete, owned
from rerank_batch.workflows.totals import run_totals


def rerank(
    config: Config,
    reporter: Reporter,
    start: Start | None = None,
    judged_only: bool = False,
    publish: bool = True,
    compare: bool = False,
) -> RunSummary:
    """Run the job, or what is left of it.

    With ``compare`` it is the systems of ``evaluation.systems`` that are run, all in one. Only a
    run that is to be published notifies anybody.

    Raises:
        RerankBatchError: an input, a model or a service cannot be used, too much is rejected, or
            another driver owns the run.
    """
    start = start or Start()
    if not publish:
        return _rerank(config, reporter, start, judged_only, publish, compare)
    with notifying(config, reporter, start.resume or start.run_id) as notify:
        summary = _rerank(config, reporter, start, judged_only, publish, compare)
        notify(summary.to_json())
    return summary


def _rerank(
    config: Config,
    reporter: Reporter,
    start: Start,
    judged_only: bool,
    publish: bool,
    compare: bool,
) -> RunSummary:
    began = time.perf_counter()
    root = open_root(config.root)
    root.check_writes()
    begun = start.begun(root)
    generations = {} if begun is None else begun.spec.generations
    work = (read_comparison if compare else read_inputs)(config, judged_only, generations)
    if work.excluded.unknown:
        reporter.note(excluded_line(**work.excluded.counts()))
    plan = work.plan
    check_rejects(plan.reject_counts(), {}, plan.log_rows, config.limits.max_rejects)
    if not is_complete(begun):
        check_ray(config.compute, reporter.note)  # before a run is begun that cannot be finished
    run = _begin(root, config, work, start)
    reporter.run_id = run.run_id
    if is_complete(run):
        reporter.note(f"run {run.run_id} is complete: nothing is left to do")
        return _summary(run, publish)
    run.write_plan(plan.queries, plan.rejects)
    with driving(run, config, reporter, start.take_over) as lease:
        run.finish(_execute(run, lease, config, work, reporter, began).to_json())
    if compare:
        return _summary(run)
    latest = read_latest(root, config.job)
    summary = _summary(run, publish)
    changes = changes_since(latest["run_id"] if latest else None, run, reporter)
    return replace(summary, changes=changes, was_compared=True)


def try_out(config: Config, work: Work, reporter: Reporter) -> RunTotals:
    """Run the job for this work and leave nothing behind; its totals, as in final.json."""
    began = time.perf_counter()
    root = open_root(config.root)
    root.check_writes()
    run = _begin(root, config, work, Start(run_id=f"try-{secrets.token_hex(8)}"))
    try:
        run.write_plan(work.plan.queries, work.plan.rejects)
        run.claim(False, config.storage.lease_seconds, reporter.note)
        with owned(run, config.storage.lease_seconds) as lease:
            return _execute(run, lease, config, work, reporter, began, keep=False)
    finally:
        root.delete(list(root.sizes(f"runs/{run.run_id}/")))


def _begin(root: Root, config: Config, work: Work, start: Start) -> Run:
    planned = work.plan.queries.num_rows
    more = {"generations": dict(work.generations), "systems": list(work.systems)}
    rows = rows_per_block(config, planned)
    return begin(root, config, start, NewRun(config.job, work.made_of, planned, rows, more))


def _execute(
    run: Run,
    lease: Lease,
    config: Config,
    work: Work,
    reporter: Reporter,
    began: float,
    keep: bool = True,
) -> RunTotals:
    """Do every block that is not done, keep the new scores, and sum up.

    Scores are kept once every query is covered, and before the run is finished: final.json says
    what the cache holds since.
    """
    task = Reranking(run, config, work, reporter)
    with PeakMemory() as memory:
        execution = execute(run, lease, config.compute, task, reporter)
    task.complete()
    caches = [scores for scores in task.scores if scores is not None]
    held = keep_scores(run, caches, reporter, keep)
    cache = cache_facts(run, caches, held)
    peak = memory.bytes if task.pools else 0
    return run_totals(run, config, work, task, execution, began, peak, cache)


def _summary(run: Run, publish: bool = False) -> RunSummary:
    """The summary of a finished run, which is published if it is to be and its guards let it."""
    publication = guards.publish_unless_held_back(run) if publish else None
    final = run.finished()
    return RunSummary(
        run_id=run.run_id,
        job=final["job"],
        epoch=final["epoch"],
        root=run.root.uri,
        files=run.root.path(f"runs/{run.run_id}/data"),
        totals=RunTotals.from_final(final),
        publication=publication,
    )
