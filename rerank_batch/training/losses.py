"""Losses by name, and the batch that each of them reads.

The losses are those of sentence-transformers; this module knows which of their inputs becomes of a
group. The columns of a batch count by their order, which is that of the loss's documentation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from sentence_transformers.cross_encoder import losses
from sentence_transformers.cross_encoder.data_collator import CrossEncoderDataCollator

from rerank_batch.training.batches import GroupPlan, TrainingGroup
from rerank_batch.training.config import FinetuneConfig, Loss

Batch = dict[str, Any]

_ALL_AT_ONCE = -1

LOSSES: dict[Loss, Callable[[Any], torch.nn.Module]] = {
    "listnet": partial(losses.ListNetLoss, mini_batch_size=_ALL_AT_ONCE),
    "lambda": partial(losses.LambdaLoss, mini_batch_size=_ALL_AT_ONCE),
    "bce": losses.BinaryCrossEntropyLoss,
    "margin-mse": losses.MarginMSELoss,
}


@dataclass
class GroupCollator(CrossEncoderDataCollator):
    """Numbers of groups to the batch of a loss."""

    plan: GroupPlan | None = None
    config: FinetuneConfig | None = None

    def __call__(self, features: list[dict[str, int]]) -> Batch:
        """The batch of rows {"number": number of a group}."""
        plan, config = self.plan, self.config
        if plan is None or config is None:
            raise ValueError("a collator of groups needs their plan and the configuration")
        groups = [plan.group(row["number"]) for row in features]
        batch = batch_of(groups, config, plan.highest_label)
        return {**batch, "prompt": self.prompts} if self.prompts else batch


def batch_of(
    groups: Sequence[TrainingGroup], config: FinetuneConfig, highest_label: float
) -> Batch:
    """The inputs of the configured loss for these groups; labels under ``label``.

    bce divides them by ``highest_label``.
    """
    queries = [group.query for group in groups]
    if config.loss == "bce":
        return {
            "query": [group.query for group in groups for _ in group.documents],
            "passage": [text for group in groups for text in group.documents],
            "label": torch.tensor([x / highest_label for group in groups for x in group.labels]),
        }
    if config.loss == "margin-mse":
        columns = list(zip(*(group.documents for group in groups), strict=True))
        teacher = torch.tensor([group.teacher for group in groups])
        return {
            "query": queries,
            "positive": list(columns[0]),
            **{f"negative_{n}": list(texts) for n, texts in enumerate(columns[1:], start=1)},
            "label": config.teacher_scale * (teacher[:, :1] - teacher[:, 1:]),
        }
    return {
        "query": queries,
        "docs": [group.documents for group in groups],
        "label": [_targets(group, config) for group in groups],
    }


def _targets(group: TrainingGroup, config: FinetuneConfig) -> torch.Tensor:
    labels = torch.tensor(group.labels)
    if config.loss == "lambda":
        return labels
    targets = config.label_weight * labels
    if config.teacher_scale:
        targets = targets + config.teacher_scale * torch.tensor(group.teacher)
    return targets
