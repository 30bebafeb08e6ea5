"""Everything a run reads, checked before any model is loaded or any actor started."""

import datetime
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from rerank_batch.config import (
    Config,
    IndexConfig,
    QueriesConfig,
    ScorerConfig,
    StorageConfig,
    digest,
    results_settings,
)
from rerank_batch.config.paths import cache_folder
from rerank_batch.data.corpus import corpus_fingerprint
from rerank_batch.data.parquet import fingerprint_files
from rerank_batch.data.qrels import Qrels
from rerank_batch.data.query_log import SUFFIXES as QUERY_SUFFIXES
from rerank_batch.data.query_log import Plan, make_plan
from rerank_batch.errors import ConfigError, InputError, ModelError
from rerank_batch.evaluation.ground_truth import Labels, label_files, read_labels
from rerank_batch.evaluation.measures import parse_measures
from rerank_batch.index.index import (
    Index,
    check_made_of,
    index_fingerprint,
    read_manifest,
    verify_files,
)
from rerank_batch.models.location import (
    ModelName,
    ModelPin,
    model_settings,
    parse_model,
    pin_model,
)
from rerank_batch.remarks import Remark
from rerank_batch.rerankers import FAMILIES as RERANKER_FAMILIES
from rerank_batch.rerankers import family_of, prompt_fingerprint
from rerank_batch.retrieval.given import Excluded, Given, read_excluded, read_given
from rerank_batch.runs import Run, is_begun, read_latest
from rerank_batch.scoring.modes import Graphs
from rerank_batch.scoring.stored import stored_prompts
from rerank_batch.services.address import address_of
from rerank_batch.storage import NodeCache, open_root
from rerank_batch.workflows.input_facts import of_labels, of_queries

ENCODER_FAMILIES = ("sentence-transformers",)

_VERSIONED = (
    "rerank-batch",
    "ray",
    "torch",
    "sentence-transformers",
    "transformers",
    "openvino",
    "faiss-cpu",
    "bm25s",
)


@dataclass(frozen=True)
class ScorerInput:
    """One model of the cascade, found and checked: its number there, and what it is made of.

    ``made_of`` is the fingerprint of its weights, or of what is known of a service: its name and
    its prompt. ``sizes`` is the config.json of its weights, empty for a service, which has no
    ``pin``. ``prompts`` are those that are stored with the weights.
    """

    number: int
    model: ModelName
    config: ScorerConfig
    made_of: str
    sizes: dict[str, Any]
    pin: ModelPin | None = None
    prompts: dict[str, str] = field(default_factory=dict)

    @property
    def is_service(self) -> bool:
        """Whether it is called over HTTP."""
        return family_of(self.model).service

    def weights(self) -> ModelPin:
        """The pin of a model with weights."""
        if self.pin is None:
            raise ModelError(f"{self.model} is a service, which has no weights")
        return self.pin


@dataclass(frozen=True)
class OpenedIndex:
    """An index whose files are there and that was made of what the configuration says."""

    index: Index
    config: IndexConfig
    encoder: ModelPin
    made_of: dict[str, Any]


@dataclass(frozen=True)
class Inputs:
    """What a run works on, what it is made of (the fingerprint's ingredients), what looks wrong.

    ``generations`` are those of the indexes that it reads, by where the index lies.
    """

    plan: Plan
    qrels: Qrels | None
    index: Index
    encoder: ModelPin
    scorers: tuple[ScorerInput, ...]
    made_of: dict[str, Any]
    given: Given | None = None
    excluded: Excluded = field(default_factory=Excluded)
    generations: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[Remark, ...] = ()

    @cached_property
    def planned_ids(self) -> set[str]:
        """Every id that a planned query stands for."""
        return {a for ids in self.plan.queries.column("query_ids").to_pylist() for a in ids}

    @cached_property
    def rejected_ids(self) -> set[str]:
        """Ids that the plan rejected and that no planned query stands for."""
        return set(self.plan.rejects.column("query_id").to_pylist()) - self.planned_ids

    @property
    def planned_qrels(self) -> Qrels:
        """The judgements of planned queries."""
        return {q: grades for q, grades in (self.qrels or {}).items() if q in self.planned_ids}

    @property
    def judged_queries(self) -> int:
        """Planned queries with at least one judgement."""
        qrels = self.qrels or {}
        listed = self.plan.queries.column("query_ids").to_pylist()
        return sum(any(alias in qrels for alias in ids) for ids in listed)

    @property
    def judged_rejects(self) -> int:
        """Judged queries that the plan rejected: they score 0 in every mean."""
        return len(self.rejected_ids & set(self.qrels or {}))

    @property
    def judged_elsewhere(self) -> int:
        """Judged queries that the log does not hold: not asked, so not counted in any mean."""
        return len(set(self.qrels or {}) - self.planned_ids - self.rejected_ids)


