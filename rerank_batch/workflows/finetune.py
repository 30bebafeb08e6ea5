"""Train a cross-encoder on labels, keep the best of it, and measure what that gained."""

import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rerank_batch.config import ComputeConfig
from rerank_batch.errors import ConfigError
from rerank_batch.models.fingerprint import model_fingerprint
from rerank_batch.models.location import model_folder
from rerank_batch.reporter import Reporter
from rerank_batch.schema import JsonObject
from rerank_batch.training.config import FinetuneConfig
from rerank_batch.training.dev import DevQueries
from rerank_batch.training.labels import Labels, read_labels, trainable
from rerank_batch.training.workspace import Workspace

if TYPE_CHECKING:  # it loads torch
    from rerank_batch.training.result import FinetuneSummary

_NEEDED = ("accelerate", "datasets")
_VERSIONED = ("torch", "transformers", "sentence-transformers", "peft")


@dataclass(frozen=True)
class TrainingWork:
    """How a call trains; changes no result but for ``minutes``, after which the best is taken."""

    resume: bool = False
    minutes: float | None = None
    workers: int = 1


@dataclass(frozen=True)
class FinetunePlan:
    """What a training would read and do.

    ``rows`` and ``queries`` are by split, ``left_out`` how many of which kind cannot be trained on.
    ``rounds`` is how often each query is read, ``measurements`` how often the dev split is.
    """

    made_of: Mapping[str, str]
    head: str
    documents: int
    rows: Mapping[str, int]
    queries: Mapping[str, int]
    train_queries: int
    left_out: Mapping[str, int]
    steps: int
    pairs_per_step: int
    pairs: int
    rounds: float
    dev_queries: int
    dev_pairs: int
    measurements: int
    workers: int

    def to_json(self) -> JsonObject:
        """The object that ``--json`` prints."""
        return dict(vars(self))


def finetune(
    config: FinetuneConfig, labels_folder: str, out: Path, work: TrainingWork, reporter: Reporter
) -> "FinetuneSummary":
    """Train and publish the model at ``out``; the summary says what it is and what it gained."""
    _refuse_missing_packages(config)
    if config.queries_per_step % work.workers:
        raise ConfigError(
            f"queries_per_step ({config.queries_per_step}) is not shared evenly by "
            f"{work.workers} workers"
        )
    from rerank_batch.training.precision import pick_precision
    from rerank_batch.training.result import finish

    labels = read_labels(labels_folder)
    source = model_folder(config.location)
    made_of = _made_of(config, labels, source)
    _, left_out = trainable(labels, config)
    for what, count in left_out.items():
        reporter.note(f"labels: {count:,} {what} are left out")
    workspace = Workspace(out)
    threads = math_threads()
    with workspace.claimed({"made_of": made_of, "config": _results_settings(config)}, work.resume):
        _write_start(workspace, source, config)
        precision = workspace.decided(
            "precision", lambda: pick_precision(config.precision, threads)
        )
        if workspace.ended() is None:
            watch = _Watch(workspace, config)
            with reporter.progress("training", config.steps, watch.done, watch.remark):
                _train(workspace, labels, config, precision, work, reporter)
        ended = workspace.ended()
        if ended is None:
            raise RuntimeError(f"training in {workspace.folder} left no word of its end")
        reporter.note(f"training ended after {ended.steps:,} steps: {ended.reason}; measuring")
        facts = {**made_of, "precision": precision}
        return finish(workspace, labels, config, ended, facts, threads)


