"""Everything a run reads, checked before any model is loaded or any actor started."""

import datetime
import importlib.metadata
from collections.abc import Mapping
from dataclasses import replace

from rerank_batch.comparison.plan import computed_systems, plan_comparison
from rerank_batch.config import (
    Config,
    QueriesConfig,
    results_settings,
)
from rerank_batch.data.id_matches import unmatched_queries
from rerank_batch.data.parquet import fingerprint_files
from rerank_batch.data.plan import make_plan
from rerank_batch.data.query_log import SUFFIXES as QUERY_SUFFIXES
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.evaluation.ground_truth import (
    GroundTruth,
    ground_truth_files,
    label_remarks,
    read_ground_truth,
)
from rerank_batch.evaluation.measures import parse_measures
from rerank_batch.index.configured import ENCODER_FAMILIES, open_index
from rerank_batch.models.location import (
    parse_model,
)
from rerank_batch.pipeline.graph import RerankWork
from rerank_batch.pipeline.work import Work
from rerank_batch.remarks import Remark
from rerank_batch.rerankers.configured import (
    check_gate,
    check_prices,
    prompts_of,
    scorer_input,
    scorer_names,
)
from rerank_batch.retrieval.excluded import read_excluded
from rerank_batch.retrieval.given import read_given
from rerank_batch.runs import Run, is_begun, read_latest
from rerank_batch.storage import open_root

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


def read_inputs(
    config: Config, judged_only: bool = False, generations: Mapping[str, str] | None = None
) -> Work:
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
    labels = read_ground_truth(config)
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
        "qrels": ground_truth_files(config),
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
    work = RerankWork(
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
    return replace(work, remarks=_remarks(work, labels, queries.judged_only))


def read_comparison(
    config: Config, judged_only: bool = True, generations: Mapping[str, str] | None = None
) -> Work:
    """Read and check everything that the computed systems of a configuration need; ``generations``
    as `read_inputs` has them.

    Raises:
        RerankBatchError: the first thing that is wrong, in the words of whoever found it.
    """
    first = next(iter(computed_systems(config).values()))
    base = read_inputs(first.model_copy(update={"reranker": None}), judged_only, generations)
    return plan_comparison(config, base, generations)


def _remarks(work: Work, labels: GroundTruth | None, judged_only: bool) -> tuple[Remark, ...]:
    """What looks wrong about all that was read."""
    asked = work.planned_ids | set(work.plan.rejects.column("query_id").to_pylist())
    found = label_remarks(labels, work.plan, asked, work.index.texts())
    if work.given is not None and not judged_only and not work.plan.left_out.queries:
        found += unmatched_queries(
            "retrieval.given", "queries of its lists", work.given.lists, asked, "the log"
        )
    return (*work.plan.remarks, *work.excluded.remarks, *found)


def day_of(config: Config, run: str) -> datetime.date | None:
    """The day whose log a run began with, or 'latest' did; None where no such run is there yet."""
    root = open_root(config.root)
    if run == "latest":
        latest = read_latest(root, config.job)
        run = latest["run_id"] if latest else ""
    if not run or not is_begun(root, run):
        return None
    day = (Run.open(root, run).spec.config.get("queries") or {}).get("date")
    return datetime.date.fromisoformat(day) if day else None


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
