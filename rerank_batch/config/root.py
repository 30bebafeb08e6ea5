"""The configuration: YAML in, one frozen typed value out.

Knows words and their limits, not files: whether a path exists is checked by whoever reads it.
Unknown and repeated keys are refused with the nearest valid name.
"""

import datetime
import difflib
import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from rerank_batch.config.paths import expanded, expanded_cache, expanded_model
from rerank_batch.errors import ConfigError
from rerank_batch.storage.text_streams import UNREADABLE, utf8_lines

RUN_ID = re.compile(r"^[a-z0-9][a-z0-9_-]{0,63}\Z")

PoolSize = Literal["auto"] | Annotated[int, Field(ge=1)]
Lossy = Literal["bf16", "int8"]
Format = Literal["fp32"] | Lossy
Precision = Literal["auto"] | Format
Truncation = Literal["longest_first", "only_second"]
LlmMethod = Literal["yes-no", "grade", "listwise"]
RowsOrShare = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)]
Source = Literal["dense", "bm25", "given"]
StopWords = Literal[
    "none",
    "chinese",
    "danish",
    "dutch",
    "english",
    "french",
    "german",
    "italian",
    "korean",
    "norwegian",
    "portuguese",
    "russian",
    "spanish",
    "swedish",
    "turkish",
]
FilterTerm = tuple[
    str,
    Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"],
    Any,
]


