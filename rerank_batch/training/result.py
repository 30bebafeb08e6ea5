"""What training came to: the model as others will load it, measured, with a card that says so.

Start and result are both scored as `rerank` would score them, from their folders, in float32.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rerank_batch.evaluation.significance import PairedTest, paired_tests
from rerank_batch.models.location import ModelName
from rerank_batch.rerankers import load_scorer
from rerank_batch.rerankers.base import PairScorer, ScorerOptions
from rerank_batch.scoring.modes import Mode
from rerank_batch.training.card import card
from rerank_batch.training.config import FinetuneConfig
from rerank_batch.training.dev import Judged, average
from rerank_batch.training.labels import Labels
from rerank_batch.training.model import write_tuned
from rerank_batch.training.workspace import Best, Ended, Workspace


@dataclass(frozen=True)
class Measured:
    """Systems on the queries of one split: means by system, and the tuned model's gains.

    Systems are ``start``, ``tuned`` and, where the labels tell ranks, ``retrieval``; gains are
    under the name of the system that they are over.
    """

    split: str
    queries: int
    pairs: int
    means: dict[str, float]
    gains: dict[str, PairedTest]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        gains = {name: {**asdict(g), "outcome": g.outcome} for name, g in self.gains.items()}
        return {**vars(self), "gains": gains}


def finish(
    workspace: Workspace,
    labels: Labels,
    config: FinetuneConfig,
    ended: Ended,
    made_of: Mapping[str, Any],
    threads: int,
) -> dict[str, Any]:
    """Write the best model, measure it, write its card and put it in its place; the summary."""
    best = workspace.best() or Best(0, 0.0)
    model = workspace.folder / "model"
    if model.exists():
        shutil.rmtree(model)
    write_tuned(workspace.start, workspace.best_weights(best.step), config, model)
    measured = measure_models(
        {
            split: Judged(
                labels.splits[split], labels.texts, config.dev.measure, config.final_queries
            )
            for split in ("dev", "test")
        },
        workspace.start,
        model,
        threads,
    )
    summary = {
        "model": str(workspace.out),
        "made_of": dict(made_of),
        "steps": ended.steps,
        "ended": ended.reason,
        "best_step": best.step,
        "measure": config.dev.measure,
        "measured": [each.to_dict() for each in measured],
    }
    (model / "README.md").write_text(
        card(workspace.out.name, config, made_of, ended, best, measured), encoding="utf-8"
    )
    workspace.publish(model)
    return summary


def measure_models(
    splits: Mapping[str, Judged], start: Path, tuned: Path, threads: int
) -> list[Measured]:
    """Two models on those of the splits that have queries to measure on."""
    options = ScorerOptions(mode=Mode("torch", "fp32"), threads=threads)
    scorers = {
        name: load_scorer(ModelName("cross-encoder", str(folder)), options)
        for name, folder in (("start", start), ("tuned", tuned))
    }
    return [_measured(split, judged, scorers) for split, judged in splits.items() if judged.queries]


def _measured(split: str, judged: Judged, scorers: Mapping[str, PairScorer]) -> Measured:
    found = {
        name: judged.of_model(lambda *pairs, by=scorer: by.score(*pairs).values)
        for name, scorer in scorers.items()
    }
    if (retrieval := judged.of_retrieval()) is not None:
        found["retrieval"] = retrieval
    tuned = found["tuned"]
    gains = {
        name: [tuned[query] - values[query] for query in sorted(values)]
        for name, values in found.items()
        if name != "tuned"
    }
    return Measured(
        split,
        len(judged.queries),
        judged.pairs,
        {name: average(values) for name, values in found.items()},
        paired_tests(gains),
    )
