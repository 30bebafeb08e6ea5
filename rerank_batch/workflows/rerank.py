"""The main job: plan the log, retrieve, rerank, measure, and publish the run as the latest."""

import os
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import Any, cast

from rerank_batch import schema
from rerank_batch.comparison.plan import ComparisonInputs, comparison_stages, read_comparison
from rerank_batch.config import Config, digest
from rerank_batch.data.file_counts import file_counts
from rerank_batch.data.plan import Plan
from rerank_batch.data.reject_limit import are_too_many
from rerank_batch.errors import ModelError, RerankBatchError, RunConflict
from rerank_batch.models.settings import forward_flops
from rerank_batch.pipeline.actors import share_actors
from rerank_batch.pipeline.placement import (
    Groups,
    Search,
    divide,
    group_name,
    group_stages,
    in_gb,
    with_retrievers,
)
from rerank_batch.pipeline.pools import Pool, Pools, of_group, plan_pools, shared
from rerank_batch.pipeline.resources import Cluster, this_node
from rerank_batch.pipeline.stages import AssembleResults, EncodeQueries, SearchShards, StageSpec
from rerank_batch.ray_backend.cluster import cluster, lost_since
from rerank_batch.ray_backend.execution import run_queries
from rerank_batch.ray_backend.metrics import RunMetrics, run_sums
from rerank_batch.ray_backend.nodes import on_every_node
from rerank_batch.ray_backend.run_progress import RunProgress
from rerank_batch.ray_backend.start import check_ray
from rerank_batch.remarks import remark_objects
from rerank_batch.reporter import Reporter
from rerank_batch.rerankers.cascade import pairs_of, seconds_of, skipped_of
from rerank_batch.rerankers.configured import scorer_options
from rerank_batch.rerankers.paid import PaidUse
from rerank_batch.rerankers.stages import Rerank, ScorerUse
from rerank_batch.retrieval.configured import query_encoder_options
from rerank_batch.retrieval.gate import Gate
from rerank_batch.retrieval.given import fusion_of, source_use
from rerank_batch.runs import (
    ABORTED,
    COMPLETE,
    Lease,
    Run,
    block_bounds,
    guards,
    is_begun,
    read_latest,
    refuse_if_taken_over,
    total,
)
from rerank_batch.runs.cost import cost_book
from rerank_batch.runs.differences import changes_since
from rerank_batch.runs.rejects import check_rejects
from rerank_batch.schema import FELL_BACK, GATED
from rerank_batch.scoring.modes import Choice
from rerank_batch.storage import Root, open_root
from rerank_batch.tally import CPU_SECONDS
from rerank_batch.workflows.inputs import Inputs, read_inputs, versions
from rerank_batch.workflows.modes import modes_of, scorer_modes
from rerank_batch.workflows.notify import told_of
from rerank_batch.workflows.peak_memory import PeakMemory
from rerank_batch.workflows.run_scores import RunScores, run_scores, together

_BLOCKS = 64
_SMALLEST_BLOCK, _LARGEST_BLOCK = 256, 4096
_MANY = 1 << 20


@dataclass(frozen=True)
class Start:
    """How a run is begun: under which id, or going on with which one that died.

    With ``or_resume`` the same command does either: it begins ``run_id``, or goes on with it.
    """

    run_id: str | None = None
    resume: str | None = None
    take_over: bool = False
    or_resume: bool = False

    def to_resume(self, root: Root) -> str | None:
        """The run to go on with; None where a new one is to begin."""
        if self.or_resume and self.run_id is not None and is_begun(root, self.run_id):
            return self.run_id
        return self.resume


def rerank(
    config: Config,
    reporter: Reporter,
    start: Start | None = None,
    judged_only: bool = False,
    publish: bool = True,
    compare: bool = False,
) -> dict[str, Any]:
    """Run the job, or what is left of it, and return its summary; see `show`.

    With ``compare`` it is the systems of ``evaluation.systems`` that are run, all in one.
    """
    start = start or Start()
    if not publish:
        return _rerank(config, reporter, start, judged_only, publish, compare)
    with told_of(config, reporter, start.resume or start.run_id) as tell:
        summary = _rerank(config, reporter, start, judged_only, publish, compare)
        tell(summary)
    return summary


