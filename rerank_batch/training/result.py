"""What training came to: the model as others will load it, measured, with a card that says so."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rerank_batch.schema import JsonObject
from rerank_batch.training.card import card
from rerank_batch.training.config import FinetuneConfig
from rerank_batch.training.dev import DevQueries
from rerank_batch.training.labels import Labels
from rerank_batch.training.measure import MeasuredSplit, measure_models
from rerank_batch.training.model import write_tuned
from rerank_batch.training.workspace import Best, Ended, Workspace


@dataclass(frozen=True)
class FinetuneSummary:
    """A trained model: where it lies, what it is made of, how training went, what it gained.

    ``ended`` says why training ended, ``measure`` what chose the best step.
    """

    model: str
    made_of: Mapping[str, Any]
    steps: int
    ended: str
    best_step: int
    measure: str
    measured: tuple[MeasuredSplit, ...]

    def to_json(self) -> JsonObject:
        """The object that ``--json`` prints."""
        return {
            **vars(self),
            "made_of": dict(self.made_of),
            "measured": [split.to_json() for split in self.measured],
        }


def finish(
    workspace: Workspace,
    labels: Labels,
    config: FinetuneConfig,
    ended: Ended,
    made_of: Mapping[str, Any],
    threads: int,
) -> FinetuneSummary:
    """Write the best model, measure it, write its card and put it in its place."""
    best = workspace.best() or Best(0, 0.0)
    model = workspace.folder / "model"
    if model.exists():
        shutil.rmtree(model)
    write_tuned(workspace.start, workspace.best_weights(best.step), config, model)
    measured = measure_models(
        {
            split: DevQueries(
                labels.splits[split], labels.texts, config.dev.measure, config.final_queries
            )
            for split in ("dev", "test")
        },
        workspace.start,
        model,
        threads,
    )
    text = card(workspace.out.name, config, made_of, ended, best, measured)
    (model / "README.md").write_text(text, encoding="utf-8")
    workspace.publish(model)
    return FinetuneSummary(
        model=str(workspace.out),
        made_of=made_of,
        steps=ended.steps,
        ended=ended.reason,
        best_step=best.step,
        measure=config.dev.measure,
        measured=tuple(measured),
    )
