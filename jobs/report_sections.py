"""What a run's scores mean, what a gate would trade, what it cost: parts of report and metrics."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rerank_batch.config import GateConfig
from rerank_batch.evaluation.cost_table import CostTable
from rerank_batch.evaluation.gate_curve import (
    TOLERANCE,
    GateCurve,
    GateStudy,
    OwnGate,
    study_gates,
)
from rerank_batch.evaluation.score_distribution import ScoredList, ScoreStudy
from rerank_batch.retrieval.gate import sureness, sureness_of_value

SIGNALS = ("margin", "margin@5", "margin@10", "top1", "entropy")


def gate_study(
    reranker: Mapping[str, Any] | None,
    gate: GateConfig | None,
    measure: str,
    retrieval: Iterable[Sequence[ScoredList]],
    before: Mapping[str, float],
    after: Mapping[str, float],
) -> GateStudy | str:
    """What each signal of the retrieval scores would skip and lose, or why that is not known.

    ``reranker`` is that of the run's own configuration, ``gate`` one whose place is to be shown.
    ``retrieval`` holds the lists of the judged queries with retrieval's scores, ``before`` and
    ``after`` the measure of every judged query. One that has no list, because it was rejected,
    counts in the means and as one that no gate skips.
    """
    if refused := _why_not(reranker):
        return refused
    own = None
    if gate is not None and gate.threshold is not None:
        sign = "at most" if gate.signal == "entropy" else "at least"
        own = OwnGate(
            gate.signal,
            sureness_of_value(gate.signal, gate.threshold),
            f"{gate.signal} {sign} {gate.threshold:g}",
        )
    signals = dict.fromkeys([*([own.signal] if own else []), *SIGNALS])
    found = sureness_of_lists(retrieval, tuple(signals))
    queries = sorted(before)
    return study_gates(
        measure,
        {
            signal: np.array([sure.get(query, -np.inf) for query in queries])
            for signal, sure in found.items()
        },
        np.array([before[query] for query in queries]),
        np.array([after[query] for query in queries]),
        own,
    )


def sureness_of_lists(
    blocks: Iterable[Sequence[ScoredList]], signals: Sequence[str]
) -> dict[str, dict[str, float]]:
    """By signal and query id how sure retrieval is; lists are of retrieval, with all its scores."""
    found: dict[str, dict[str, float]] = {signal: {} for signal in signals}
    for block in blocks:
        for listed in block:
            scores = np.array(listed.scores, np.float32)
            for signal, sure in found.items():
                sure[listed.query_id] = sureness(signal, scores)
    return found


def scores_of_one_model(hits: Iterable[Mapping[str, Any]]) -> list[float | None]:
    """The scores of candidates by the last model of a run, None where it did not read one.

    In a cascade the last score of a document may be that of an earlier model, on another scale.
    """
    return [hit["stage_scores"][-1] if "stage_scores" in hit else hit["score"] for hit in hits]


def scores_summary(studies: Mapping[str, ScoreStudy | str]) -> dict[str, Any]:
    """The studies of all systems as JSON values."""
    return {
        system: {"refused": study} if isinstance(study, str) else _scores(study)
        for system, study in studies.items()
    }


def gate_summary(study: GateStudy | str) -> dict[str, Any]:
    """The trade-offs as JSON values."""
    if isinstance(study, str):
        return {"refused": study}
    return {
        "measure": study.measure,
        "queries": study.queries,
        "retrieval": study.retrieval,
        "reranked": study.reranked,
        "tolerance": TOLERANCE,
        "in_words": list(study.in_words()),
        "own": study.own.text if study.own else None,
        "signals": {curve.signal: _curve(curve) for curve in study.curves},
    }


def cost_summary(tables: Mapping[str, CostTable | str]) -> dict[str, Any]:
    """The costs of all systems as JSON values."""
    return {
        system: {"refused": table}
        if isinstance(table, str)
        else {
            "queries": table.queries,
            "currency": table.currency,
            "models": [
                {**vars(row), "pairs_per_second": row.pairs_per_second} for row in table.models
            ],
            "cluster": table.cluster,
            "total": table.total,
            "per_1000_queries": table.per_1000_queries,
            "in_words": table.in_words(),
        }
        for system, table in tables.items()
    }


def _why_not(reranker: Mapping[str, Any] | None) -> str | None:
    if reranker is None:
        return "it had no reranker"
    gate = reranker.get("gate")
    if gate and gate.get("threshold") is not None:
        return (
            f"it had a gate itself ({gate['signal']}), so what the reranker would have gained on "
            "the queries it skipped is not in it"
        )
    return None


def _scores(study: ScoreStudy) -> dict[str, Any]:
    width = study.edges[1] - study.edges[0]
    return {
        "edges": list(study.edges),
        "kinds": {
            each.kind: {
                "documents": each.documents,
                "median": each.median,
                "counts": list(each.counts),
                "densities": [share / width for share in each.shares],
            }
            for each in study.classes
        },
        "groups": [{**vars(group), "share": group.share} for group in study.groups],
        "is_lower_bound": study.is_lower_bound,
        "pairs": {**vars(study.order)},
        "calibration": vars(study.calibration) if study.calibration else None,
        "unread": study.unread,
        "sampled": study.sampled,
        "in_words": list(study.in_words()),
    }


def _curve(curve: GateCurve) -> dict[str, Any]:
    return {
        "safe": vars(curve.safe),
        "own": vars(curve.own) if curve.own else None,
        "points": [vars(point) for point in curve.points],
    }
