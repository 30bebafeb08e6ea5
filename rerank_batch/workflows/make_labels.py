"""Make labels: mine a finished run for training rows, split them, check for leaks, write them."""

from collections.abc import Generator, Sequence
from dataclasses import asdict, replace
from typing import Any

from rerank_batch import schema
from rerank_batch.config import Config
from rerank_batch.errors import ConfigError, LabelsLeak
from rerank_batch.labels.dataset import check_target, write_dataset
from rerank_batch.labels.mining.stage import MineLabels
from rerank_batch.labels.rows import (
    LABELLED,
    PLAN,
    POSITIVE,
    RULES,
    SPLITS,
    labelled_batches,
    sums_of,
)
from rerank_batch.labels.splits import LeakCheck, WrittenQuery, check_leaks
from rerank_batch.pipeline.blocks import rows_per_block
from rerank_batch.pipeline.pools import plan_pools
from rerank_batch.pipeline.resources import Cluster
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.ray_backend.execution import run_queries
from rerank_batch.remarks import remark_objects
from rerank_batch.reporter import Reporter
from rerank_batch.runs import (
    COMPLETE,
    Run,
    is_begun,
    publish_run,
    total,
)
from rerank_batch.runs.commit import BlockDone
from rerank_batch.schema import JsonObject
from rerank_batch.storage import open_root
from rerank_batch.workflows.execute import Execution, execute
from rerank_batch.workflows.label_inputs import LabelInputs, plan_label_run, read_label_inputs
from rerank_batch.workflows.peak_memory import PeakMemory
from rerank_batch.workflows.rerank import rerank
from rerank_batch.workflows.start import NewRun, Start, begin, driving, new_run_id

COMMAND = "make-labels"
JOB_SUFFIX = "-labels"
"""Label runs are of a job of their own, so that readers of results never meet them."""

NEW = "new"
"""In the place of a run: make one first, of the configuration's log, index and reranker."""

_SOURCE_SUFFIX = "-source"
_JOB_CHARS = 57


def make_labels(
    config: Config,
    reporter: Reporter,
    out: str,
    source_run: str = "latest",
    start: Start | None = None,
) -> JsonObject:
    """Mine a finished run ('latest': the job's newest) and write a dataset to ``out``.

    With 'new' the run is made first, under the label run's id with `-source` behind it, and not
    published; the same command with the same id goes on with whichever of the two was stopped.

    Returns the dataset card, with where things lie. Of a label run that is complete the dataset is
    written again.

    Raises:
        LabelsLeak: the splits share what they must not; the run stays unfinished.
    """
    labels, target = config.labels, open_root(out)
    check_target(target)
    start = start or Start()
    with PeakMemory() as memory:
        open_root(config.root).check_writes()
        if source_run == NEW:
            start, source_run = _make_source(config, reporter, start)
        resume = start.resume
        begun = Run.open(open_root(config.root), resume) if resume is not None else None
        inputs = read_label_inputs(config, source_run, reporter, begun)
        if labels.source == "qrels" and labels.qrels is None and labels.split.held_out is None:
            reporter.note(
                "labels are made from qrels.path, which evaluate reads as well: what is trained on "
                "them can be measured on their test split alone. To keep judgements apart, give "
                "labels.qrels and labels.split.held_out"
            )
        run = _begin(config, inputs, start)
        if run.state() == COMPLETE:
            reporter.note(f"run {run.run_id} is complete: nothing is left to mine")
        else:
            mine(run, config, inputs, reporter, take_over=start.take_over)
        publish_run(run)
        reporter.note(f"writing the dataset to {out}")
        card = write_dataset(run, target, labels.formats, labels.tuple_negatives, labels.license)
    final = run.finished()
    return {
        **card,
        "seconds": final["seconds"],
        "rows_per_second": final["rows_per_second"],
        "dashboard": final.get("dashboard"),
        "peak_memory_gb": round(memory.bytes / 2**30, 2),
        "root": config.root,
        "out": out,
        "remarks": remark_objects(inputs.remarks),
    }


def _make_source(config: Config, reporter: Reporter, start: Start) -> tuple[Start, str]:
    """Make the run that is to be mined, or what is left of it; how the label run is begun, and that
    run's id."""
    run_id = start.resume or start.run_id or new_run_id(label_job(config))
    source = run_id + _SOURCE_SUFFIX
    rerank(config, reporter, Start(source, None, start.take_over, True), publish=False)
    if is_begun(open_root(config.root), run_id):
        return Start(resume=run_id, take_over=start.take_over), source
    return Start(run_id=run_id, take_over=start.take_over), source


def label_job(config: Config) -> str:
    """The job that the configuration's label runs are of."""
    return config.job[:_JOB_CHARS] + JOB_SUFFIX


def dry_run(config: Config, out: str, source_run: str = "latest") -> JsonObject:
    """Check every input and say what would be done; nothing is written and nobody is asked.

    Raises:
        ConfigError: the run is yet to be made, which a dry run of `rerank` tells of.
    """
    check_target(open_root(out))
    if source_run == NEW:
        raise ConfigError(
            "--dry-run cannot look into a run that is yet to be made: `rerank CONFIG --dry-run` "
            "checks what it is made of"
        )
    return {"dry_run": True, **plan_label_run(config, source_run), "out": out}


