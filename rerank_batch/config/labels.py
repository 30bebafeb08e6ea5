"""The section ``labels``."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rerank_batch.config.base import Location, ModelText, Section, Words
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
    """Which documents are relevant: those judged ``grade`` or better, ``at_most`` so many a query.

    With the teacher as the source of truth: the best candidates, if the teacher gives them
    ``score`` or more (raw), at most ``at_most`` of them (by default 1).
    """

    grade: int = Field(default=1, ge=1)
    score: float | None = None
    at_most: int | None = Field(default=None, ge=1)


class LabelWindowConfig(Section):
    """Negatives from the ranks ``first`` to ``last`` (from 1; by default to the end).

    ``count`` of those that no filter keeps out are drawn, or all are taken.
    """

    first: int = Field(default=1, ge=1)
    last: int | None = Field(default=None, ge=1)
    count: Annotated[
        Literal["all"] | Annotated[int, Field(ge=0)],
        Words("'all' or a whole number of at least 0"),
    ] = 6

    @model_validator(mode="after")
    def _first_is_before_last(self) -> "LabelWindowConfig":
        if self.last is not None and self.last < self.first:
            raise ValueError(f"last ({self.last}) is before first ({self.first})")
        return self


class LabelRunConfig(LabelWindowConfig):
    """Negatives that another retriever found: the candidates of another finished run.

    ``root`` is where that run lies, by default where this job's runs do.
    """

    run: str
    root: Location | None = None


class LabelNegativesConfig(Section):
    """Where negatives come from: the candidates of the run, others' runs, the corpus at random."""

    retrieval: LabelWindowConfig = LabelWindowConfig()
    random: int = Field(default=2, ge=0)
    runs: tuple[LabelRunConfig, ...] = ()


class LabelFiltersConfig(Section):
    """What keeps false negatives out: documents that nobody judged and that may be relevant.

    A document is kept out whose teacher score is above ``share`` of the positive's, or not by
    ``margin`` below it, above ``score``, or whose probability is above ``probability``. ``scale``
    is what shares and probabilities are of: the sigmoid of logits, or raw scores that are
    similarities or probabilities themselves; auto knows which of them a family gives.
    ``against`` says which of several positives counts. Kept out as well is what has the text of a
    positive (``exact_duplicate``), or nearly: a Jaccard similarity of ``near_duplicate`` or more of
    all runs of ``shingle`` words.
    """

    share: float | None = Field(default=0.95, gt=0, le=1)
    margin: float | None = Field(default=None, ge=0)
    score: float | None = None
    probability: float | None = Field(default=None, gt=0, lt=1)
    scale: Literal["auto", "sigmoid", "raw"] = "auto"
    against: Literal["highest", "lowest"] = "highest"
    exact_duplicate: bool = True
    near_duplicate: float | None = Field(default=0.8, gt=0, le=1)
    shingle: int = Field(default=3, ge=1)


class LabelSplitConfig(Section):
    """How queries are split: shares of ``dev`` and ``test``, the rest is train.

    Queries whose words have a Jaccard similarity of ``similarity`` or more stay together.
    ``shared``: those that share a relevant document do as well (together), or such a document is
    left out of the looser splits, as a positive and as a negative (drop). ``held_out`` are
    judgements of queries that are of the test split in any case, such as those that `evaluate`
    will read.
    """

    dev: float = Field(default=0.1, ge=0, lt=1)
    test: float = Field(default=0.1, ge=0, lt=1)
    similarity: float = Field(default=0.8, gt=0, le=1)
    shared: Literal["together", "drop"] = "together"
    held_out: QrelsConfig | None = None

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> "LabelSplitConfig":
        if self.dev + self.test >= 1:
            raise ValueError(f"dev ({self.dev}) and test ({self.test}) leave nothing for train")
        return self


class LabelJudgeConfig(Section):
    """An LLM that grades what the run found, from 0 to 3.

    ``model`` is of the family ``llm:``. ``rubric`` is a text file that says what the grades mean,
    by default the one that is shipped. The first ``depth`` documents of every query are judged, and
    the share ``double`` of these pairs a second time, in other words. Query and document are cut at
    ``max_chars`` each; a reply of more than ``max_tokens`` is none. What may be spent is
    ``cost.cap``, and the price one of ``cost.prices``.
    """

    model: ModelText
    rubric: Location | None = None
    depth: int = Field(default=10, ge=1)
    double: float = Field(default=0.1, ge=0, le=1)
    max_chars: int = Field(default=4_000, ge=1)
    max_tokens: int = Field(default=16, ge=1)
    service: ServiceConfig = ServiceConfig()


_HIGHEST_GRADE = 3  # of the judge


class LabelsConfig(Section):
    """Training labels from a finished run; concerns `make-labels` alone.

    ``source`` is the source of truth: judgements (``qrels``, by default those of the job), grades
    made of ``clicks``, the run's last reranker, or an LLM, the ``judge``, which is compared with
    the judgements where there are any. ``formats`` are written beside the canonical rows;
    ``tuple_negatives`` is how many negatives a row has in those that need the same number
    everywhere.
    """

    source: Literal["qrels", "clicks", "teacher", "llm"] = "qrels"
    qrels: QrelsConfig | None = None
    judge: LabelJudgeConfig | None = None
    positives: LabelPositivesConfig = LabelPositivesConfig()
    negatives: LabelNegativesConfig = LabelNegativesConfig()
    filters: LabelFiltersConfig = LabelFiltersConfig()
    split: LabelSplitConfig = LabelSplitConfig()
    formats: tuple[LabelFormat, ...] = ()
    tuple_negatives: int = Field(default=4, ge=1)
    license: str | None = None
    seed: int = 0

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
