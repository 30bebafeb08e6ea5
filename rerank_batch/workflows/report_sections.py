"""What a run's scores mean, what a gate would trade, what it cost: parts of report and metrics."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from rerank_batch.config import GateConfig
from rerank_batch.evaluation.comparison import Comparison, Signal
from rerank_batch.evaluation.cost.study import CostTable
from rerank_batch.evaluation.gate.study import (
    TOLERANCE,
    GateCurve,
    GateStudy,
    OwnGate,
    study_gates,
)
from rerank_batch.evaluation.scores.study import ScoreStudy
from rerank_batch.retrieval.gate import sureness, sureness_of_value

SIGNALS = ("margin", "margin@5", "margin@10", "top1", "entropy")


def gate_study(
    reranker: Mapping[str, Any] | None, gate: GateConfig | None, comparison: Comparison
) -> GateStudy | str:
    """What each signal of the retrieval scores would skip and lose, or why that is not known.

    ``reranker`` is that of the run's own configuration, ``gate`` one whose place is to be shown. A
    query that was rejected counts in the means and as one that no gate skips.
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
    before, after = (
        comparison.values[system][comparison.headline] for system in comparison.systems
    )
    return study_gates(comparison.headline, comparison.signals, before, after, own)


def gate_signals(gate: GateConfig | None) -> dict[str, Signal]:
    """The signals of a gate by their names, that of the one that is configured first."""
    names = dict.fromkeys([*([gate.signal] if gate else []), *SIGNALS])
    return {name: partial(sureness, name) for name in names}


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
