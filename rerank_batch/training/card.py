"""The card of a trained model: what it is made of and what was measured, for a person to read."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from rerank_batch.evaluation.significance import PairedTest
from rerank_batch.training.config import FinetuneConfig
from rerank_batch.training.measure import MeasuredSplit
from rerank_batch.training.workspace import Best, Ended


def card(
    name: str,
    config: FinetuneConfig,
    made_of: Mapping[str, Any],
    ended: Ended,
    best: Best,
    measured: Sequence[MeasuredSplit],
) -> str:
    """The text of a README.md with the front matter that model hubs read."""
    front = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "text-ranking",
        "tags": ["cross-encoder", "reranker", "rerank-batch"],
    }
    settings = config.model_dump(mode="json", exclude={"model", "dev", "checkpoint"})
    lines = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {name}",
        "A cross-encoder trained by `rerank-batch finetune`; "
        f"`reranker.model: cross-encoder:{name}` scores with it.",
        "| made of | |\n|---|---|\n"
        + "\n".join(f"| {key.replace('_', ' ')} | `{value}` |" for key, value in made_of.items()),
        f"Training ended after {ended.steps:,} steps: {ended.reason}. The model is that of step "
        f"{best.step:,}, the best on the dev split while training.",
        "## Measured",
        f"{config.dev.measure}, each query's own labelled documents as candidates. The best step "
        "was chosen on dev, so what it gained there is flattered; test was not looked at.",
        _table(measured),
        "## Settings",
        f"```yaml\n{yaml.safe_dump(settings, sort_keys=False)}```",
    ]
    return "\n\n".join(lines) + "\n"


def _interval(gain: PairedTest) -> str:
    """The 95 % interval of a gain, or a dash."""
    return "–" if gain.interval is None else f"{gain.interval[0]:+.3f} {gain.interval[1]:+.3f}"


def _table(measured: Sequence[MeasuredSplit]) -> str:
    lines = [
        "| split | queries | over | before | tuned | gain | 95 % interval | p | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in measured:
        for over, gain in each.gains.items():
            lines.append(
                f"| {each.split} | {each.queries:,} | {over} | {each.means[over]:.4f} "
                f"| {each.means['tuned']:.4f} | {gain.difference:+.4f} | {_interval(gain)} "
                f"| {gain.corrected_p_value:.3f} | {gain.outcome} |"
            )
    return "\n".join(lines)
