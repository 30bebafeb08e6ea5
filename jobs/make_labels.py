"""Make labels: mine a finished run for training rows, split them, check for leaks, write them."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from rich.table import Table

from jobs.console import Console, PeakMemory, facts_table
from jobs.inputs import node_cache, versions
from jobs.labels import label_files, read_labels
from jobs.rerank import Start, _how_to_go_on, _owned, new_run_id, rows_per_block
from rerank_batch import schema
from rerank_batch.config import (
    Config,
    LabelFiltersConfig,
    LabelWindowConfig,
    QrelsConfig,
    digest,
)
from rerank_batch.errors import ConfigError, IndexMismatch, LabelsLeak, RunConflict
from rerank_batch.labels.candidates import Source
from rerank_batch.labels.dataset import check_target, write_dataset
from rerank_batch.labels.mining import MineLabels, Mining, OtherRun
from rerank_batch.labels.planning import LabelPlan, Truth, plan_labels
from rerank_batch.labels.rows import (
    LABELLED,
    PLAN,
    POSITIVE,
    RULES,
    SPLITS,
    labelled_batches,
    sums_of,
)
from rerank_batch.labels.rules import Rules
from rerank_batch.labels.splits import HeldOut, LeakCheck, Written, check_leaks
from rerank_batch.pipeline import Cluster, cluster, run_queries
from rerank_batch.pools import plan_pools
from rerank_batch.qrels import SUFFIXES as QRELS_SUFFIXES
from rerank_batch.qrels import read_qrels
from rerank_batch.queries import Plan
from rerank_batch.rerankers import FAMILIES
from rerank_batch.retrieval.index import Index, read_manifest, verify_files
from rerank_batch.run import (
    ABORTED,
    COMPLETE,
    Lease,
    Run,
    block_bounds,
    latest_run,
    refuse_if_taken_over,
    total,
)
from rerank_batch.stages import StageSpec
from rerank_batch.storage import open_root
from rerank_batch.tables import fingerprint_files

COMMAND = "make-labels"
JOB_SUFFIX = "-labels"
"""Label runs are of a job of their own, so that readers of results never meet them."""

_JOB_CHARS = 57


@dataclass(frozen=True)
class LabelInputs:
    """Everything a label run works on, checked before anything is started."""

    index: Index
    mining: Mining
    held_out: HeldOut
    plan: LabelPlan
    made_of: dict[str, Any]
    told: dict[str, Any]


def make_labels(
    config: Config,
    console: Console,
    out: str,
    source_run: str = "latest",
    start: Start | None = None,
) -> dict[str, Any]:
    """Mine a finished run ('latest': the job's newest) and write a dataset to ``out``.

    Returns the dataset card, with where things lie. Of a label run that is complete the dataset is
    written again.

    Raises:
        LabelsLeak: the splits share what they must not; the run stays unfinished.
    """
    labels, target = config.labels, open_root(out)
    check_target(target)
    with PeakMemory() as memory:
        open_root(config.root).check_writes()
        inputs = read_label_inputs(config, source_run)
        if labels.source == "qrels" and labels.qrels is None and labels.split.held_out is None:
            console.note(
                "labels are made from qrels.path, which evaluate reads as well: what is trained on "
                "them can be measured on their test split alone. To keep judgements apart, give "
                "labels.qrels and labels.split.held_out"
            )
        run = _begin(config, inputs, start or Start())
        if run.state() == COMPLETE:
            console.note(f"run {run.run_id} is complete: nothing is left to mine")
        else:
            mine(run, config, inputs, console, take_over=start is not None and start.take_over)
        run.publish()
        console.note(f"writing the dataset to {out}")
        card = write_dataset(run, target, labels.formats, labels.tuple_negatives, labels.license)
    final = run.finished()
    return {
        **card,
        "seconds": final["seconds"],
        "rows_per_second": final["rows_per_second"],
        "peak_memory_gb": round(memory.bytes / 2**30, 2),
        "root": config.root,
        "out": out,
    }


def read_label_inputs(config: Config, source_run: str) -> LabelInputs:
    """Read and check the run, its index and the source of truth, and plan what is to be labelled.

    Raises:
        RerankBatchError: the first thing that is wrong, in the words of whoever found it.
    """
    labels = config.labels
    root = open_root(config.root)
    source = latest_run(root, config.job) if source_run == "latest" else Run.open(root, source_run)
    _check_minable(source)
    index = _index(config, source)
    teacher = _teacher(source)
    if labels.source == "teacher" and teacher is None:
        raise ConfigError(
            f"labels.source is teacher, but run {source.run_id} had no reranker: nothing scored"
        )
    truth = read_truth(config)
    held_out = _held_out(labels.split.held_out, labels.positives.grade)
    candidates = Source.of(source)
    plan = plan_labels(candidates, truth.truth, labels, held_out)
    others = [
        Run.open(open_root(each.root or config.root), each.run) for each in labels.negatives.runs
    ]
    for run in others:
        _check_minable(run)
    mining = Mining(
        source=candidates,
        others=tuple(
            OtherRun(
                run.run_id,
                Source.of(run),
                _to_the_end(window, run),
                _same(teacher, _teacher(run)),
            )
            for run, window in zip(others, labels.negatives.runs, strict=True)
        ),
        window=_to_the_end(labels.negatives.retrieval, source),
        random=labels.negatives.random,
        positives=labels.positives,
        graded=truth.truth.grades is not None,
        rules=Rules(labels.filters, labels.positives.grade, _is_logit(labels.filters, teacher)),
        seed=labels.seed,
    )
    settings = labels.model_dump(mode="json")
    for name in ("formats", "tuple_negatives", "license", "qrels"):
        del settings[name]
    del settings["split"]["held_out"]
    settings["negatives"]["runs"] = [
        {key: value for key, value in each.items() if key != "root"}
        for each in settings["negatives"]["runs"]
    ]
    made_of = {
        "settings": settings,
        "run": _content(source),
        "others": [_content(run) for run in others],
        "truth": truth.made_of,
        "held_out": _fingerprint(labels.split.held_out),
        "index": index.manifest.made_of,
        "plan": Plan(plan.queries, schema.REJECTS.empty_table(), 0).fingerprint(),
    }
    told = {
        "truth": labels.source,
        "judgements": truth.told,
        "run": source.run_id,
        "others": [run.run_id for run in others],
        "teacher": teacher,
        "documents": index.manifest.documents,
        "corpus": index.manifest.made_of["corpus"],
    }
    return LabelInputs(index, mining, held_out, plan, made_of, told)


def mine(
    run: Run, config: Config, inputs: LabelInputs, console: Console, take_over: bool = False
) -> None:
    """Label every block that is not done, check for leaks, finish the run.

    Raises:
        LabelsLeak: see `make_labels`.
    """
    run.write_plan(inputs.plan.queries, schema.REJECTS.empty_table())
    lease_seconds = config.storage.lease_seconds
    run.claim(take_over, lease_seconds, console.note)
    with _owned(run, lease_seconds) as lease, _how_to_go_on(run, lease, console):
        measured = _execute(run, lease, config, inputs, console)
        finish(run, config, inputs, measured)


def finish(
    run: Run, config: Config, inputs: LabelInputs, measured: Mapping[str, Any]
) -> dict[str, Any]:
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
        raise LabelsLeak(f"the labels of run {run.run_id} leak ({counts}):\n{listed}")
    return run.finish(_totals(run, config, inputs, leaks, measured))


def _begin(config: Config, inputs: LabelInputs, start: Start) -> Run:
    """A new label run, or the one to go on with, which must be made of the same."""
    root = open_root(config.root)
    if start.resume is not None:
        run = Run.open(root, start.resume)
        run.check_made_of(inputs.made_of)
        if run.state() == ABORTED:
            raise RunConflict(f"run {run.run_id} was aborted; begin a new one")
        return run
    planned = inputs.plan.queries.num_rows
    block_rows = rows_per_block(config, planned)
    job = config.job[:_JOB_CHARS] + JOB_SUFFIX
    return Run.create(
        root,
        start.run_id or new_run_id(job),
        {
            "job": job,
            "command": COMMAND,
            "created": datetime.now(UTC).isoformat(),
            "fingerprint": digest(inputs.made_of),
            "made_of": inputs.made_of,
            "config": config.model_dump(mode="json"),
            "versions": versions(),
            "planned": planned,
            "block_rows": block_rows,
            "blocks": len(block_bounds(planned, block_rows)),
        },
    )


def _execute(
    run: Run, lease: Lease, config: Config, inputs: LabelInputs, console: Console
) -> dict[str, Any]:
    """Label what is left to do; what this driver measured of itself."""
    began = perf_counter()
    planned = inputs.plan.queries.num_rows
    done = run.done()
    done_before = completed = len(done)
    to_do = run.blocks_to_do(done)
    kept = f", {done_before:,} of them done before" if run.epoch > 1 else ""
    console.note(f"run {run.run_id}: {planned:,} queries in {len(run.blocks())} blocks{kept}")
    start_seconds = 0.0
    if to_do:
        with cluster(config.compute, console.verbose) as resources:
            start_seconds = perf_counter() - began
            stage = _mining_stage(config, inputs, resources, len(to_do))
            blocks = run_queries(to_do, [stage], run.writer(), False, plan=PLAN, sums=sums_of)
            progress = console.progress(
                "queries", planned, lambda: completed, remark=resources.missing
            )
            with progress, closing(blocks):
                for block in blocks:
                    completed += block.queries
                    if lease.lost:
                        refuse_if_taken_over(run.root, run.run_id, run.epoch)
    return {
        "start": start_seconds,
        "execute": perf_counter() - began - start_seconds,
        "done_before": done_before,
    }


def _mining_stage(
    config: Config, inputs: LabelInputs, resources: Cluster, blocks: int
) -> StageSpec:
    """One actor for each CPU, as mining is plain Python, which has one thread."""
    wanted = config.compute.scorers
    size = max(1, int(resources.cpus)) if wanted == "auto" else wanted
    compute = config.compute.model_copy(update={"scorers": min(size, blocks)})
    pool = plan_pools(compute, resources.cpus, 0).scorers
    arguments = {"index": inputs.index, "mining": inputs.mining}
    return StageSpec("mine", MineLabels, arguments, pool, LABELLED.append(schema.REJECT_FIELD))


def _totals(
    run: Run,
    config: Config,
    inputs: LabelInputs,
    leaks: LeakCheck,
    measured: Mapping[str, Any],
) -> dict[str, Any]:
    commits = run.commits()
    sums = {name: int(value) for name, value in total(commits, "sums").items()}
    rows = sum(value for name, value in sums.items() if name.startswith("rows."))
    share = 1 - measured["done_before"] / max(run.spec["planned"], 1)
    labels = config.labels
    rules = {**labels.filters.model_dump(), "is_logit": inputs.mining.rules.is_logit}
    return {
        "fingerprint": run.spec["fingerprint"],
        "queries": sums["queries"],
        "rejects": {k: int(v) for k, v in total(commits, "reject_reasons").items()},
        "pairs": rows,
        "metrics": {},
        "seconds": {
            **{k: round(v, 2) for k, v in total(commits, "seconds").items()},
            "start": round(measured["start"], 2),
            "execute": round(measured["execute"], 2),
        },
        "rows_per_second": round(rows * share / max(measured["execute"], 1e-9), 1),
        "events": {name: int(count) for name, count in total(commits, "events").items()},
        "labels": {
            "source": inputs.told,
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
            "leak_check": leaks.as_json(),
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
            yield Written(row["query_ids"], row["query"], row["split"], positives)


def _index(config: Config, source: Run) -> Index:
    """The index that the run retrieved from, for the texts of its documents.

    Raises:
        IndexMismatch: it is another one by now.
    """
    root = open_root(config.index.path)
    index = Index(root, read_manifest(root), node_cache(config.storage))
    if index.manifest.made_of != source.spec["made_of"]["index"]:
        raise IndexMismatch(
            f"the index at {root.uri} is not the one that run {source.run_id} retrieved from: its "
            "texts may be others. Run rerank again, or name the index it was run with"
        )
    verify_files(index)
    return index


def _check_minable(run: Run) -> None:
    """Only a run of one system has candidates with one teacher's scores.

    Raises:
        RunConflict: the run holds something else, or is not complete.
    """
    what = "labels" if "labels" in run.finished() else "several systems"
    if what == "labels" or run.spec.get("systems"):
        raise RunConflict(f"run {run.run_id} holds {what}; name one of rerank or evaluate")


def _teacher(run: Run) -> dict[str, Any] | None:
    """The last reranker of a run: its name, its fingerprint, the mode it ran in."""
    reranker = run.spec["config"].get("reranker")
    if reranker is None:
        return None
    models = [reranker["model"], *(stage["model"] for stage in reranker["stages"])]
    prints = run.spec["made_of"]["reranker"]
    return {
        "model": models[-1],
        "fingerprint": prints[-1],
        "mode": run.finished().get("mode"),
    }


def _to_the_end(window: LabelWindowConfig, run: Run) -> LabelWindowConfig:
    """The window with the run's depth for an end that was left open."""
    if window.last is not None:
        return window
    depth = max(run.spec["config"]["retrieval"]["depth"], window.first)
    return LabelWindowConfig(first=window.first, last=depth, count=window.count)


def _same(teacher: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether two runs' scores are of one model."""
    return bool(teacher and other and teacher["fingerprint"] == other["fingerprint"])


def _is_logit(filters: LabelFiltersConfig, teacher: Mapping[str, Any] | None) -> bool:
    """Whether shares are taken of the sigmoid: late interaction gives similarities, services mostly
    probabilities, every other family logits."""
    if filters.scale != "auto" or teacher is None:
        return filters.scale == "sigmoid"
    family = str(teacher["model"]).partition(":")[0]
    return family != "late-interaction" and not FAMILIES[family].service


@dataclass(frozen=True)
class TruthRead:
    """A source of truth that was read: where from, for the card, and what it is made of."""

    truth: Truth
    told: str
    made_of: Any


def read_truth(config: Config) -> TruthRead:
    """What ``labels.source`` names; another source is another branch here, in the form of `Qrels`.

    Raises:
        ConfigError: its paths are not given.
        InputError: they cannot be read.
    """
    source = config.labels.source
    if source == "teacher":
        return TruthRead(Truth(source, None), "the run's last reranker", None)
    if source == "clicks":
        evaluation = config.evaluation.model_copy(update={"labels": "clicks"})
        by_clicks = config.model_copy(update={"evaluation": evaluation})
        labels = read_labels(by_clicks)
        if labels is None or labels.clicks is None or config.clicks is None:
            raise ConfigError("labels.source is clicks: give clicks.path")
        told = f"{config.clicks.path}: {labels.clicks.words}"
        settings = config.clicks.model_dump(mode="json", exclude={"path"})
        made_of = {"files": label_files(by_clicks), "settings": settings}
        return TruthRead(Truth(source, labels.qrels), told, made_of)
    qrels = config.labels.qrels or config.qrels
    if qrels is None:
        raise ConfigError("labels.source is qrels: give labels.qrels.path or qrels.path")
    return TruthRead(Truth(source, read_qrels(qrels)), qrels.path, _fingerprint(qrels))


def _held_out(config: QrelsConfig | None, grade: int) -> HeldOut:
    if config is None:
        return HeldOut()
    qrels = read_qrels(config)
    documents = {d for grades in qrels.values() for d, value in grades.items() if value >= grade}
    return HeldOut(frozenset(qrels), frozenset(documents))


def _fingerprint(config: QrelsConfig | None) -> dict[str, Any] | None:
    if config is None:
        return None
    files = fingerprint_files(config.path, QRELS_SUFFIXES, "qrels")
    return {"files": files, "filter": config.model_dump(mode="json")["filter"]}


def _content(run: Run) -> dict[str, str]:
    """A finished run by what it holds."""
    final = run.finished()
    return {"run_id": run.run_id, "files": digest([file["sha256"] for file in final["results"]])}


def show(card: dict[str, Any], console: Console) -> None:
    """Print rows by split, what was kept out by which rule, and where the dataset is."""
    table = Table(title=f"Labels of {card['source']['run']}", title_justify="left", pad_edge=False)
    table.add_column("split")
    for column in ("queries", "positives", "negatives"):
        table.add_column(column, justify="right")
    for split in SPLITS:
        counts = [card["rows"].get(f"{split} {role}", 0) for role in ("positive", "negative")]
        table.add_row(split, *(f"{n:,}" for n in (card["split_queries"][split], *counts)))
    removed = {rule: count for rule, count in card["removed"].items() if count}
    rows = sum(card["rows"].values())
    facts: dict[str, object] = {
        "run": card["run"],
        "truth": card["source"]["truth"],
        "looked at": f"{card['looked_at']:,} documents for negatives",
        "kept out": ", ".join(f"{rule} {count:,}" for rule, count in removed.items()) or "none",
        "rejects": ", ".join(f"{k} {v:,}" for k, v in card["rejects"].items()) or "none",
        "leak check": "passed",
        "rows": f"{rows:,} ({card['rows_per_second']:,} rows/s)",
        "peak memory": f"{card['peak_memory_gb']} GiB, all processes",
        "dataset": card["out"],
    }
    console.result(card, table, facts_table("Labels", facts))