def _rerank(
    config: Config,
    reporter: Reporter,
    start: Start,
    judged_only: bool,
    publish: bool,
    compare: bool,
) -> dict[str, Any]:
    began = time.perf_counter()
    root = open_root(config.root)
    root.check_writes()
    generations = _generations(root, start)
    inputs = (read_comparison if compare else read_inputs)(config, judged_only, generations)
    planned = inputs.plan
    if inputs.excluded.unknown:
        reporter.note(_excluded_line(len(inputs.excluded.documents), inputs.excluded.unknown))
    check_rejects(planned.reject_counts(), {}, planned.log_rows, config.limits.max_rejects)
    if not _is_complete(root, start):
        check_ray(config.compute, reporter.note)  # before anything is begun that cannot be finished
    run = _begin(root, config, inputs, start)
    reporter.run_id = run.run_id
    if run.state() == COMPLETE:
        reporter.note(f"run {run.run_id} is complete: nothing is left to do")
        return {**_summary(run), **(guards.publish(run) if publish else {})}
    run.write_plan(inputs.plan.queries, inputs.plan.rejects)
    run.claim(start.take_over, config.storage.lease_seconds, reporter.note)
    with (
        forgotten_if_unusable(run),
        owned(run, config.storage.lease_seconds) as lease,
        how_to_go_on(run, lease, reporter),
    ):
        totals = _execute(run, lease, config, inputs, reporter, began)
        run.finish(totals)
    if compare:
        return _summary(run)
    latest = read_latest(root, config.job)
    outcome = guards.publish(run) if publish else {}
    changes = changes_since(latest["run_id"] if latest else None, run, reporter)
    return {**_summary(run), "changes": changes, **outcome}


def try_out(config: Config, inputs: Inputs, reporter: Reporter) -> dict[str, Any]:
    """Run the job for these inputs and leave nothing behind; its totals, as in final.json."""
    began = time.perf_counter()
    root = open_root(config.root)
    root.check_writes()
    run = _begin(root, config, inputs, Start(run_id=f"try-{secrets.token_hex(8)}"))
    try:
        run.write_plan(inputs.plan.queries, inputs.plan.rejects)
        run.claim(False, config.storage.lease_seconds, reporter.note)
        with owned(run, config.storage.lease_seconds) as lease:
            return _execute(run, lease, config, inputs, reporter, began, keep_scores=False)
    finally:
        root.delete(list(root.sizes(f"runs/{run.run_id}/")))


def _generations(root: Root, start: Start) -> Mapping[str, str]:
    """The generations of indexes that the run to go on with began on."""
    resume = start.to_resume(root)
    if resume is None or not is_begun(root, resume):
        return {}
    found: Mapping[str, str] = Run.open(root, resume).spec.get("generations", {})
    return found


def _is_complete(root: Root, start: Start) -> bool:
    """Whether there is nothing left to do."""
    resume = start.to_resume(root)
    return (
        resume is not None and is_begun(root, resume) and Run.open(root, resume).state() == COMPLETE
    )


def _begin(root: Root, config: Config, inputs: Inputs, start: Start) -> Run:
    """A new run, or the one to go on with, which must be made of the same."""
    if (resume := start.to_resume(root)) is not None:
        run = Run.open(root, resume)
        run.check_made_of(inputs.made_of)
        if run.state() == ABORTED:
            raise RunConflict(f"run {run.run_id} was aborted; begin a new one")
        return run
    plan = inputs.plan
    block_rows = rows_per_block(config, plan.queries.num_rows)
    return Run.create(
        root,
        start.run_id or new_run_id(config.job),
        {
            "job": config.job,
            "created": datetime.now(UTC).isoformat(),
            "fingerprint": digest(inputs.made_of),
            "made_of": inputs.made_of,
            "generations": dict(inputs.generations),
            "config": config.model_dump(mode="json"),
            "systems": [system.name for system in inputs.systems]
            if isinstance(inputs, ComparisonInputs)
            else [],
            "versions": versions(),
            "planned": plan.queries.num_rows,
            "block_rows": block_rows,
            "blocks": len(block_bounds(plan.queries.num_rows, block_rows)),
        },
    )


