"""The section ``labels``."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rerank_batch.config.base import Explained, Location, ModelText, Section
from rerank_batch.config.qrels import QrelsConfig
from rerank_batch.config.service import ServiceConfig

LabelFormat = Literal[
    "pairs",
    "scores",
    "triplets",
    "n-tuples",
    "listwise",
    "listwise-scores",
    "margin-mse",
    "kl",
    "flagembedding",
    "flagembedding-scores",
    "tevatron",
]


class LabelPositivesConfig(Section):
    """Which documents are relevant."""

    grade: int = Field(default=1, ge=1)
    """Documents that are judged this grade or better."""
    score: float | None = None
    """With source: teacher, the best candidates that the teacher gives this raw score or more."""
    at_most: int | None = Field(default=None, ge=1)
    """How many a query has at most; with source: teacher by default 1."""


class LabelWindowConfig(Section):
    """Negatives from a window of ranks."""

    first: int = Field(default=1, ge=1)
    """The first rank of the window, from 1."""
    last: int | None = Field(default=None, ge=1)
    """The last rank of the window; by default the end of the list."""
    count: Annotated[
        Literal["all"] | Annotated[int, Field(ge=0)],
        Explained("'all' or a whole number of at least 0"),
    ] = 6
    """How many of those that no filter keeps out are drawn."""

    @model_validator(mode="after")
    def _first_is_before_last(self) -> "LabelWindowConfig":
        if self.last is not None and self.last < self.first:
            raise ValueError(f"last ({self.last}) is before first ({self.first})")
        return self


class LabelRunConfig(LabelWindowConfig):
    """Negatives of another retriever: the candidates of another finished run."""

    run: str
    """The id of that run."""
    root: Location | None = None
    """Where that run lies, by default where this job's runs do."""


class LabelNegativesConfig(Section):
    """Where negatives come from."""

    retrieval: LabelWindowConfig = LabelWindowConfig()
    """Negatives from the candidates of the run."""
    random: int = Field(default=2, ge=0)
    """How many documents of the corpus are drawn at random."""
    runs: tuple[LabelRunConfig, ...] = ()
    """Negatives from the candidates of other runs."""


class LabelFiltersConfig(Section):
    """What keeps false negatives out: documents without a judgement that may be relevant."""

    share: float | None = Field(default=0.95, gt=0, le=1)
    """Documents with a teacher score above this share of the positive's are kept out."""
    margin: float | None = Field(default=None, ge=0)
    """Documents that are not this much below the positive's score are kept out."""
    score: float | None = None
    """Documents with a teacher score above this are kept out."""
    probability: float | None = Field(default=None, gt=0, lt=1)
    """Documents with a probability above this are kept out."""
    scale: Literal["auto", "sigmoid", "raw"] = "auto"
    """What shares and probabilities are of: the sigmoid of logits, or raw scores that are
    similarities or probabilities themselves; auto knows which of them a family gives."""
    against: Literal["highest", "lowest"] = "highest"
    """Which of several positives counts."""
    exact_duplicate: bool = True
    """Whether documents with the text of a positive are kept out."""
    near_duplicate: float | None = Field(default=0.8, gt=0, le=1)
    """Documents are kept out whose runs of words have this Jaccard similarity to a positive's."""
    shingle: int = Field(default=3, ge=1)
    """How many words such a run has."""


class LabelSplitConfig(Section):
    """How queries are split; what is neither dev nor test is train."""

    dev: float = Field(default=0.1, ge=0, lt=1)
    """The share of the dev split."""
    test: float = Field(default=0.1, ge=0, lt=1)
    """The share of the test split."""
    similarity: float = Field(default=0.8, gt=0, le=1)
    """Queries whose words have this Jaccard similarity or more stay together."""
    shared: Literal["together", "drop"] = "together"
    """Queries that share a relevant document stay together as well, or such a document is left out
    of the looser splits, as a positive and as a negative (drop)."""
    held_out: QrelsConfig | None = None
    """Judgements of queries that go to the test split in any case, such as those that `evaluate`
    reads."""

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> "LabelSplitConfig":
        if self.dev + self.test >= 1:
            raise ValueError(f"dev ({self.dev}) and test ({self.test}) leave nothing for train")
        return self


class LabelJudgeConfig(Section):
    """An LLM that grades the results of the run, from 0 to 3.

    ``cost.cap`` bounds what it spends, at a price of ``cost.prices``.
    """

    model: ModelText
    """The model, of the family `llm:`."""
    rubric: Location | None = None
    """A text file that says what the grades mean; by default the one that is shipped."""
    depth: int = Field(default=10, ge=1)
    """How many documents of every query are judged."""
    double: float = Field(default=0.1, ge=0, le=1)
    """The share of pairs that are judged a second time, in other words."""
    max_chars: int = Field(default=4_000, ge=1)
    """How many characters of the query and of the document it reads, each."""
    max_tokens: int = Field(default=16, ge=1)
    """How many tokens a reply may have; a longer one counts as none."""
    service: ServiceConfig = ServiceConfig()
    """How the endpoint is called."""


_HIGHEST_GRADE = 3  # of the judge


class LabelsConfig(Section):
    """Training labels from a finished run; concerns `make-labels` alone."""

    source: Literal["qrels", "clicks", "teacher", "llm"] = "qrels"
    """Where labels come from: judgements, grades made of clicks, the run's last reranker (teacher),
    or an LLM (llm), which is compared with the judgements where there are any."""
    qrels: QrelsConfig | None = None
    """The judgements, by default those of the job."""
    judge: LabelJudgeConfig | None = None
    """The LLM that grades."""
    positives: LabelPositivesConfig = LabelPositivesConfig()
    """Which documents are relevant."""
    negatives: LabelNegativesConfig = LabelNegativesConfig()
    """Where negatives come from."""
    filters: LabelFiltersConfig = LabelFiltersConfig()
    """What keeps false negatives out."""
    split: LabelSplitConfig = LabelSplitConfig()
    """How queries are split."""
    formats: tuple[LabelFormat, ...] = ()
    """What is written beside the canonical rows."""
    tuple_negatives: int = Field(default=4, ge=1)
    """How many negatives a row has in formats that need the same number everywhere."""
    license: str | None = None
    """The licence on the dataset card."""
    seed: int = 0
    """What decides every draw."""

    @model_validator(mode="after")
    def _judge_can_judge(self) -> "LabelsConfig":
        if self.source != "llm":
            return self
        if self.judge is None:
            raise ValueError("source: llm needs judge, for example judge: {model: llm:MODEL}")
        if self.positives.grade > _HIGHEST_GRADE:
            raise ValueError(
                f"positives.grade ({self.positives.grade}) is more than the judge gives: its "
                f"grades go from 0 to {_HIGHEST_GRADE}"
            )
        return self
