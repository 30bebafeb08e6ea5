"""Training itself: sentence-transformers' trainer over our groups, measured by our measures.

Everything a run decides (what is best, when to stop, what to write) is decided by what it has on
disk and the step it is at, so that a run that was killed ends as one that was not.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import CrossEncoder
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, TrainerCallback

from rerank_batch.errors import ModelError
from rerank_batch.scoring.device import first_pass, pick_device
from rerank_batch.scoring.library import Library
from rerank_batch.scoring.loading import quiet
from rerank_batch.scoring.packing import TokenBudget
from rerank_batch.scoring.stored import default_prompt
from rerank_batch.training.batches import GroupPlan
from rerank_batch.training.config import FinetuneConfig
from rerank_batch.training.dev import DevQueries, Scores, average
from rerank_batch.training.labels import Labels, read_labels, trainable
from rerank_batch.training.losses import LOSSES, GroupCollator
from rerank_batch.training.model import load_start, load_trained, save_trained
from rerank_batch.training.workspace import WEIGHTS, Best, Ended, Workspace, step_of

_MEASURE = "eval_measure"
_MOST_LOGGED = 10
_ALL_DONE = "all steps are done"


@dataclass(frozen=True)
class TrainingLimits:
    """What bounds a call and changes no result: minutes to train, threads to compute with."""

    minutes: float | None = None
    threads: int = 1


def train(
    workspace: Workspace,
    labels: Labels,
    config: FinetuneConfig,
    precision: str,
    limits: TrainingLimits,
) -> None:
    """Train from the last whole checkpoint, or from the start model, to an end, which is noted.

    Called in every worker of a distributed training with the same arguments; torch.distributed is
    then set up already, and each takes its part of every step. ``precision`` is fp32 or bf16.

    Raises:
        ModelError: the loss is no number any more.
    """
    checkpoint = workspace.last_checkpoint()
    done = 0 if checkpoint is None else step_of(checkpoint)
    if (ended := _ended(workspace.best(), config, done)) is not None:
        workspace.end(ended)
        return
    model, _ = load_start(workspace.start, config)
    queries, _ = trainable(labels, config)
    plan = GroupPlan(queries, labels.texts, config)
    dev = DevQueries(labels.splits["dev"], labels.texts, config.dev.measure, config.dev.queries)
    arguments = _arguments(workspace, config, precision, resumed=checkpoint is not None)
    keeper = Keeper(workspace, config, limits, model)
    if checkpoint is not None and arguments.process_index == 0:
        workspace.cut_log(done)
    trainer = GroupTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict({"number": range(len(plan))}),
        loss=LOSSES[config.loss],
        evaluator=DevEvaluator(dev),
        data_collator=GroupCollator(
            model.preprocess, prompts=default_prompt(model) or None, plan=plan, config=config
        ),
        callbacks=[keeper],
    )
    trainer.remove_callback(PrinterCallback)
    first_pass(lambda: model.predict([("a", "b")], show_progress_bar=False), limits.threads)
    with quiet():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if arguments.process_index == 0:
        workspace.end(Ended(trainer.state.global_step, keeper.reason))


def train_worker(
    workspace: Workspace,
    labels: str,
    config: FinetuneConfig,
    precision: str,
    minutes: float | None,
    threads: int,
) -> None:
    """`train` as one of several workers, which reads the labels itself."""
    train(workspace, read_labels(labels), config, precision, TrainingLimits(minutes, threads))


def _ended(best: Best | None, config: FinetuneConfig, step: int) -> Ended | None:
    """Whether nothing is left to do at that step; None where something is."""
    if step >= config.steps:
        return Ended(step, _ALL_DONE)
    patience = config.dev.patience
    if best is None or patience is None or step - best.step < patience * config.dev.every:
        return None
    return Ended(step, f"no new best in {step - best.step:,} steps")


def _arguments(
    workspace: Workspace, config: FinetuneConfig, precision: str, resumed: bool
) -> CrossEncoderTrainingArguments:
    workers = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    schedule = "constant_with_warmup" if config.schedule == "constant" else config.schedule
    return CrossEncoderTrainingArguments(
        output_dir=str(workspace.checkpoints),
        max_steps=config.steps,
        per_device_train_batch_size=config.queries_per_step // workers,
        learning_rate=config.learning_rate,
        lr_scheduler_type=schedule,
        warmup_steps=config.warmup if config.warmup < 1 else int(config.warmup),
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip,
        bf16=precision == "bf16",
        use_cpu=pick_device() == "cpu",
        ddp_backend="gloo" if workers > 1 and pick_device() == "cpu" else None,
        ddp_find_unused_parameters=False,  # there are none, and losses may call the model twice
        seed=config.seed,
        batch_sampler=InOrder,
        eval_strategy="steps",
        eval_steps=config.dev.every,
        eval_on_start=not resumed,
        save_strategy="steps",
        save_steps=config.checkpoint.steps or config.steps,
        save_total_limit=2,
        logging_steps=max(1, min(_MOST_LOGGED, config.steps // 20)),
        logging_nan_inf_filter=False,
        dataloader_pin_memory=False,
        report_to="none",
        disable_tqdm=True,
    )


class InOrder(DefaultBatchSampler):
    """Groups as they are numbered: their order is part of what they are."""

    def __init__(self, dataset: Dataset, **settings: Any) -> None:
        super().__init__(SequentialSampler(dataset), **settings)


class GroupTrainer(CrossEncoderTrainer):
    """The library's trainer, with checkpoints of what learns and a loss that must be a number."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The loss of one batch."""
        loss = super().compute_loss(*args, **kwargs)
        value = loss[0] if isinstance(loss, tuple) else loss
        if not torch.isfinite(value).all():
            raise ModelError(
                f"the loss is {value.item()} in step {self.state.global_step + 1}: lower "
                "learning_rate, or train in fp32"
            )
        return loss

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None: the card is written by `card`."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_trained(self.model, folder / WEIGHTS)

    def _load_from_checkpoint(self, checkpoint_path: str, model: Any = None) -> None:
        load_trained(self.model, Path(checkpoint_path) / WEIGHTS)