def dry_run(config: FinetuneConfig, labels_folder: str, work: TrainingWork) -> FinetunePlan:
    """Check labels, settings and the start model, and say what training would do."""
    _refuse_missing_packages(config)
    from rerank_batch.training.model import has_head

    labels = read_labels(labels_folder)
    source = model_folder(config.location)
    queries, left_out = trainable(labels, config)
    dev = DevQueries(labels.splits["dev"], labels.texts, config.dev.measure, config.dev.queries)
    pairs = config.queries_per_step * config.documents_per_query
    return FinetunePlan(
        made_of=_made_of(config, labels, source),
        head="its own" if has_head(source) else "fresh",
        documents=len(labels.texts),
        rows={split: labels.rows(split) for split in labels.splits},
        queries={split: len(found) for split, found in labels.splits.items()},
        train_queries=len(queries),
        left_out=left_out,
        steps=config.steps,
        pairs_per_step=pairs,
        pairs=config.steps * pairs,
        rounds=config.steps * config.queries_per_step / len(queries),
        dev_queries=len(dev.queries),
        dev_pairs=dev.pairs,
        measurements=1 + -(-config.steps // config.dev.every),
        workers=work.workers,
    )


def _train(
    workspace: Workspace,
    labels: Labels,
    config: FinetuneConfig,
    precision: str,
    work: TrainingWork,
    reporter: Reporter,
) -> None:
    from rerank_batch.training.trainer import TrainingLimits, train, train_worker

    if work.workers == 1:
        train(workspace, labels, config, precision, TrainingLimits(work.minutes, math_threads()))
        return
    from rerank_batch.ray_backend.cluster import cluster
    from rerank_batch.ray_backend.training import train_on_workers

    # Workers read the labels themselves: a million rows are not for the object store.
    each = partial(train_worker, workspace, labels.folder, config, precision, work.minutes)
    with cluster(ComputeConfig(), reporter.verbose, reporter.note) as resources:
        train_on_workers(each, work.workers, resources, workspace.folder / "ray")


def _write_start(workspace: Workspace, source: Path, config: FinetuneConfig) -> None:
    from rerank_batch.training.model import write_start

    if workspace.start.is_dir():
        return
    partial_folder = workspace.folder / "start.partial"
    write_start(source, config, partial_folder)
    partial_folder.replace(workspace.start)


def _made_of(config: FinetuneConfig, labels: Labels, source: Path) -> dict[str, str]:
    """What decides the result beside the settings; a resume with anything else is refused."""
    found = {
        "start_model": config.model,
        "start_fingerprint": model_fingerprint(source),
        "labels": labels.fingerprint,
        "label_files": " ".join(sha256[:16] for sha256 in labels.files),
    }
    for name in _VERSIONED:
        if importlib.util.find_spec(name.replace("-", "_")):
            found[name] = importlib.metadata.version(name)
    return found


def _results_settings(config: FinetuneConfig) -> JsonObject:
    """The settings that change results."""
    return config.model_dump(mode="json", exclude={"model", "checkpoint"})


def _refuse_missing_packages(config: FinetuneConfig) -> None:
    needed = [*_NEEDED, *(["peft"] if config.lora else [])]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"finetune needs {', '.join(missing)}; install with: pip install 'rerank-batch[train]'"
        )


def math_threads() -> int:
    """The CPUs of this machine, or what OMP_NUM_THREADS says."""
    stated = os.environ.get("OMP_NUM_THREADS", "")
    return int(stated) if stated.isdigit() and int(stated) else os.cpu_count() or 1


class _Watch:
    """What the log says of a training, wherever it runs; read again only when it has grown."""

    def __init__(self, workspace: Workspace, config: FinetuneConfig) -> None:
        self._workspace = workspace
        self._measure = config.dev.measure
        self._size = -1
        self._entries: list[JsonObject] = []

    def done(self) -> int:
        """Steps that are done."""
        return max((entry["step"] for entry in self._read()), default=0)

    def remark(self) -> str:
        """Loss, measure and speed, as far as they are known."""
        entries = self._read()
        losses = [entry for entry in entries if "loss" in entry]
        measures = [entry for entry in entries if "measure" in entry]
        parts = []
        if losses:
            parts.append(f"loss {losses[-1]['loss']:.3f}")
        if measures:
            last = measures[-1]
            parts.append(
                f"{self._measure} {last['measure']:.4f} (best {last['best']:.4f} "
                f"at step {last['best_step']:,})"
            )
        if len(losses) > 1:
            before, after = losses[-2], losses[-1]
            steps, seconds = after["step"] - before["step"], after["seconds"] - before["seconds"]
            if seconds > 0 and steps > 0:
                parts.append(f"{steps / seconds:.2f} steps/s")
        return ", ".join(parts)

    def _read(self) -> list[JsonObject]:
        size = self._workspace.log.stat().st_size if self._workspace.log.is_file() else 0
        if size != self._size:
            self._size, self._entries = size, self._workspace.read_log()
        return self._entries