def mine(
    run: Run, config: Config, inputs: LabelInputs, reporter: Reporter, take_over: bool = False
) -> None:
    """Label every block that is not done, check for leaks, finish the run.

    Raises:
        LabelsLeak: see `make_labels`.
    """
    run.write_plan(inputs.plan.queries, schema.REJECTS.empty_table())
    with driving(run, config, reporter, take_over) as lease:
        task = _Mining(run, config, inputs)
        finish(run, config, inputs, execute(run, lease, config.compute, task, reporter))


def finish(run: Run, config: Config, inputs: LabelInputs, execution: Execution) -> JsonObject:
    """Check what was written for leaks and create final.json with everything the card tells.

    Raises:
        LabelsLeak: the message names kinds and ids.
    """
    files = [
        run.root.path(run.listed({"key": commit.results.key}))
        for commit in run.commits()
        if commit.results
    ]
    leaks = check_leaks(_written(files), config.labels.split.similarity, inputs.held_out)
    if not leaks.passed:
        listed = "\n".join(f"  - {leak}" for leak in leaks.leaks)
        counts = ", ".join(f"{kind} {count:,}" for kind, count in leaks.counts.items())
        raise LabelsLeak(
            f"the labels of run {run.run_id} leak ({counts}):\n{listed}\nNo dataset is written. "
            "Change labels.split (similarity, shared, held_out) and make the labels again"
        )
    return run.finish(_totals(run, config, inputs, leaks, execution))


def _begin(config: Config, inputs: LabelInputs, start: Start) -> Run:
    """A new label run, or the one to go on with, which must be made of the same."""
    planned = inputs.plan.queries.num_rows
    rows, job = rows_per_block(config, planned), label_job(config)
    new = NewRun(job, inputs.made_of, planned, rows, {"command": COMMAND})
    return begin(open_root(config.root), config, replace(start, or_resume=False), new)


class _Mining:
    """The task of a label run: one actor for each CPU, as mining is plain Python."""

    def __init__(self, run: Run, config: Config, inputs: LabelInputs) -> None:
        self._run, self._config, self._inputs = run, config, inputs

    def prepare(self, resources: Cluster, to_do: Sequence[int]) -> Sequence[StageSpec]:
        """See `execute.Task`."""
        wanted = self._config.compute.scorers
        size = max(1, int(resources.cpus)) if wanted == "auto" else wanted
        size = min(size, len(to_do))
        compute = self._config.compute.model_copy(update={"scorers": size})
        pool = plan_pools(compute, resources.cpus, 0).scorers
        arguments = {"index": self._inputs.index, "mining": self._inputs.mining}
        output = LABELLED.append(schema.REJECT_FIELD)
        return [StageSpec("mine", MineLabels, arguments, pool, output)]

    def blocks(
        self, to_do: Sequence[int], stages: Sequence[StageSpec]
    ) -> Generator[BlockDone, None, None]:
        """See `execute.Task`."""
        return run_queries(to_do, stages, self._run.writer(), False, plan=PLAN, sums=sums_of)

    def committed(self, block: BlockDone) -> None:
        """See `execute.Task`: a label run has no limit to watch."""


def _totals(
    run: Run,
    config: Config,
    inputs: LabelInputs,
    leaks: LeakCheck,
    execution: Execution,
) -> JsonObject:
    commits = run.commits()
    sums = {name: int(value) for name, value in total(commits, "sums").items()}
    rows = sum(value for name, value in sums.items() if name.startswith("rows."))
    share = 1 - execution.done_before / max(run.spec.planned, 1)
    labels = config.labels
    rules = {**labels.filters.model_dump(), "is_logit": inputs.mining.rules.is_logit}
    return {
        "fingerprint": run.spec.fingerprint,
        "queries": sums["queries"],
        "rejects": {k: int(v) for k, v in total(commits, "reject_reasons").items()},
        "pairs": rows,
        "metrics": {},
        "seconds": {
            **{k: round(v, 2) for k, v in total(commits, "seconds").items()},
            "start": round(execution.start_seconds, 2),
            "execute": round(execution.execute_seconds, 2),
        },
        "rows_per_second": round(rows * share / max(execution.execute_seconds, 1e-9), 1),
        "events": {name: int(count) for name, count in total(commits, "events").items()},
        "dashboard": execution.dashboard,
        "labels": {
            "source": asdict(inputs.source),
            "groups": inputs.plan.groups,
            "queries_unknown_to_the_truth": inputs.plan.unknown,
            "split_queries": {split: sums[f"queries.{split}"] for split in SPLITS},
            "looked_at": sums["looked_at"],
            "rules": rules,
            "positives": labels.positives.model_dump(),
            "negatives": labels.negatives.model_dump(),
            "split": labels.split.model_dump(exclude={"held_out"}),
            "seed": labels.seed,
            "removed": {rule: sums[f"removed.{rule}"] for rule in RULES},
            "leak_check": leaks.to_json(),
        },
    }


def _written(files: list[str]) -> Any:
    """The queries of the files with their positives, as the leak check wants them."""
    columns = [
        "query_ids",
        "query",
        "split",
        "documents.list.element.doc_id",
        "documents.list.element.role",
    ]
    for table in labelled_batches(files, columns):
        for row in table.to_pylist():
            positives = [each["doc_id"] for each in row["documents"] if each["role"] == POSITIVE]
            yield WrittenQuery(row["query_ids"], row["query"], row["split"], positives)
