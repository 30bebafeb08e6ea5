"""The systems of a comparison that are not computed: earlier runs and TREC run files."""

from collections.abc import Mapping, Sequence

import numpy as np

from rerank_batch.config import Config, SystemConfig
from rerank_batch.data.qrels import Judgements
from rerank_batch.data.trec import read_run
from rerank_batch.errors import ConfigError
from rerank_batch.evaluation.judged import (
    RERANKED,
    RETRIEVAL,
    Lists,
    RankedDocuments,
    judged_blocks,
)
from rerank_batch.runs import Run
from rerank_batch.storage import open_root


def external_lists(config: Config, qrels: Judgements) -> dict[str, Lists]:
    """The lists of the systems that are not computed, by query id, of judged queries.

    Raises:
        InputError, RunConflict: a run or a file is not there, or does not hold what is asked.
    """
    return {
        name: _lists_of_run(config, name, system, qrels) if system.run else _lists_of_trec(system)
        for name, system in config.evaluation.systems.items()
        if not system.is_computed
    }


def _lists_of_run(
    config: Config, name: str, system: SystemConfig, qrels: Judgements
) -> dict[str, RankedDocuments]:
    run = Run.open(open_root(config.root), system.run or "")
    run.finished()
    there = run.spec.systems or [RETRIEVAL, RERANKED]
    wanted = system.system or RERANKED
    if wanted not in there:
        raise ConfigError(
            f"evaluation.systems.{name}: run {run.run_id} holds the systems {', '.join(there)}; "
            "say which with system"
        )
    return {
        query_id: query.lists[wanted]
        for block in judged_blocks(run.results_paths(), qrels)
        for query in block
        for query_id in query.query_ids
    }


def _lists_of_trec(system: SystemConfig) -> dict[str, RankedDocuments]:
    return {
        query_id: RankedDocuments(
            [doc_id for doc_id, _ in ranking],
            np.array([score for _, score in ranking], np.float32),
        )
        for query_id, ranking in read_run(system.trec or "").items()
    }


def with_missing(lists: Mapping[str, Lists], query_ids: Sequence[str]) -> dict[str, int]:
    """Of each system how many of the queries it has no list for."""
    return {name: sum(query not in known for query in query_ids) for name, known in lists.items()}
