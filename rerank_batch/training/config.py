"""The configuration of `finetune`: what is trained, by which loss, for how long."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from rerank_batch.config import ModelText, Section

Loss = Literal["listnet", "lambda", "bce", "margin-mse"]
Share = Annotated[float, Field(ge=0, le=1)]


class LoraConfig(Section):
    """Low-rank adapters in every linear layer of the encoder; the head is trained in full.

    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021
    (https://arxiv.org/abs/2106.09685): what is added is ``alpha / rank`` times their product.
    """

    rank: int = Field(default=32, ge=1)
    alpha: float = Field(default=64.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class DevConfig(Section):
    """How the model is watched: ``measure`` over the dev split's own candidates.

    Measured before the first step and every so many steps on at most ``queries`` queries, always
    the same. After ``patience`` measurements without a new best training stops; None: never.
    """

    measure: str = "nDCG@10"
    every: int = Field(default=100, ge=1)
    queries: int | None = Field(default=None, ge=1)
    patience: int | None = Field(default=5, ge=1)


class CheckpointConfig(Section):
    """When what a resume needs is written: every so many steps, every so many minutes, or both."""

    steps: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=5.0, gt=0)

    @model_validator(mode="after")
    def _one_of_them(self) -> "CheckpointConfig":
        if self.steps is None and self.minutes is None:
            raise ValueError("give steps, minutes or both: without them nothing could be resumed")
        return self


class FinetuneConfig(Section):
    """How a cross-encoder is trained.

    ``model`` is what training starts from: a cross-encoder with one logit, or an encoder, which
    gets a fresh head. A step reads ``queries_per_step`` queries, each with one of its positives and
    ``documents_per_query - 1`` negatives. Of these a share is hard, which grows evenly from the
    first to the second number of ``hard_share``. The others are the query's negatives of random
    origin, or where it has none any documents of other queries.

    ``loss``: ``listnet`` learns the distribution softmax(label_weight * label + teacher_weight *
    teacher score), ``lambda`` the order of the labels by nDCG, ``bce`` each label by itself
    (divided by the highest), ``margin-mse`` teacher_weight times the teacher's margins. A teacher
    score is a raw logit, and ``teacher_weight`` is by default 1 for margin-mse and else 0. For
    listnet a random negative that the teacher has not read has the lowest score of its query.

    ``max_length`` is how many tokens of query and document the model reads, in training and for
    good: one that was trained on fewer than it then gets reads them badly.

    ``dropout`` replaces the model's own where it is given. On CPUs 0 makes steps faster, the more
    the longer texts are: torch's fused attention knows none.

    The learning rate rises over the first ``warmup`` of all steps (a share, or a number from 1 on)
    and then follows ``schedule``. ``clip`` bounds the norm of a step's gradient. ``precision`` bf16
    means autocast; auto takes it where a short measurement says that it pays.

    At the end start and result are measured on ``final_queries`` of the dev and of the test split
    at most, always the same; None: on all of them.
    """

    model: ModelText
    max_length: int = Field(default=256, ge=8)
    loss: Loss = "listnet"
    label_weight: float = Field(default=10.0, ge=0)
    teacher_weight: float | None = Field(default=None, ge=0)
    steps: int = Field(default=1000, ge=1)
    queries_per_step: int = Field(default=12, ge=1)
    documents_per_query: int = Field(default=5, ge=2)
    hard_share: tuple[Share, Share] = (0.3, 0.9)
    learning_rate: float = Field(default=2e-5, gt=0)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = Field(default=0.05, ge=0)
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    freeze_embeddings: bool = False
    dropout: float | None = Field(default=None, ge=0, lt=1)
    lora: LoraConfig | None = None
    seed: int = Field(default=0, ge=0)
    dev: DevConfig = DevConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    final_queries: int | None = Field(default=1000, ge=1)

    @field_validator("model")
    @classmethod
    def _model_is_a_cross_encoder(cls, model: str) -> str:
        family, colon, location = model.partition(":")
        if family != "cross-encoder" or not colon or not location:
            raise ValueError(
                f"{model!r}: write cross-encoder:FOLDER_OR_HUB_ID, or cross-encoder:package:NAME"
            )
        return model

    @model_validator(mode="after")
    def _something_is_learned(self) -> "FinetuneConfig":
        if self.loss == "listnet" and not self.label_weight and not self.teacher_scale:
            raise ValueError("with label_weight and teacher_weight at 0 there is nothing to learn")
        if self.loss == "margin-mse" and not self.teacher_scale:
            raise ValueError("teacher_weight: margin-mse learns the teacher's margins, so not 0")
        if self.loss in ("lambda", "bce") and self.teacher_weight:
            raise ValueError(f"teacher_weight: {self.loss} learns labels and reads no teacher")
        return self

    @property
    def location(self) -> str:
        """The start model's location, without its family."""
        return self.model.partition(":")[2]

    @property
    def teacher_scale(self) -> float:
        """``teacher_weight``, or what it is by default."""
        if self.teacher_weight is not None:
            return self.teacher_weight
        return 1.0 if self.loss == "margin-mse" else 0.0

    @property
    def needs_teacher(self) -> bool:
        """Whether a row can only be learned from if it has a teacher's score."""
        return self.teacher_scale > 0

    @property
    def random_is_lowest(self) -> bool:
        """Whether a random negative can do without it: it counts as the lowest of its query."""
        return self.needs_teacher and self.loss == "listnet"

    @property
    def draws_documents(self) -> bool:
        """Whether documents of other queries can stand in for negatives that are not listed."""
        return not self.needs_teacher or self.random_is_lowest