def _execute(
    run: Run,
    lease: Lease,
    config: Config,
    inputs: Inputs,
    reporter: Reporter,
    began: float,
    keep_scores: bool = True,
) -> dict[str, Any]:
    """Score every block that is not done; returns the totals for final.json."""
    plan = inputs.plan
    queries = plan.queries.num_rows
    done = run.done()
    done_before = len(done)
    to_do = run.blocks_to_do(done)
    kept = f", {done_before:,} of them done before" if run.epoch > 1 else ""
    reporter.note(f"run {run.run_id}: {queries:,} queries in {len(run.blocks())} blocks{kept}")
    planned, most = plan.reject_counts(), config.limits.max_rejects
    later = Counter(_whole(total(run.commits(), "reject_reasons")))
    # A run that the limit stopped does not slip past it by being resumed.
    check_rejects(planned, later, plan.log_rows, most, run.run_id)
    plan_seconds = time.perf_counter() - began

    peak_bytes, start_seconds, dashboard = 0, 0.0, None
    pools: dict[str, Pool] = {}
    groups: Groups = {}
    if to_do:
        with (
            PeakMemory() as memory,
            cluster(config.compute, reporter.verbose, reporter.note) as resources,
        ):
            start_seconds = time.perf_counter() - began - plan_seconds
            if (dashboard := resources.dashboard) is not None:
                reporter.note(f"Ray dashboard: {dashboard}")
            modes = scorer_modes(run, config, inputs, resources, reporter)
            scores = run_scores(run, config, inputs, modes, reporter)
            uses = scorer_uses(run, config, inputs, modes, scores)
            block_rows = run.spec["block_rows"]
            searches = searches_of(config, inputs)
            compute = with_retrievers(config.compute, searches, resources.cpus)
            config = config.model_copy(update={"compute": compute})
            groups, remarks = divide(
                compute,
                searches,
                resources,
                lambda cache: min(on_every_node(cache.room)),
            )
            for remark in remarks:
                reporter.note(remark)
            if isinstance(inputs, ComparisonInputs):
                stages = comparison_stages(config, inputs, resources, block_rows, uses, groups)
            else:
                stages = build_stages(config, inputs, resources, block_rows, uses, groups)
            stages = share_actors(stages, resources.cpus, resources.gpus)
            pools = {stage.name: stage.pool for stage in stages}
            keep_texts = config.queries is not None and config.queries.keep_rejected_texts
            blocks = run_queries(to_do, stages, run.writer(), keep_texts)
            metrics = RunMetrics(config.job, run.run_id, config.cost.per_hour)
            progress = RunProgress(run, to_do, stages)
            lost = partial(lost_since, resources)
            with reporter.run_progress(progress.look, lost), closing(blocks):
                for block in blocks:
                    progress.commit(block)
                    later.update(block.reject_reasons)
                    check_rejects(planned, later, plan.log_rows, most, run.run_id)
                    if metrics.is_due():
                        metrics.update(_sums_so_far(run, _rows(planned, later)))
                    if lease.lost:
                        refuse_if_taken_over(run.root, run.run_id, run.epoch)
            metrics.update(_sums_so_far(run, _rows(planned, later)))
        peak_bytes = memory.bytes
    else:
        modes = modes_of(run, inputs)
        scores = run_scores(run, config, inputs, modes, reporter)
    execute_seconds = time.perf_counter() - began - plan_seconds - start_seconds

    commits = run.commits()
    sums = total(commits, "sums")
    seconds = {
        "plan": plan_seconds,
        "start": start_seconds,
        **total(commits, "seconds"),
        "execute": execute_seconds,
        "total": time.perf_counter() - began,
    }
    judged = int(sums.get("judged", 0)) + inputs.judged_rejects
    pairs = int(sum(sums.get(pairs_of(scorer.number), 0) for scorer in inputs.scorers))
    flags = {name: int(sums.get(f"flag.{name}", 0)) for name in (GATED, FELL_BACK)}
    skipped = {s.number: int(sums.get(skipped_of(s.number), 0)) for s in inputs.scorers}
    saved = sum(
        count * sums.get(seconds_of(number), 0.0) / max(sums.get(pairs_of(number), 0.0), 1)
        for number, count in skipped.items()
    )
    here = pairs * (queries - done_before) / max(queries, 1)
    return {
        "fingerprint": run.spec["fingerprint"],
        "queries": int(sums.get("queries", 0)),
        "log_rows": plan.log_rows,
        "left_out": asdict(plan.left_out),
        "log": {"date": str(date), "path": log.path}
        if (log := config.queries) and (date := log.date)
        else None,
        "weight": sums.get("weight", 0.0),
        "rejects": _rejects(plan.reject_counts(), total(commits, "reject_reasons")),
        "documents": inputs.index.manifest.documents,
        "excluded": _excluded(inputs),
        "remarks": remark_objects(inputs.remarks),
        "index_groups": in_gb(groups),
        "pairs": pairs,
        "pairs_skipped": sum(skipped.values()),
        "gate_saved_seconds": round(saved, 1),
        **flags,
        "judged": judged,
        "judged_not_in_log": inputs.judged_elsewhere,
        "metrics": _means(
            sums,
            config.evaluation.measures,
            judged,
            run.spec["systems"] or schema.SYSTEMS,
        ),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "cpu_seconds": _by_stage(sums, CPU_SECONDS),
        "pairs_per_second": round(here / max(execute_seconds, 1e-9), 1),
        "peak_memory_gb": round(peak_bytes / 2**30, 2),
        "events": {name: int(count) for name, count in total(commits, "events").items()},
        "done_before": done_before,
        "mode": ", ".join(str(choice.mode) for choice in modes if choice) or None,
        "cache": together([each.facts(commits, reporter, keep_scores) for each in scores if each]),
        "actors": {name: pool.size for name, pool in pools.items()},
        "dashboard": dashboard,
        "cost": cost_book(run, config, inputs, sums, seconds, pools),
    }