class DevEvaluator(BaseEvaluator):
    """The configured measure over the dev queries, with the model as it is in training."""

    def __init__(self, dev: DevQueries) -> None:
        super().__init__()
        self._dev = dev

    def __call__(self, model: Any, *_: Any, **__: Any) -> dict[str, float]:
        """The measure, under a name that is the same for all."""
        return {"measure": average(self._dev.of_model(lambda *pairs: self._score(model, *pairs)))}

    def _score(
        self, model: CrossEncoder, queries: Sequence[str], documents: Sequence[Sequence[str]]
    ) -> Scores:
        was_training = model.training
        model.eval()
        try:
            flat, _ = Library(model, TokenBudget(None, model.device.type)).score(queries, documents)
        finally:
            model.train(was_training)
        scores, start = [], 0
        for listed in documents:
            scores.append(flat[start : start + len(listed)])
            start += len(listed)
        return scores


class Keeper(TrainerCallback):
    """Keeps the best weights and the log, and says when to write a checkpoint and when to stop."""

    def __init__(
        self, workspace: Workspace, config: FinetuneConfig, limits: TrainingLimits, model: Any
    ) -> None:
        self._workspace = workspace
        self._config = config
        self._limits = limits
        self._model = model
        self._began = self._saved = time.monotonic()
        self.reason = _ALL_DONE

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Write the loss of the last steps down."""
        if state.is_world_process_zero and logs and "loss" in logs:
            self._append(state.global_step, loss=logs["loss"])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a checkpoint, or for the end, when the time has come."""
        now = time.monotonic()
        minutes = self._config.checkpoint.minutes
        save = minutes is not None and now - self._saved >= 60 * minutes
        limit = self._limits.minutes
        stop = limit is not None and now - self._began >= 60 * limit
        save, stop = _agreed(save, stop)
        if stop and state.global_step < state.max_steps:
            self.reason = f"{limit:g} minutes are over"
            control.should_training_stop = control.should_save = control.should_evaluate = True
        elif save:
            control.should_save = True

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        """Keep the weights if they are the best, and stop if that was long ago."""
        step, value = state.global_step, metrics[_MEASURE]
        best = self._workspace.best()
        if best is None or value > best.value:
            best = Best(step, value)
            if state.is_world_process_zero:
                save_trained(self._model, self._workspace.best_weights(step))
                self._workspace.keep_best(best)
        if state.is_world_process_zero:
            self._append(step, measure=value, best=best.value, best_step=best.step)
        ended = _ended(best, self._config, step)
        if ended is not None and step < self._config.steps:
            self.reason = ended.reason
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say that the checkpoint is whole, now that all of it is written."""
        self._saved = time.monotonic()
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            self._workspace.mark_whole(state.global_step)

    def _append(self, step: int, **entry: Any) -> None:
        seconds = round(time.monotonic() - self._began, 1)
        self._workspace.append(step=step, seconds=seconds, **entry)


def _agreed(*wishes: bool) -> tuple[bool, ...]:
    """Clocks differ between workers; what one of them wants all do."""
    if not torch.distributed.is_initialized():
        return wishes
    flags = torch.tensor([float(wish) for wish in wishes])
    with contextlib.suppress(AttributeError):
        flags = flags.to(pick_device())
    torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
    return tuple(bool(flag) for flag in flags)