def read_inputs(
    config: Config, judged_only: bool = False, generations: Mapping[str, str] | None = None
) -> Inputs:
    """Read and check queries, judgements, index and model names.

    A run that is gone on with reads the ``generations`` of indexes that it began on.

    Raises:
        RerankBatchError: the first thing that is wrong, in the words of whoever found it.
    """
    queries = _queries_section(config, judged_only)
    parse_measures(config.evaluation.measures)
    parse_model(config.index.encoder, ENCODER_FAMILIES, "index.encoder")
    check_gate(config)
    models = scorer_names(config)
    labels = read_labels(config)
    qrels = labels.qrels if labels else None
    if queries.judged_only and qrels is None:
        raise ConfigError("queries.judged_only needs qrels.path: no query is judged without it")

    plan = make_plan(queries, qrels)
    opened = open_index(config, generations)
    cascade = config.reranker.cascade if config.reranker else ()
    scorers = tuple(
        scorer_input(number, model, settings)
        for number, (model, settings) in enumerate(zip(models, cascade, strict=True), start=1)
    )
    check_prices(config, scorers)

    made_of = {
        "settings": results_settings(config.model_copy(update={"queries": queries})),
        "queries": fingerprint_files(queries.path, QUERY_SUFFIXES, "queries"),
        "qrels": label_files(config),
        "plan": plan.fingerprint(),
        "index": opened.made_of,
        "reranker": [scorer.made_of for scorer in scorers] or None,
        **prompts_of(scorers),
    }
    excluded = read_excluded(config, opened.index)
    if excluded.fingerprint is not None:
        made_of["exclude"] = excluded.fingerprint
    given = read_given(config, opened.index, excluded)
    if given is not None:
        planned = plan.queries.column("query_ids").to_pylist()
        if not any(each in given.lists for ids in planned for each in ids):
            raise InputError("retrieval.given: its lists are of none of the log's queries")
        made_of["given"] = given.fingerprint
    inputs = Inputs(
        plan,
        qrels,
        opened.index,
        opened.encoder,
        scorers,
        made_of,
        given,
        excluded,
        opened.index.generations(),
    )
    return replace(inputs, remarks=_remarks(inputs, labels, queries.judged_only))


def _remarks(inputs: Inputs, labels: Labels | None, judged_only: bool) -> tuple[Remark, ...]:
    """What looks wrong about all that was read."""
    asked = inputs.planned_ids | set(inputs.plan.rejects.column("query_id").to_pylist())
    found = of_labels(labels, inputs.plan, asked, inputs.index.texts())
    if inputs.given is not None and not judged_only and not inputs.plan.left_out.queries:
        found += of_queries(
            "retrieval.given", "queries of its lists", inputs.given.lists, asked, "the log"
        )
    return (*inputs.plan.remarks, *inputs.excluded.remarks, *found)


def day_of(config: Config, run: str) -> datetime.date | None:
    """The day whose log a run began with, or 'latest' did; None where no such run is there yet."""
    root = open_root(config.root)
    if run == "latest":
        latest = read_latest(root, config.job)
        run = latest["run_id"] if latest else ""
    if not run or not is_begun(root, run):
        return None
    day = (Run.open(root, run).spec["config"].get("queries") or {}).get("date")
    return datetime.date.fromisoformat(day) if day else None