def _by_stage(sums: Mapping[str, float], what: str) -> dict[str, float]:
    """The sums of that name by stage."""
    named = ((name.partition("."), value) for name, value in sums.items())
    return {stage: round(value, 2) for (name, _, stage), value in named if name == what}


def _sums_so_far(run: Run, rejected: int) -> dict[str, float]:
    """What is committed, for the metrics; each commit is read once."""
    commits = run.commits()
    planned = (run.spec["blocks"], run.spec["planned"])
    return run_sums(total(commits, "sums"), rejected, len(commits), planned)


def _summary(run: Run) -> dict[str, Any]:
    """What the finished run says of itself, and where it lies."""
    final = run.finished()
    skip = ("results", "reject_files", "commits", "nonce", "state", "created")
    return {
        **{key: value for key, value in final.items() if key not in skip},
        "root": run.root.uri,
        "files": run.root.path(f"runs/{run.run_id}/data"),
    }


@contextmanager
def owned(run: Run, lease_seconds: float) -> Iterator[Lease]:
    """Hold the run's lease; whoever loses it to another driver is stopped wherever it waits.

    Raises:
        RunConflict: the run was taken over.
    """
    main = threading.main_thread()
    if threading.current_thread() is not main:
        with run.lease(lease_seconds) as lease:
            yield lease
        return

    def stop() -> None:
        signal.pthread_kill(cast("int", main.ident), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        with run.lease(lease_seconds, on_lost=stop) as lease:
            yield lease
    except KeyboardInterrupt:
        if lease.lost:
            refuse_if_taken_over(run.root, run.run_id, run.epoch)
        raise
    finally:
        signal.signal(signal.SIGUSR1, before)


@contextmanager
def forgotten_if_unusable(run: Run) -> Iterator[None]:
    """Where a model cannot be used, nothing is left to resume: with another model or setting it is
    another run. What is done or paid for is kept."""
    try:
        yield
    except ModelError:
        run.forget()
        raise


@contextmanager
def how_to_go_on(run: Run, lease: Lease, reporter: Reporter) -> Iterator[None]:
    """Whatever stops a run that is begun, its user learns that nothing done is lost."""
    try:
        yield
    except (RerankBatchError, KeyboardInterrupt) as error:
        unusable = isinstance(error, ModelError) and run.holds_nothing()
        if not (lease.lost or unusable or isinstance(error, RunConflict)):
            reporter.note(f"what is done is kept; go on with: --resume {run.run_id}")
        raise


def dry_run(config: Config, judged_only: bool = False, compare: bool = False) -> dict[str, Any]:
    """Check every input and estimate the work; loads no model and writes nothing."""
    inputs = (read_comparison if compare else read_inputs)(config, judged_only)
    plan = inputs.plan
    queries = plan.queries.num_rows
    cascade = config.reranker.cascade if config.reranker else ()
    reads = [queries * (scorer.depth or config.retrieval.depth) for scorer in cascade]
    if isinstance(inputs, ComparisonInputs):
        reads = [queries * depth for depth in inputs.most_pairs()]
    summary: dict[str, Any] = {
        "dry_run": True,
        "root": config.root,
        "queries": queries,
        "log_rows": plan.log_rows,
        "left_out": asdict(plan.left_out),
        "rejects": plan.reject_counts(),
        "too_many_rejects": are_too_many(
            _planned_rejects(plan), plan.log_rows, config.limits.max_rejects
        ),
        "judged": inputs.judged_queries + inputs.judged_rejects,
        "documents": inputs.index.manifest.documents,
        "excluded": _excluded(inputs),
        "files_read": file_counts(
            config, "queries", config.evaluation.labels.replace("judgements", "qrels")
        ),
        "remarks": remark_objects(inputs.remarks),
        "pairs": sum(reads),
        "blocks": len(block_bounds(queries, rows_per_block(config, queries))),
        "fingerprint": digest(inputs.made_of),
    }
    # Another cluster than this machine is not asked: nodes like it, one for each group.
    alone = config.compute.address is None and "RAY_ADDRESS" not in os.environ
    here = this_node(config.compute, 1 if alone else _MANY)
    searches = searches_of(config, inputs)
    groups, remarks = divide(
        with_retrievers(config.compute, searches, here.cpus),
        searches,
        here,
        lambda cache: cache.room() if alone else cache.max_bytes,
    )
    summary |= {"index_groups": in_gb(groups), "index_remarks": remarks}
    flops = sum(
        (pairs if scorer.model.family != "late-interaction" else summary["documents"])
        * forward_flops(scorer.sizes, scorer.config.max_length or 256)
        for scorer, pairs in zip(inputs.scorers, reads, strict=True)
    )
    if flops:
        summary["estimated_petaflop_at_most"] = round(flops / 1e15, 4)
    return summary


def scorer_uses(
    run: Run,
    config: Config,
    inputs: Inputs,
    modes: Sequence[Choice | None],
    scores: Sequence[RunScores | None],
) -> list[ScorerUse]:
    """The cascade as its workers need it."""
    families = [scorer.model.family for scorer in inputs.scorers]
    uses = []
    for scorer, choice, known in zip(inputs.scorers, modes, scores, strict=True):
        options = scorer_options(config, scorer, sharers=families.count(scorer.model.family))
        price = config.cost.price(str(scorer.model))
        prefix = f"runs/{run.run_id}/"
        uses.append(
            ScorerUse(
                number=scorer.number,
                model=scorer.model,
                pin=scorer.pin,
                options=replace(options, mode=choice.mode if choice else None),
                depth=scorer.config.depth,
                cache=known.use() if known else None,
                paid=PaidUse(run.root, prefix, scorer.number, price, config.cost.cap)
                if scorer.is_service
                else None,
            )
        )
    return uses


def searches_of(config: Config, inputs: Inputs) -> dict[str, Search]:
    """What is searched, by the names of the stages that do it."""
    if isinstance(inputs, ComparisonInputs):
        return inputs.searches()
    return {"retrieve": Search(inputs.index, config.retrieval.sources)}


def build_stages(
    config: Config,
    inputs: Inputs,
    resources: Cluster,
    block_rows: int,
    uses: Sequence[ScorerUse],
    groups: Groups,
) -> list[StageSpec]:
    """The boxes of the pipeline, in order, of this cascade and these groups of shards."""
    parts = groups["retrieve"]
    pools = plan_pools(config.compute, resources.cpus, resources.gpus, [len(parts)])
    top_k = config.reranker.top_k if config.reranker else min(10, config.retrieval.depth)
    gate = config.reranker.gate if config.reranker else None
    sources = config.retrieval.sources
    encode = StageSpec(
        "encode",
        EncodeQueries,
        {
            "encoder": inputs.encoder,
            "options": query_encoder_options(config, inputs.index),
        },
        pools.encoders,
        schema.ENCODED,
    )
    found_by = tuple(
        source_use(config, source, config.retrieval.depth_of(source), inputs.given, inputs.excluded)
        for source in sources
    )
    last = parts[-1]
    begin = group_stages("retrieve", inputs.index, found_by, parts, pools)
    retrieve = StageSpec(
        group_name("retrieve", len(parts), len(parts)),
        SearchShards,
        {
            "index": inputs.index.part(last.start, last.stop),
            "depth": config.retrieval.depth,
            "sources": found_by,
            "fusion": fusion_of(config),
            "gate": Gate(gate.signal, gate.threshold)
            if gate and gate.threshold is not None
            else None,
        },
        of_group(pools.retrievers, len(parts)),
        schema.RETRIEVED,
        alone=len(parts) > 1,
    )
    assemble = StageSpec(
        "assemble",
        AssembleResults,
        {
            "index": inputs.index,
            "top_k": top_k,
            "measures": config.evaluation.measures,
            "qrels": inputs.planned_qrels,
            "stages": max(len(uses), 1),
        },
        pools.assemblers,
        schema.results(config.evaluation.measures, max(len(uses), 1)).append(schema.REJECT_FIELD),
    )
    stages = [*begin, retrieve, *_rerank_stages(inputs, block_rows, uses, pools), assemble]
    return [encode, *stages] if "dense" in sources else stages


def _rerank_stages(
    inputs: Inputs, block_rows: int, uses: Sequence[ScorerUse], pools: Pools
) -> list[StageSpec]:
    """The cascade in as few stages as it takes: models that follow each other share their actors,
    services have one actor for the whole job."""
    groups = [(paid, tuple(each)) for paid, each in groupby(uses, lambda use: use.paid is not None)]
    here = sum(not paid for paid, _ in groups)
    return [
        StageSpec(
            "rerank" if number == 0 else f"rerank-{scorers[0].number}",
            Rerank,
            {"scorers": scorers, "index": inputs.index},
            pools.callers if paid else shared(pools.scorers, here),
            schema.RERANKED,
            block_rows,
            alone=paid,
        )
        for number, (paid, scorers) in enumerate(groups)
    ]


def rows_per_block(config: Config, queries: int) -> int:
    """Queries per block: a fixed number, or about 64 blocks of a size that batches well.

    Depends on the number of queries alone, never on the machine, so that results do not either.
    """
    if config.compute.block_rows != "auto":
        return config.compute.block_rows
    return min(_LARGEST_BLOCK, max(_SMALLEST_BLOCK, queries // _BLOCKS))


def new_run_id(job: str) -> str:
    """A run id that sorts by time: job, UTC time, four random characters."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return f"{job[:40]}-{stamp}-{secrets.token_hex(2)}"


def _excluded(inputs: Inputs) -> dict[str, int] | None:
    """What retrieval.exclude took out, for the summary; None where there is no such list."""
    excluded = inputs.excluded
    if excluded.fingerprint is None:
        return None
    return {"documents": len(excluded.documents), "unknown": excluded.unknown}


def _excluded_line(documents: int, unknown: int) -> str:
    none = f"; {unknown:,} ids of the list are not in the corpus" if unknown else ""
    return f"{documents:,} documents by retrieval.exclude{none}"


def _planned_rejects(plan: Plan) -> int:
    return sum(plan.reject_counts().values())


def _rejects(planned: dict[str, int], later: Mapping[str, float]) -> dict[str, int]:
    counts = dict(planned)
    for reason, count in later.items():
        counts[reason] = counts.get(reason, 0) + int(count)
    return dict(sorted(counts.items()))


def _whole(counts: Mapping[str, float]) -> dict[str, int]:
    return {reason: int(count) for reason, count in counts.items()}


def _rows(planned: Mapping[str, int], later: Mapping[str, int]) -> int:
    return sum(planned.values()) + sum(later.values())


def _means(
    sums: Mapping[str, float], measures: tuple[str, ...], judged: int, systems: Sequence[str]
) -> dict[str, dict[str, float]]:
    if not judged:
        return {}
    return {
        system: {name: sums.get(f"{system}/{name}", 0.0) / judged for name in measures}
        for system in systems
    }
