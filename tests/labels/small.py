"""A corpus, a finished run and a label plan small enough to be read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from rerank_batch.config import LabelsConfig
from rerank_batch.data.qrels import Qrels
from rerank_batch.data.text_store import TextStore, shard_bounds, write_texts
from rerank_batch.labels.candidates import CandidateSource
from rerank_batch.labels.mining.pools import Mining
from rerank_batch.labels.mining.stage import MineLabels
from rerank_batch.labels.planning import LabelPlan, Truth, plan_labels
from rerank_batch.labels.rules import Rules
from rerank_batch.labels.splits import HeldOut
from tests.support.helpers import finished_run, result_row

Hits = Sequence[tuple[str, float, float]]
"""A query's candidates: (doc_id, retrieval score, teacher score)."""


@dataclass(frozen=True)
class Texts:
    """What a stage asks of an index: its text store."""

    store: TextStore

    def texts(self) -> TextStore:
        return self.store


def corpus(folder: Path, texts: Mapping[str, str], shards: int = 3) -> Texts:
    ids = sorted(texts)
    columns = {"doc_id": ids, "title": [""] * len(ids), "text": [texts[i] for i in ids]}
    table = pa.table(
        {name: pa.array(values, pa.large_string()) for name, values in columns.items()}
    )
    bounds = shard_bounds(len(ids), shards)
    return Texts(TextStore(write_texts(table, bounds, folder), bounds))


def run_of(folder: Path, candidates: Mapping[str, Hits], run_id: str = "run-1") -> CandidateSource:
    """A finished run of those queries, two a file."""
    rows = [
        result_row(number, candidates[query_id], [query_id])
        for number, query_id in enumerate(sorted(candidates))
    ]
    blocks = [rows[start : start + 2] for start in range(0, len(rows), 2)]
    return CandidateSource.of(finished_run(folder, blocks, run_id))


def labels_config(**settings: Any) -> LabelsConfig:
    """By default everything is train, and every candidate that no filter keeps out is taken."""
    given = {
        "negatives": {"retrieval": {"count": "all"}, "random": 0},
        "split": {"dev": 0.0, "test": 0.0},
        **settings,
    }
    return LabelsConfig.model_validate(given)


def plan(
    source: CandidateSource,
    qrels: Qrels | None,
    config: LabelsConfig,
    held_out: HeldOut | None = None,
) -> LabelPlan:
    return plan_labels(source, Truth(config.source, qrels), config, held_out or HeldOut())


def mined(
    texts: Texts,
    source: CandidateSource,
    qrels: Qrels | None,
    config: LabelsConfig,
    others: Sequence[Any] = (),
    is_logit: bool = True,
    held_out: HeldOut | None = None,
) -> list[dict[str, Any]]:
    """What the stage makes of every query of the run that is labelled."""
    mining = Mining(
        source=source,
        others=tuple(others),
        window=config.negatives.retrieval,
        random=config.negatives.random,
        positives=config.positives,
        graded=qrels is not None,
        rules=Rules(config.filters, config.positives.grade, is_logit),
        seed=config.seed,
    )
    planned = plan(source, qrels, config, held_out)
    stage = MineLabels(texts, replace(mining, withheld=planned.withheld))  # type: ignore[arg-type]
    rows: list[dict[str, Any]] = stage(planned.queries).to_pylist()
    return rows


def negatives(row: Mapping[str, Any]) -> list[str]:
    return [each["doc_id"] for each in row["documents"] if each["role"] == "negative"]


def removed(row: Mapping[str, Any]) -> dict[str, int]:
    return {rule: count for rule, count in row["removed"].items() if count}