def open_index(config: Config, generations: Mapping[str, str] | None = None) -> OpenedIndex:
    """The index that the configuration names, checked.

    A run goes on with the generation that it began on, of the ``generations`` by where their index
    lies, as long as it is there: the corpus may be another by now, the texts of the index are not.

    Raises:
        RerankBatchError: it is not there, damaged, made of something else, or too small.
    """
    encoder = parse_model(config.index.encoder, ENCODER_FAMILIES, "index.encoder")
    pin, _ = pin_model(encoder.location)
    index_root = open_root(config.index.path)
    index = Index(index_root, read_manifest(index_root), node_cache(config.storage))
    corpus_print = corpus_fingerprint(config.corpus)
    made_of = index_fingerprint(config.index, corpus_print, pin.fingerprint)
    began_on = (generations or {}).get(index_root.uri)
    if began_on:
        before = read_manifest(index_root, began_on)
        if before.generation == began_on:
            index = replace(index, manifest=before)
            made_of["corpus"] = before.made_of["corpus"]
    check_made_of(index_root, index.manifest, made_of)
    verify_files(index)
    documents = index.manifest.documents
    depths = {"depth": config.retrieval.depth}
    depths |= {f"depths.{source}": depth for source, depth in config.retrieval.depths.items()}
    for name, depth in depths.items():
        if depth > documents:
            raise InputError(
                f"retrieval.{name} ({depth}) is larger than the corpus "
                f"({documents} documents); lower it with --set retrieval.{name}=…"
            )
    return OpenedIndex(index, config.index, pin, made_of)


def scorer_names(config: Config) -> list[ModelName]:
    """The models of the cascade, parsed.

    Raises:
        ModelError: a family that is not known, with the key where it stands.
    """
    if config.reranker is None:
        return []
    keys = ["reranker.model"]
    if config.reranker.stages:
        keys = [f"reranker.stages.{n}.model" for n in range(len(config.reranker.stages))]
    return [
        parse_model(scorer.model, tuple(RERANKER_FAMILIES), key)
        for scorer, key in zip(config.reranker.cascade, keys, strict=True)
    ]


def scorer_input(number: int, model: ModelName, settings: ScorerConfig) -> ScorerInput:
    """A model of the cascade, found and checked.

    Raises:
        ModelError: it is not there.
        ServiceError: a service whose address or key is missing.
    """
    if family_of(model).service:
        address_of(model.family)  # so that a missing key is told before anything is started
        made_of = digest([str(model), prompt_fingerprint(model, settings.method)])
        return ScorerInput(number, model, settings, made_of, {})
    pin, folder = pin_model(model.location)
    sizes, prompts = model_settings(folder), stored_prompts(folder)
    return ScorerInput(number, model, settings, pin.fingerprint, sizes, pin, prompts)


def prompts_of(scorers: Sequence[ScorerInput]) -> dict[str, Any]:
    """The prompts stored with the weights, where there are any, as an ingredient of a run.

    Versions before this one scored without them: a run that one of those began does not go on.
    """
    prompts = [scorer.prompts for scorer in scorers]
    return {"prompts": prompts} if any(prompts) else {}


def check_gate(config: Config) -> None:
    """A gate that was given a loss has to be told its threshold before it can be used.

    Raises:
        ConfigError: how to get one.
    """
    gate = config.reranker.gate if config.reranker else None
    if gate is not None and gate.threshold is None:
        raise ConfigError(
            "reranker.gate has no threshold: learn one on judged queries with "
            "`rerank-batch evaluate CONFIG --calibrate-gate`, which prints what to write there"
        )


def check_prices(config: Config, scorers: Sequence[ScorerInput]) -> None:
    """A cap means nothing where a price is missing.

    Raises:
        ConfigError: which price that is.
    """
    if config.cost.cap is None:
        return
    for scorer in scorers:
        if scorer.is_service and config.cost.price(str(scorer.model)) is None:
            raise ConfigError(
                f"cost.cap is set, but cost.prices has no price of {scorer.model.family} or "
                f"{scorer.model}: nothing that it bills would count. A server of your own costs "
                f"nothing a call: write {scorer.model.family}: {{}}"
            )


def are_too_many(rejected: int, log_rows: int, limit: float) -> bool:
    """Whether so many rejected log rows are beyond ``limits.max_rejects``."""
    return rejected > (limit if isinstance(limit, int) else limit * log_rows)


def node_cache(storage: StorageConfig) -> NodeCache:
    """The cache of every node that the job runs on."""
    return NodeCache(cache_folder(storage.cache), int(storage.cache_gb * 1e9))


def graphs(storage: StorageConfig, fingerprint: str) -> Graphs:
    """Where each node keeps the exported network of a model."""
    return Graphs(node_cache(storage).folder / "graphs", fingerprint)


def versions() -> dict[str, str]:
    """Versions of the packages that decide what comes out."""
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _queries_section(config: Config, judged_only: bool) -> QueriesConfig:
    if config.queries is None:
        raise ConfigError("queries.path is required here: there is no query log to read")
    return (
        config.queries.model_copy(update={"judged_only": True}) if judged_only else config.queries
    )