class Section(BaseModel):
    """A part of the configuration: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Section)


def _refuse_credentials(uri: str) -> str:
    if _CREDENTIALS.match(uri):
        raise ValueError(
            "credentials in a URI are refused; use the environment, a profile or an instance role"
        )
    return uri


_CREDENTIALS = re.compile(r"(?i)^[a-z][a-z0-9+.-]*://([^/]*@|[^/:]+:(?!\d+(/|$)).*@)")

Location = Annotated[str, AfterValidator(expanded), AfterValidator(_refuse_credentials)]
"""A path or URI without credentials in it; ``~`` and ``$VARIABLES`` are expanded."""

ModelText = Annotated[str, AfterValidator(expanded_model)]
"""``family:location``, the location likewise."""

USUAL = "auto"
"""In place of the name of a column: the one of the usual name, where there is one and it fits. Null
is none at all."""

TimeUnit = Literal["s", "ms", "us", "ns"]

OF_COLLECTION = "collection:"
"""The path of a section that ``collection`` is to fill; see `rerank_batch.data.collection`. No
file has this name by chance, so that a path that was not filled is read by nobody."""


class CorpusConfig(Section):
    """Where the documents are and what their columns are called.

    ``id``, ``title`` and ``text`` default to doc_id (or _id, or id), title, text in Parquet and to
    _id (or doc_id, or id), title, text in BEIR jsonl. A corpus without a title column needs no
    setting; with ``title: null`` titles are not read.
    """

    path: Location
    format: Literal["auto", "parquet", "beir"] = "auto"
    id: str | None = None
    title: str | None = USUAL
    text: str | None = None
    empty: Literal["drop", "error"] = "drop"


class HeadConfig(Section):
    """Which queries of a log are worth a night: the heaviest, up to a cut-off; all that are given
    must hold.

    The heaviest ``max_queries``; those of at least ``min_weight``; as few as make up ``share`` of
    the weight of all. Of equal weights the smaller id goes first. The rest is left out and counted.
    """

    max_queries: int | None = Field(default=None, ge=1)
    min_weight: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    share: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _cuts_somewhere(self) -> "HeadConfig":
        if self.max_queries is None and self.min_weight is None and self.share is None:
            raise ValueError("give max_queries, min_weight or share")
        return self


class QueriesConfig(Section):
    """Where the query log is, how its columns are called, which rows count.

    ``id`` and ``text`` default to query_id (or _id, or id) and query (or text) in Parquet, to _id
    (or query_id, or id) and text (or query) in BEIR jsonl; of TREC topics the query is the field
    that ``text`` names, by default title, and of topics as XML query or title.
    ``time`` and ``weight`` default to ts and count, which are used where a Parquet log has them and
    they fit; null is neither. Times that are numbers count ``time_unit`` since 1970. ``filter`` is
    a list of ``[column, operator, value]`` that must all hold; it is pushed down to the Parquet
    scan.
    Rejects carry ids and reasons; with ``keep_rejected_texts`` the texts of the queries as well,
    which are personal data. In ``path`` and in the values of ``filter``, ``{date}`` stands for the
    day of the night, by default today in UTC, and ``{yesterday}`` for the day before it, written
    2026-01-02 or as strftime has it: ``{yesterday:%Y/%m/%d}``. ``date`` is that day, once it is
    known. ``head`` leaves rare queries out. Without ``dedupe`` every row is a query of its own;
    equal texts stand side by side, so a block scores their pairs once, and two blocks do where the
    border between them divides equal texts.
    """

    path: Location
    date: datetime.date | None = None
    head: HeadConfig | None = None
    format: Literal["auto", "parquet", "beir", "trec-topics", "tsv"] = "auto"
    id: str | None = None
    text: str | None = None
    time: str | None = USUAL
    time_unit: TimeUnit | None = None
    weight: str | None = USUAL
    dedupe: bool = True
    duplicates: Literal["error", "first"] = "error"
    judged_only: bool = False
    keep_rejected_texts: bool = False
    filter: tuple[FilterTerm, ...] = ()
    max_chars: int = Field(default=20_000, ge=1)


class QrelsConfig(Section):
    """Judgements: Parquet, jsonl, tsv with or without a heading, or TREC qrels.

    Columns are query_id (or query-id, qid), doc_id (or doc-id, corpus_id, corpus-id, docid) and
    relevance (or score, grade, rel). A grade is a whole number, which may be written 1.0.
    """

    path: Location
    format: Literal["auto", "parquet", "beir", "trec"] = "auto"
    filter: tuple[FilterTerm, ...] = ()


class PropensityConfig(Section):
    """How likely a document at a position is looked at, relative to the best place.

    ``power``: (1/position) to the power of ``eta`` (Joachims, Swaminathan and Schnabel, "Unbiased
    Learning-to-Rank with Biased Feedback", WSDM 2017); ``estimate`` takes eta from the log itself,
    where the same document was shown for the same query at several positions. ``table``: the
    probabilities of positions 1, 2, …. Clicks are divided by them, and no
    click counts more than ``clip``.
    """

    model: Literal["power", "table"] = "power"
    eta: Literal["estimate"] | Annotated[float, Field(ge=0, le=5)] = 1.0
    table: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    clip: float = Field(default=10.0, ge=1, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_model(self) -> "PropensityConfig":
        if (self.model == "table") != bool(self.table):
            raise ValueError("model: table and a table of probabilities go together")
        if self.table and "eta" in self.model_fields_set:
            raise ValueError("eta belongs to the power model, not to a table")
        return self


class ClicksConfig(Section):
    """A click log with its impressions, as Parquet: what was shown where, and whether clicked.

    ``id`` and ``document`` default to query_id and doc_id. A log without ids is joined with the
    queries by their text: ``text`` names that column (by default query, where there is no
    query_id), and queries match as they do when they are deduplicated. ``position`` counts from 1.
    ``clicked`` is true or 1 for an impression that was clicked, false or 0 for one that was not;
    both kinds have to be there. A row stands for ``count`` such impressions where there is that
    column.

    A pair of query and document is labelled if it was shown at least ``min_impressions`` times and
    its positions make that ``min_examinations`` expected looks. Its grade is how many of ``grades``
    the lower bound, at ``confidence``, of its estimated attractiveness reaches.
    """

    path: Location
    id: str | None = None
    text: str | None = None
    document: str | None = None
    position: str | None = None
    clicked: str | None = None
    count: str | None = None
    filter: tuple[FilterTerm, ...] = ()
    propensity: PropensityConfig = PropensityConfig()
    min_impressions: int = Field(default=10, ge=1)
    min_examinations: float = Field(default=1.0, ge=0)
    confidence: float = Field(default=0.95, ge=0.75, lt=1)
    grades: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.1, 0.3, 0.6), min_length=1
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> "ClicksConfig":
        if self.id and self.text:
            raise ValueError("give id or text: clicks are joined with queries by one of them")
        if list(self.grades) != sorted(set(self.grades)):
            raise ValueError(f"grades must rise from one to the next: {list(self.grades)}")
        return self


class Bm25Config(Section):
    """BM25 shards beside those of FAISS, of the same documents.

    Scores are those of Lucene's variant (Kamphuis, de Vries, Boytsov and Lin, "Which BM25 Do You
    Mean?", ECIR 2020) with saturation ``k1`` and length normalisation ``b``. Words are runs of two
    or more letters, digits and underscores, without ``stopwords``: those of a language, or a list
    of one's own. ``stemmer`` is a language of Snowball's, for which PyStemmer has to be there.
    """

    k1: float = Field(default=1.2, ge=0, le=10)
    b: float = Field(default=0.75, ge=0, le=1)
    lowercase: bool = True
    stopwords: StopWords | tuple[str, ...] = "english"
    stemmer: str | None = Field(default=None, pattern="^[a-z]+$")


class IndexConfig(Section):
    """The FAISS index: where it lives, which model encodes, how it is cut.

    Documents are encoded in ``precision`` numbers where that pays, queries always in fp32.
    ``kind`` is Flat (exact), HNSW, IVF, or any FAISS factory string. ``nprobe`` and ``ef_search``
    steer the approximate kinds; the recall measured with them is in the index manifest. With
    ``bm25`` the same documents are searched by their words as well. When the corpus changes, what
    is new goes to a shard of its own and what is gone is masked; a shard of which more than
    ``compact_at`` is masked is written anew.
    """

    path: Location
    encoder: ModelText
    precision: Literal["fp32", "bf16"] = "fp32"
    runtime: Literal["auto", "openvino", "torch"] = "auto"
    kind: str = "Flat"
    shards: int = Field(default=1, ge=1, le=4096)
    max_length: int | None = Field(default=None, ge=8)
    nprobe: int | None = Field(default=None, ge=1)
    ef_search: int | None = Field(default=None, ge=1)
    bm25: Bm25Config | None = None
    compact_at: float = Field(default=0.25, ge=0, lt=1)


class FusionConfig(Section):
    """How the lists of several sources become one.

    ``rrf``: a document scores the sum over the lists that hold it of weight / (``k`` + its rank
    there) (Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and
    individual Rank Learning Methods", SIGIR 2009, where k is 60 and weights are 1). ``weighted``:
    the sum of weight times its score, made comparable for every query and source by ``normalise``:
    ``minmax`` puts the list's scores on 0 to 1, ``z`` counts standard deviations from its mean; a
    list that does not hold the document gives it what the last of the list gets (of a list whose
    scores are all alike: 1 to its own and 0 to others, or 0 and -1). A source without a weight in
    ``weights`` has 1.
    """

    method: Literal["rrf", "weighted"] = "rrf"
    k: int = Field(default=60, ge=0)
    normalise: Literal["minmax", "z"] = "minmax"
    weights: dict[Source, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}

    @model_validator(mode="after")
    def _settings_of_the_method(self) -> "FusionConfig":
        foreign = {"rrf": "normalise", "weighted": "k"}[self.method]
        usual = type(self).model_fields[foreign].default  # as a configuration written out has it
        if getattr(self, foreign) != usual:
            raise ValueError(f"{foreign} is no setting of method: {self.method}")
        return self


class GivenConfig(Section):
    """Candidates that somebody else found: a TREC run file over the log's query ids, or Parquet.

    Of Parquet, which may be the query log itself, ``documents`` is a column of lists of document
    ids, the best first (by default doc_ids), and ``id`` that of the queries (by default query_id).
    Such a list has no scores: it scores 0, -1, -2, and so on.
    """

    trec: Location | None = None
    parquet: Location | None = None
    id: str | None = None
    documents: str | None = None

    @model_validator(mode="after")
    def _one_file(self) -> "GivenConfig":
        if (self.trec is None) == (self.parquet is None):
            raise ValueError("give either trec or parquet")
        if self.trec is not None and (self.id or self.documents):
            raise ValueError("id and documents are columns of parquet, not of trec")
        return self


class ExcludeConfig(Section):
    """Documents that must not come back, whatever the index holds: takedowns, say.

    Parquet with a column of ids (``id``, by default doc_id), or text with an id a line.
    """

    path: Location
    id: str | None = None


class RetrievalConfig(Section):
    """How many candidates each query takes to the reranker, and where they come from.

    ``sources`` are ``dense`` (the FAISS shards), ``bm25`` (see ``index.bm25``) and ``given`` (lists
    that are there already). Each gives its best of ``depths``, by default ``depth``; of several the
    lists become one by ``fusion``, and the best ``depth`` of it go on, with fused scores. No source
    gives a document of ``exclude``: the next ones take its place.
    """

    depth: int = Field(default=50, ge=1, le=10_000)
    sources: tuple[Source, ...] = Field(default=("dense",), min_length=1)
    depths: dict[Source, Annotated[int, Field(ge=1, le=10_000)]] = {}
    fusion: FusionConfig = FusionConfig()
    given: GivenConfig | None = None
    exclude: ExcludeConfig | None = None

    @model_validator(mode="after")
    def _sources_make_sense(self) -> "RetrievalConfig":
        if len(set(self.sources)) < len(self.sources):
            raise ValueError(f"a source stands twice: {', '.join(self.sources)}")
        if "given" in self.sources and self.given is None:
            raise ValueError("the source given needs retrieval.given, its lists: {trec: FILE}")
        if not any(self.fusion.weights.get(source, 1) for source in self.sources):
            raise ValueError("every source has the weight 0: nothing would be ranked")
        return self

    def depth_of(self, source: Source) -> int:
        """How many documents a source gives."""
        return self.depths.get(source, self.depth)

    def settings(self) -> dict[str, Any]:
        """What of it changes results."""
        if self.sources == ("dense",):
            return {"depth": self.depth, **({"depths": self.depths} if self.depths else {})}
        settings = self.model_dump(mode="json", exclude={"given", "depths", "fusion", "exclude"})
        settings["depths"] = {source: self.depth_of(source) for source in self.sources}
        if len(self.sources) > 1:
            settings["fusion"] = self.fusion.model_dump(mode="json")
        return settings


class ServiceConfig(Section):
    """How a reranking service is called; changes speed, never results.

    ``requests_per_minute`` and ``tokens_per_minute`` are what the key allows, for the whole job;
    by default what the service states for everyone. ``documents_per_call`` is for a server that
    takes fewer documents in a call than its family does; a longer list is divided.
    """

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    documents_per_call: int | None = Field(default=None, ge=1)
    concurrency: int = Field(default=16, ge=1, le=1024)
    timeout_seconds: float = Field(default=60.0, gt=0)
    attempts: int = Field(default=6, ge=1)


class ScorerSettings(Section):
    """How a model scores, and how much it reads.

    ``depth`` is how many candidates it reads, the best so far first; by default all there are.
    ``precision`` names the numbers to compute in: bf16 and int8 are used where the machine has them
    and a short measurement says that they pay, else fp32. auto is the fastest of fp32 and those
    that ``allow`` names. What is fastest is measured once for a model and a root, and kept.
    ``truncation`` says what loses tokens where a pair is longer than ``max_length``: the longer of
    the two, or the document alone. Of the rest each family reads what concerns it: ``layer`` is the
    last one that bge-layerwise computes, ``instruction`` the task that qwen3-reranker and mxbai-v2
    are told or the criterion of an LLM, ``max_chars`` where documents are cut before a service gets
    them (for an LLM by default at 4,000), ``method`` how an LLM ranks, ``window`` and ``step`` the
    sliding window of its listwise method.
    """

    depth: int | None = Field(default=None, ge=1)
    max_length: int | None = Field(default=None, ge=8)
    precision: Precision = "auto"
    allow: tuple[Lossy, ...] = ()
    runtime: Literal["auto", "openvino", "torch"] = "auto"
    truncation: Truncation = "longest_first"
    batch_tokens: Literal["auto"] | Annotated[int, Field(ge=64)] = "auto"
    layer: int | None = Field(default=None, ge=1)
    instruction: str | None = None
    max_chars: int | None = Field(default=None, ge=1)
    method: LlmMethod = "yes-no"
    window: int = Field(default=20, ge=2)
    step: int = Field(default=10, ge=1)
    service: ServiceConfig = ServiceConfig()

    @model_validator(mode="after")
    def _windows_overlap(self) -> "ScorerSettings":
        if self.step >= self.window:
            raise ValueError(
                f"step ({self.step}) must be smaller than window ({self.window}): a document moves "
                "up through what two windows share"
            )
        return self


class ScorerConfig(ScorerSettings):
    """One model of a cascade."""

    model: ModelText


class GateConfig(Section):
    """When retrieval is sure enough to go without the reranker.

    ``signal`` is read from the retrieval scores: ``top1`` the best of them, ``margin`` its distance
    to the second, ``margin@k`` to the k-th, ``entropy`` that of their softmax. A query is skipped
    where the signal is at least ``threshold`` (entropy: at most). `evaluate --calibrate-gate`
    finds the threshold that keeps the loss under ``max_loss``.
    """

    signal: str = "margin"
    threshold: float | None = None
    max_loss: float | None = Field(default=None, gt=0, lt=1)

    @field_validator("signal")
    @classmethod
    def _signal_is_known(cls, signal: str) -> str:
        if not _SIGNAL.match(signal):
            raise ValueError(f"{signal!r} is no signal: margin, margin@k (k from 2), top1, entropy")
        return signal


_SIGNAL = re.compile(r"^(margin|top1|entropy|margin@([2-9]|[1-9][0-9]{1,3}))\Z")


class RerankerConfig(ScorerSettings):
    """What reranks, and how many results are kept.

    Either one ``model`` and its settings here, or a cascade of ``stages`` with their own: each
    reads the best ``depth`` of what the one before it made.
    """

    model: ModelText | None = None
    top_k: int = Field(default=10, ge=1)
    stages: tuple[ScorerConfig, ...] = ()
    gate: GateConfig | None = None

    @model_validator(mode="after")
    def _one_model_or_stages(self) -> "RerankerConfig":
        if (self.model is None) == (not self.stages):
            raise ValueError("give either model, or stages with a model each")
        misplaced = sorted(set(ScorerSettings.model_fields) & self.model_fields_set)
        if self.stages and misplaced:
            raise ValueError(
                f"{', '.join(misplaced)}: with stages, such settings belong to each stage"
            )
        depths = [stage.depth for stage in self.cascade if stage.depth is not None]
        if depths != sorted(depths, reverse=True):
            raise ValueError(f"depths must not grow from stage to stage: {depths}")
        if depths and self.top_k > depths[-1]:
            raise ValueError(
                f"top_k ({self.top_k}) is larger than the last depth ({depths[-1]}): results are "
                "those that the last model read"
            )
        return self

    @property
    def cascade(self) -> tuple[ScorerConfig, ...]:
        """The models in the order in which they read; one, or several stages."""
        if self.stages:
            return self.stages
        shared = {name: getattr(self, name) for name in ScorerSettings.model_fields}
        return (ScorerConfig(model=self.model or "", **shared),)


class SystemConfig(Section):
    """A system that `evaluate` compares with others.

    Either one that is computed: the configuration with these settings of ``index`` and
    ``retrieval`` in place of its own, and with this ``reranker`` as a whole (null for none). Or
    lists that are there: of an earlier ``run`` by its id (of a comparison with the name of one of
    its ``system``\ s; else retrieval or reranked, by default reranked), or a ``trec`` run file.
    """

    index: dict[str, Any] = {}
    retrieval: dict[str, Any] = {}
    reranker: RerankerConfig | None = None
    run: str | None = None
    system: str | None = None
    trec: Location | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "SystemConfig":
        computed = {"index", "retrieval", "reranker"} & self.model_fields_set
        sources = [bool(computed), self.run is not None, self.trec is not None]
        if sum(sources) > 1:
            raise ValueError(
                "give settings of a system that is computed (index, retrieval, reranker), or run, "
                "or trec"
            )
        if self.system is not None and self.run is None:
            raise ValueError("system says which of a run's lists to take: give run with it")
        return self

    @property
    def is_computed(self) -> bool:
        """Whether it is computed now, and not lists that are there."""
        return self.run is None and self.trec is None


class EvaluationConfig(Section):
    """Measures by their ir-measures names, and the systems that are compared by them.

    ``systems`` have a name each; the first is what the others are compared with. Without any the
    reranked lists are compared with those of retrieval. ``labels``, what they are measured against,
    are the judgements of ``qrels`` or those made of ``clicks``; never both.
    ``segments`` are columns of a Parquet log, partition columns too, by whose values the measures
    are told as well; they change no results.
    """

    measures: tuple[str, ...] = ("nDCG@10", "RR@10", "R@5", "R@50")
    labels: Literal["judgements", "clicks"] = "judgements"
    systems: dict[str, SystemConfig] = {}
    segments: tuple[str, ...] = ()

    @field_validator("systems")
    @classmethod
    def _systems_have_plain_names(cls, systems: dict[str, SystemConfig]) -> dict[str, SystemConfig]:
        for name in systems:
            if not _SYSTEM.match(name):
                raise ValueError(
                    f"{name!r} is no name of a system: letters, digits, blanks and any of _.,:@+- "
                    "in 40 characters, the first a letter or a digit"
                )
        if len(systems) == 1:
            raise ValueError("one system has none to be compared with: name at least two")
        return systems

    @field_validator("segments")
    @classmethod
    def _segments_are_different(cls, segments: tuple[str, ...]) -> tuple[str, ...]:
        if twice := sorted({name for name in segments if segments.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} stands twice")
        return segments


_SYSTEM = re.compile(r"^[A-Za-z0-9][\w .,:@+-]{0,39}\Z")


class OutcomesConfig(Section):
    """What became of queries after retrieval, measured elsewhere: Parquet, a value a row.

    A row says of a query, under any of its ids in the log, and a system what its ``outcome`` was:
    the columns are called query_id, system, outcome and value unless the settings of these names
    say otherwise. Systems are called as in the report. Several values of a query, system and
    outcome count as their mean. More is better, but for the outcomes that ``less_is_better`` names.
    """

    path: Location
    query_id: str = "query_id"
    system: str = "system"
    outcome: str = "outcome"
    value: str = "value"
    less_is_better: tuple[str, ...] = ()
    filter: tuple[FilterTerm, ...] = ()


class AnswerCheckConfig(Section):
    """Answers by an LLM from the top of each system's list, graded against reference answers.

    ``model`` writes the answers and ``judge`` grades them, by default the same; both are ``llm:``
    models of one endpoint. ``reference`` is Parquet with the columns query_id and answer, or what
    ``query_id`` and ``answer`` call them; several answers of a query are all right ones. The model
    gets the first ``top`` documents, each cut at ``max_chars``, and writes ``max_tokens`` at most.
    """

    model: ModelText
    judge: ModelText | None = None
    reference: Location
    query_id: str = "query_id"
    answer: str = "answer"
    filter: tuple[FilterTerm, ...] = ()
    top: int = Field(default=5, ge=3, le=10)
    max_chars: int = Field(default=4_000, ge=1)
    max_tokens: int = Field(default=300, ge=1)
    temperature: float = Field(default=0.0, ge=0, le=2)
    service: ServiceConfig = ServiceConfig()


class ComputeConfig(Section):
    """Actor pools and machine size; changes speed, never results, except ``block_rows``.

    ``block_rows`` is how many queries travel, are scored and are committed together. It is derived
    from the number of queries alone, so that results do not depend on the machine.
    ``index_memory_gb`` is what a node may hold of an index; of a larger one the shards are divided
    into groups that are searched one after the other, each by actors of its own. ``auto`` is half
    of the smallest node's memory. ``connect_seconds`` is how long a cluster at ``address`` may take
    to answer.
    """

    encoders: PoolSize = "auto"
    retrievers: PoolSize = "auto"
    scorers: PoolSize = "auto"
    block_rows: PoolSize = "auto"
    cpus: PoolSize = "auto"
    gpus: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    address: str | None = None
    connect_seconds: float = Field(default=30.0, gt=0)
    object_store_mb: int = Field(default=512, ge=80)
    index_memory_gb: Literal["auto"] | Annotated[float, Field(gt=0)] = "auto"


class StorageConfig(Section):
    """Where s3:// is and what a node keeps of it; changes no results.

    ``endpoint`` is for stores other than AWS; by default AWS_ENDPOINT_URL_S3 of the environment.
    Credentials come from the environment, a profile or an instance role, never from here.
    ``cache`` is the folder on each node that holds downloaded index files, ``cache_gb`` its size.
    ``lease_seconds``: a driver that has not renewed its lease for so long is taken for dead.
    """

    endpoint: Location | None = None
    # Its ~ is expanded where it is used: without a home it is a folder for temporary files.
    cache: Annotated[str, AfterValidator(expanded_cache)] = "~/.cache/rerank_batch"
    cache_gb: float = Field(default=50.0, gt=0)
    lease_seconds: float = Field(default=20.0, ge=1)


class CacheConfig(Section):
    """The score cache: a pair that was scored before, by the same model in the same mode, is not
    scored again by any job of the root; changes no results.

    ``max_age`` is in days: older scores are dropped. Beyond ``max_bytes`` the oldest are.
    """

    enabled: bool = True
    max_age: int | None = Field(default=90, ge=1)
    max_bytes: int | None = Field(default=None, ge=1)


class PriceConfig(Section):
    """What a service bills, in ``cost.currency``: per call, search unit, or million tokens."""

    request: float = Field(default=0.0, ge=0)
    search_unit: float = Field(default=0.0, ge=0)
    million_tokens: float = Field(default=0.0, ge=0)
    million_output_tokens: float = Field(default=0.0, ge=0)


class CostConfig(Section):
    """What things cost; changes no results.

    ``per_hour`` is the price of the cluster. ``prices`` are those of services, by family (cohere)
    or model (cohere:rerank-v3.5). A run stops before it spends more than ``cap`` on services.
    """

    per_hour: float | None = Field(default=None, ge=0)
    currency: str = "USD"
    prices: dict[str, PriceConfig] = {}
    cap: float | None = Field(default=None, ge=0)

    def price(self, model: str) -> PriceConfig | None:
        """The price of a model ``family:name``; None where none is given."""
        return self.prices.get(model, self.prices.get(model.partition(":")[0]))


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
    count: Literal["all"] | Annotated[int, Field(ge=0)] = 6

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


class LimitsConfig(Section):
    """When a run has gone wrong wholesale.

    ``max_rejects`` is a number of log rows, or a share of them if below 1.
    """

    max_rejects: RowsOrShare = 0.2


class GuardsConfig(Section):
    """What a finished run must be for readers to get it; changes no results.

    A run that fails one is complete and stays unpublished: latest.json names the run before.
    ``max_rejects`` is a number of log rows or a share of them, as in ``limits``, which stops a run
    on its way. ``min_overlap_at_10``: of a query's first ten documents the share that the last
    published run had as well, in the mean over the queries of both. ``min_queries`` and
    ``max_queries`` bound how many queries have results. ``measure`` are floors of the run's own
    means over its judged queries, by the names in ``evaluation.measures``.
    """

    max_rejects: RowsOrShare | None = None
    min_overlap_at_10: float | None = Field(default=None, ge=0, le=1)
    min_queries: int | None = Field(default=None, ge=0)
    max_queries: int | None = Field(default=None, ge=0)
    measure: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> "GuardsConfig":
        low, high = self.min_queries, self.max_queries
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_queries ({low}) is more than max_queries ({high})")
        return self


class NotifyConfig(Section):
    """Who is told how a run of `rerank` ended; changes no results, and its failure fails no run.

    ``command`` is run without a shell and gets one JSON object on its standard input. ``webhook``
    is the name of the environment variable that holds the URL to post the same object to: such URLs
    are secrets. ``on`` says after what: a run that is published, one that a guard kept back, an
    error.
    """

    command: tuple[str, ...] = ()
    webhook: str | None = None
    on: tuple[Literal["success", "guard", "error"], ...] = ("success", "guard", "error")
    timeout_seconds: float = Field(default=30.0, gt=0, le=600)
    attempts: int = Field(default=3, ge=1, le=10)

    @field_validator("command")
    @classmethod
    def _command_is_a_path(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        """Its first word is one; the others are the command's own."""
        return tuple(expanded(word) if n == 0 else word for n, word in enumerate(command))

    @field_validator("webhook")
    @classmethod
    def _webhook_is_a_variable(cls, webhook: str | None) -> str | None:
        if webhook is not None and not re.match(r"^[A-Z][A-Z0-9_]*\Z", webhook):
            # Not repeated: it may be the URL itself.
            raise ValueError("give the NAME of the environment variable that holds the URL")
        return webhook


class Config(Section):
    """Everything a job needs to know.

    ``collection`` is a folder in the layout of BEIR or of MTEB, or ``ir_datasets:ID``: it gives the
    corpus, the queries and the judgements of ``split`` where their own paths are not given.
    """

    root: Location = "./.runs"
    job: str = "rerank"
    collection: Location | None = None
    split: str | None = None
    corpus: CorpusConfig
    queries: QueriesConfig | None = None
    qrels: QrelsConfig | None = None
    clicks: ClicksConfig | None = None
    index: IndexConfig
    retrieval: RetrievalConfig = RetrievalConfig()
    reranker: RerankerConfig | None = None
    evaluation: EvaluationConfig = EvaluationConfig()
    outcomes: OutcomesConfig | None = None
    answer_check: AnswerCheckConfig | None = None
    compute: ComputeConfig = ComputeConfig()
    storage: StorageConfig = StorageConfig()
    cache: CacheConfig = CacheConfig()
    cost: CostConfig = CostConfig()
    limits: LimitsConfig = LimitsConfig()
    labels: LabelsConfig = LabelsConfig()
    guards: GuardsConfig = GuardsConfig()
    notify: NotifyConfig = NotifyConfig()

    @model_validator(mode="before")
    @classmethod
    def _collection_gives_paths(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or raw.get("collection") is None:
            return raw
        filled = dict(raw)
        for name in ("corpus", "queries", "qrels"):
            section = raw.get(name, {})
            if isinstance(section, dict):
                filled[name] = {"path": OF_COLLECTION, **section}
        return filled

    @field_validator("job")
    @classmethod
    def _job_is_a_plain_name(cls, job: str) -> str:
        if not RUN_ID.match(job):
            raise ValueError(
                f"{job!r} is not a job name: lower-case letters, digits, '-' and '_', 64 at most"
            )
        return job

    @model_validator(mode="after")
    def _labels_are_there(self) -> "Config":
        if self.evaluation.labels == "clicks" and self.clicks is None:
            raise ValueError("evaluation.labels: clicks needs clicks.path, the click log")
        return self

    @model_validator(mode="after")
    def _floors_are_measured(self) -> "Config":
        measured = self.evaluation.measures
        if missing := [name for name in self.guards.measure if name not in measured]:
            raise ValueError(
                f"guards.measure: {', '.join(missing)} is not among evaluation.measures "
                f"({', '.join(measured)})"
            )
        labels = self.clicks if self.evaluation.labels == "clicks" else self.qrels
        if self.guards.measure and labels is None:
            raise ValueError("guards.measure needs judgements: give qrels.path")
        return self

    @model_validator(mode="after")
    def _results_fit_the_candidates(self) -> "Config":
        if self.reranker is None:
            return self
        depths = [("depth", each.depth) for each in self.reranker.cascade if each.depth is not None]
        for name, number in (("reranker.top_k", self.reranker.top_k), *depths):
            if number > self.retrieval.depth:
                raise ValueError(
                    f"{name} ({number}) is larger than retrieval.depth "
                    f"({self.retrieval.depth}): there are no more results than candidates"
                )
        return self

    @model_validator(mode="after")
    def _bm25_is_built(self) -> "Config":
        if "bm25" in self.retrieval.sources and self.index.bm25 is None:
            raise ValueError(
                "retrieval.sources: bm25 needs index.bm25, for example index.bm25: {}, and "
                "build-index once more"
            )
        return self

    def computing(self, system: SystemConfig) -> "Config":
        """The configuration that computes one of its systems.

        Raises:
            ValidationError: the settings of the system do not fit.
        """
        raw = self.model_dump(mode="json", exclude_unset=True)
        raw["index"] = {**raw["index"], **system.index}
        raw["retrieval"] = {**raw.get("retrieval", {}), **system.retrieval}
        if "reranker" in system.model_fields_set:
            raw["reranker"] = system.reranker and system.reranker.model_dump(
                mode="json", exclude_unset=True
            )
        raw["evaluation"] = {**raw.get("evaluation", {}), "systems": {}}
        return Config.model_validate(raw)

    @model_validator(mode="after")
    def _systems_fit(self) -> "Config":
        for name, system in self.evaluation.systems.items():
            if not system.is_computed:
                continue
            try:
                self.computing(system)
            except ValidationError as error:
                problems = "; ".join(_explain(problem, Config) for problem in error.errors())
                raise ValueError(f"evaluation.systems.{name}: {problems}") from None
        return self

    def results_settings(self) -> dict[str, Any]:
        """The settings that change results, for the fingerprint of a run.

        Paths are left out (the content of what they name is hashed instead), of models their
        location, everything that only changes where or how fast the work is done, and of judgements
        and clicks those that are not the labels.
        """
        settings = self.model_dump(mode="json")
        for key in _OTHER_SECTIONS:
            del settings[key]
        unused = "clicks" if self.evaluation.labels == "judgements" else "qrels"
        settings[unused] = None
        for section in ("corpus", "queries", "qrels", "clicks", "index"):
            if settings[section] is not None:
                settings[section].pop("path")
        if settings["queries"] is not None:
            del settings["queries"]["date"]  # it is in the path or the filter that it filled
            if settings["queries"]["head"] is None:
                del settings["queries"]["head"]  # runs that knew no such setting go on
            if settings["queries"]["time_unit"] is None:
                del settings["queries"]["time_unit"]  # likewise
        for section, key in _USUAL_COLUMNS:
            if settings[section] is not None:
                settings[section][key] = _as_before(settings[section][key])
        del settings["index"]["compact_at"]
        settings["index"]["encoder"] = settings["index"]["encoder"].partition(":")[0]
        settings["retrieval"] = self.retrieval.settings()
        if "bm25" not in self.retrieval.sources:
            del settings["index"]["bm25"]
        for name in ("systems", "segments"):
            del settings["evaluation"][name]
        if self.reranker is not None:
            settings["reranker"] = {
                "top_k": self.reranker.top_k,
                "gate": self.reranker.gate
                and self.reranker.gate.model_dump(mode="json", exclude={"max_loss"}),
                "stages": [
                    {**stage.model_dump(mode="json", exclude={"service"}), "model": family}
                    for stage in self.reranker.cascade
                    for family in [stage.model.partition(":")[0]]
                ],
            }
        settings["compute"] = {"block_rows": settings["compute"]["block_rows"]}
        return settings


_USUAL_COLUMNS = (("corpus", "title"), ("queries", "time"), ("queries", "weight"))


def _as_before(column: str | None) -> str | bool | None:
    """A column as fingerprints have had it since before one could be switched off."""
    return {USUAL: None, None: False}.get(column, column)


_OTHER_SECTIONS = (
    "root",
    "job",
    "collection",
    "split",
    "outcomes",
    "answer_check",
    "storage",
    "cache",
    "cost",
    "limits",
    "labels",
    "guards",
    "notify",
)


def digest(value: object) -> str:
    """sha256 of a value's canonical JSON, as hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def load_config(
    path: Path, overrides: list[str] | None = None, day: datetime.date | None = None
) -> Config:
    """Read a YAML file, apply ``dotted.key=value`` overrides, validate, and fill in dates.

    ``day`` goes before ``queries.date``; without either it is today in UTC.

    Raises:
        ConfigError: the file, a key or a value is wrong; the message says which and what fits.
    """
    return dated(load_section(Config, path, overrides), day)


def load_section(kind: type[S], path: Path, overrides: list[str] | None = None) -> S:
    """The same for a file that holds another kind of configuration; see `load_config`."""
    if not path.is_file():
        raise ConfigError(f"no configuration file at {path}")
    try:
        with path.open("rb") as file:
            text = b"\n".join(utf8_lines(file)).decode("utf-8")
        raw = yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, *UNREADABLE) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, not {type(raw).__name__}")
    for override in overrides or []:
        _apply_override(raw, override)
    return _validated(kind, raw, source=str(path))


def dated(config: Config, day: datetime.date | None = None) -> Config:
    """The configuration with the templates of its query log filled in; see `QueriesConfig`.

    One without templates is returned as it is.

    Raises:
        ConfigError: a template that is none.
    """
    queries = config.queries
    if queries is None:
        return config
    day = day or queries.date or datetime.datetime.now(datetime.UTC).date()
    path = _fill_in(queries.path, day, "queries.path")
    if unknown := re.search(r"\{[^{}]*\}", path):
        raise ConfigError(
            f"queries.path: {unknown.group()} is no date; {{date}} and {{yesterday}} are, "
            "with {yesterday:%Y/%m/%d} in another form"
        )
    terms = tuple(
        (column, operator, _fill_in(value, day, "queries.filter"))
        for column, operator, value in queries.filter
    )
    if (path, terms) == (queries.path, queries.filter):
        return config
    filled = {"path": path, "filter": terms, "date": day}
    return config.model_copy(update={"queries": queries.model_copy(update=filled)})


def _fill_in(value: Any, day: datetime.date, where: str) -> Any:
    """A value of the log's section with the dates that it asks for."""
    if isinstance(value, (list, tuple)):
        return type(value)(_fill_in(each, day, where) for each in value)
    if not isinstance(value, str):
        return value

    def written(match: re.Match[str]) -> str:
        meant = day if match["which"] == "date" else day - datetime.timedelta(days=1)
        form = match["form"] or "%Y-%m-%d"
        if wrong := re.sub(r"%[YymdjbBaAGVu]", "", form).count("%"):
            raise ConfigError(
                f"{where}: {match.group()} has {wrong} sign(s) % that are no part of a date; "
                "%Y, %m, %d and the like are"
            )
        return meant.strftime(form)

    return _TEMPLATE.sub(written, value)


_TEMPLATE = re.compile(r"\{(?P<which>date|yesterday)(?::(?P<form>[^{}]*))?\}")


def parse_config(raw: dict[str, Any], source: str = "the configuration") -> Config:
    """Validate a plain mapping; see `load_config`."""
    return _validated(Config, raw, source)


def _validated(kind: type[S], raw: dict[str, Any], source: str) -> S:
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        explained = dict.fromkeys(_explain(problem, kind) for problem in error.errors())
        problems = "\n".join(f"  - {line}" for line in explained)
        raise ConfigError(f"{source} cannot be used:\n{problems}") from None


def _apply_override(raw: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes dotted.key=value, not {override!r}")
    *parents, leaf = key.strip().split(".")
    section = raw
    for parent in parents:
        if section.get(parent) is None:
            section[parent] = {}
        child = section[parent]
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: {parent!r} is a value, not a section")
        section = child
    try:
        section[leaf] = yaml.load(value, Loader=_UniqueKeyLoader)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override}: {value!r} is not a YAML value") from None


def _explain(problem: Any, kind: type[Section]) -> str:
    path = [str(part) for part in problem["loc"]]
    if path[:3] == ["index", "bm25", "stopwords"]:
        languages = ", ".join(StopWords.__args__)  # type: ignore[attr-defined]
        return f"index.bm25.stopwords: a list of words, or one of {languages}"
    if path and path[-1].startswith(("literal[", "constrained-int", "constrained-float")):
        where = ".".join(path[:-1])
        if where.endswith(".max_rejects"):
            kinds = "a whole number of rows, or a share of them from 0 to below 1"
            return f"{where}: {kinds} (got {problem['input']!r})"
        if where == "clicks.propensity.eta":
            return f"{where}: 'estimate' or a number from 0 to 5 (got {problem['input']!r})"
        if path[0] == "labels":
            return f"{where}: 'all' or a whole number of at least 0 (got {problem['input']!r})"
        return f"{where}: 'auto' or a whole number of at least 1 (got {problem['input']!r})"
    where = ".".join(path)
    if problem["type"] == "extra_forbidden":
        *parents, unknown = (str(part) for part in problem["loc"])
        valid = _valid_keys(parents, kind)
        near = difflib.get_close_matches(unknown, valid, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{where}: unknown key{hint} (valid keys: {', '.join(valid)})"
    if problem["type"] == "missing":
        choice = ", or a collection that has it" if where in ("corpus", "corpus.path") else ""
        return f"{where}: required{choice}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where}: {message} (got {problem['input']!r})"


def _valid_keys(parents: list[str], kind: type[Section]) -> list[str]:
    """The keys of the section that a path leads to; names in a mapping of sections are any."""
    model: type[BaseModel] = kind
    named = False
    for parent in parents:
        if named:
            named = False
            continue
        annotation = model.model_fields[parent].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        sections = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        named = getattr(annotation, "__origin__", None) is dict
        model = sections[0]
    return list(model.model_fields)


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses repeated keys, of which YAML would silently keep the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is not a word", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
