"""The configuration: YAML in, one frozen typed value out.

Knows words and their limits, not files: whether a path exists is checked by whoever reads it.
Unknown and repeated keys are refused with the nearest valid name.
"""

import difflib
import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

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

from rerank_batch.errors import ConfigError

RUN_ID = re.compile(r"^[a-z0-9][a-z0-9_-]{0,63}\Z")

PoolSize = Literal["auto"] | Annotated[int, Field(ge=1)]
Lossy = Literal["bf16", "int8"]
Format = Literal["fp32"] | Lossy
Precision = Literal["auto"] | Format
Truncation = Literal["longest_first", "only_second"]
FilterTerm = tuple[
    str,
    Literal["==", "!=", "<", "<=", ">", ">=", "in", "not in"],
    Any,
]


class Section(BaseModel):
    """A part of the configuration: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _refuse_credentials(uri: str) -> str:
    if _CREDENTIALS.match(uri):
        raise ValueError(
            "credentials in a URI are refused; use the environment, a profile or an instance role"
        )
    return uri


_CREDENTIALS = re.compile(r"(?i)^[a-z][a-z0-9+.-]*://([^/]*@|[^/:]+:(?!\d+(/|$)).*@)")

Location = Annotated[str, AfterValidator(_refuse_credentials)]
"""A path or URI without credentials in it."""


class CorpusConfig(Section):
    """Where the documents are and what their columns are called.

    ``id``, ``title`` and ``text`` default to doc_id, title, text in Parquet and to _id, title, text
    in BEIR jsonl. A corpus without a title column needs no setting.
    """

    path: Location
    format: Literal["auto", "parquet", "beir"] = "auto"
    id: str | None = None
    title: str | None = None
    text: str | None = None
    empty: Literal["drop", "error"] = "drop"


class QueriesConfig(Section):
    """Where the query log is, how its columns are called, which rows count.

    ``time`` and ``weight`` default to ts and count, used where the log has them. ``filter`` is a
    list of ``[column, operator, value]`` that must all hold; it is pushed down to the Parquet scan.
    Rejects carry ids and reasons; with ``keep_rejected_texts`` the texts of the queries as well,
    which are personal data.
    """

    path: Location
    format: Literal["auto", "parquet", "beir"] = "auto"
    id: str | None = None
    text: str | None = None
    time: str | None = None
    weight: str | None = None
    dedupe: bool = True
    duplicates: Literal["error", "first"] = "error"
    judged_only: bool = False
    keep_rejected_texts: bool = False
    filter: tuple[FilterTerm, ...] = ()
    max_chars: int = Field(default=20_000, ge=1)


class QrelsConfig(Section):
    """Judgements: Parquet (query_id, doc_id, relevance), BEIR tsv, or TREC qrels."""

    path: Location
    format: Literal["auto", "parquet", "beir", "trec"] = "auto"
    filter: tuple[FilterTerm, ...] = ()


class IndexConfig(Section):
    """The FAISS index: where it lives, which model encodes, how it is cut.

    Documents are encoded in ``precision`` numbers where that pays, queries always in fp32.
    ``kind`` is Flat (exact), HNSW, IVF, or any FAISS factory string. ``nprobe`` and ``ef_search``
    steer the approximate kinds; the recall measured with them is in the index manifest.
    """

    path: Location
    encoder: str
    precision: Literal["fp32", "bf16"] = "fp32"
    runtime: Literal["auto", "openvino", "torch"] = "auto"
    kind: str = "Flat"
    shards: int = Field(default=1, ge=1, le=4096)
    max_length: int | None = Field(default=None, ge=8)
    nprobe: int | None = Field(default=None, ge=1)
    ef_search: int | None = Field(default=None, ge=1)


class RetrievalConfig(Section):
    """How many candidates each query takes to the reranker."""

    depth: int = Field(default=50, ge=1, le=10_000)


class RerankerConfig(Section):
    """Which model reranks, how much it reads, how many results are kept.

    ``precision`` names the numbers to compute in: bf16 and int8 are used where the machine has them
    and a short measurement says that they pay, else fp32. auto is the fastest of fp32 and those
    that ``allow`` names. What is fastest is measured once for a model and a root, and kept.
    ``truncation`` says what loses tokens where a pair is longer than ``max_length``: the longer of
    the two, or the document alone.
    """

    model: str
    top_k: int = Field(default=10, ge=1)
    max_length: int | None = Field(default=None, ge=8)
    precision: Precision = "auto"
    allow: tuple[Lossy, ...] = ()
    runtime: Literal["auto", "openvino", "torch"] = "auto"
    truncation: Truncation = "longest_first"
    batch_tokens: Literal["auto"] | Annotated[int, Field(ge=64)] = "auto"


class EvaluationConfig(Section):
    """Measures by their ir-measures names."""

    measures: tuple[str, ...] = ("nDCG@10", "RR@10", "R@5", "R@50")


class ComputeConfig(Section):
    """Actor pools and machine size; changes speed, never results, except ``block_rows``.

    ``block_rows`` is how many queries travel, are scored and are committed together. It is derived
    from the number of queries alone, so that results do not depend on the machine.
    """

    encoders: PoolSize = "auto"
    retrievers: PoolSize = "auto"
    scorers: PoolSize = "auto"
    block_rows: PoolSize = "auto"
    cpus: PoolSize = "auto"
    gpus: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    address: str | None = None
    object_store_mb: int = Field(default=512, ge=80)


class StorageConfig(Section):
    """Where s3:// is and what a node keeps of it; changes no results.

    ``endpoint`` is for stores other than AWS; by default AWS_ENDPOINT_URL_S3 of the environment.
    Credentials come from the environment, a profile or an instance role, never from here.
    ``cache`` is the folder on each node that holds downloaded index files, ``cache_gb`` its size.
    ``lease_seconds``: a driver that has not renewed its lease for so long is taken for dead.
    """

    endpoint: Location | None = None
    cache: str = "~/.cache/rerank_batch"
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


class CostConfig(Section):
    """What the cluster costs, for estimates; changes no results."""

    per_hour: float | None = Field(default=None, ge=0)
    currency: str = "USD"


class LimitsConfig(Section):
    """When a run has gone wrong wholesale.

    ``max_rejects`` is a number of log rows, or a share of them if below 1.
    """

    max_rejects: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)] = 0.2


class Config(Section):
    """Everything a job needs to know."""

    root: Location = "./.runs"
    job: str = "rerank"
    corpus: CorpusConfig
    queries: QueriesConfig | None = None
    qrels: QrelsConfig | None = None
    index: IndexConfig
    retrieval: RetrievalConfig = RetrievalConfig()
    reranker: RerankerConfig | None = None
    evaluation: EvaluationConfig = EvaluationConfig()
    compute: ComputeConfig = ComputeConfig()
    storage: StorageConfig = StorageConfig()
    cache: CacheConfig = CacheConfig()
    cost: CostConfig = CostConfig()
    limits: LimitsConfig = LimitsConfig()

    @field_validator("job")
    @classmethod
    def _job_is_a_plain_name(cls, job: str) -> str:
        if not RUN_ID.match(job):
            raise ValueError(
                f"{job!r} is not a job name: lower-case letters, digits, '-' and '_', 64 at most"
            )
        return job

    @model_validator(mode="after")
    def _results_fit_the_candidates(self) -> "Config":
        if self.reranker is not None and self.reranker.top_k > self.retrieval.depth:
            raise ValueError(
                f"reranker.top_k ({self.reranker.top_k}) is larger than retrieval.depth "
                f"({self.retrieval.depth}): there are no more results than candidates"
            )
        return self

    def results_settings(self) -> dict[str, Any]:
        """The settings that change results, for the fingerprint of a run.

        Paths are left out (the content of what they name is hashed instead), of models their
        location, and everything that only changes where or how fast the work is done.
        """
        settings = self.model_dump(mode="json")
        for key in ("root", "job", "storage", "cache", "cost", "limits"):
            del settings[key]
        for section in ("corpus", "queries", "qrels", "index"):
            if settings[section] is not None:
                settings[section].pop("path")
        for section, key in (("index", "encoder"), ("reranker", "model")):
            if settings[section] is not None:
                settings[section][key] = settings[section][key].partition(":")[0]
        settings["compute"] = {"block_rows": settings["compute"]["block_rows"]}
        return settings


def digest(value: object) -> str:
    """sha256 of a value's canonical JSON, as hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Read a YAML file, apply ``dotted.key=value`` overrides and validate.

    Raises:
        ConfigError: the file, a key or a value is wrong; the message says which and what fits.
    """
    if not path.is_file():
        raise ConfigError(f"no configuration file at {path}")
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold a mapping of sections, not {type(raw).__name__}")
    for override in overrides or []:
        _apply_override(raw, override)
    return parse_config(raw, source=str(path))


def parse_config(raw: dict[str, Any], source: str = "the configuration") -> Config:
    """Validate a plain mapping; see `load_config`."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        explained = dict.fromkeys(_explain(problem) for problem in error.errors())
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


def _explain(problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    if path and path[-1].startswith(("literal[", "constrained-int", "constrained-float")):
        where = ".".join(path[:-1])
        if where == "limits.max_rejects":
            kinds = "a whole number of rows, or a share of them from 0 to below 1"
            return f"{where}: {kinds} (got {problem['input']!r})"
        return f"{where}: 'auto' or a whole number of at least 1 (got {problem['input']!r})"
    where = ".".join(path)
    if problem["type"] == "extra_forbidden":
        *parents, unknown = (str(part) for part in problem["loc"])
        valid = _valid_keys(parents)
        near = difflib.get_close_matches(unknown, valid, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{where}: unknown key{hint} (valid keys: {', '.join(valid)})"
    if problem["type"] == "missing":
        return f"{where}: required"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where}: {message} (got {problem['input']!r})"


def _valid_keys(parents: list[str]) -> list[str]:
    model: type[BaseModel] = Config
    for parent in parents:
        annotation = model.model_fields[parent].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        sections = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
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
