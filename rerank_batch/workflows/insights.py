"""What a run teaches beside its means: how many candidates to rerank, and where it fails."""

from collections.abc import Mapping
from typing import Any

from rerank_batch.evaluation.depth.study import TOLERANCE, DepthStudy
from rerank_batch.evaluation.failures.study import TOP, Failures, Group
from rerank_batch.evaluation.judged import RERANKED, RETRIEVAL
from rerank_batch.models.location import ModelName
from rerank_batch.rerankers import is_listwise
from rerank_batch.runs import Run


def depths_of(run: Run) -> dict[str, int]:
    """How deep the systems of a run read whose smaller depths can be told from it."""
    found = {system: _depth(run, system) for system in run.spec.get("systems") or [RERANKED]}
    return {system: depth for system, depth in found.items() if isinstance(depth, int)}


def of_one_model(run: Run) -> tuple[str, ...]:
    """The systems of a run whose scores are all of one model, or of retrieval."""
    if systems := run.spec.get("systems"):
        made_of = run.spec["made_of"]["settings"]["systems"]
        return tuple(
            name for name, each in zip(systems, made_of, strict=True) if len(each["cascade"]) < 2
        )
    reranker = run.spec["config"]["reranker"]
    if reranker is None:
        return (RETRIEVAL,)
    return (RETRIEVAL,) if len(reranker["stages"]) > 1 else (RETRIEVAL, RERANKED)


def why_no_depth(run: Run, system: str) -> str:
    """Why a run says nothing of another depth of a system that `depths_of` leaves out."""
    why = _depth(run, system)
    if isinstance(why, int):
        raise KeyError(f"{system} of run {run.run_id} is studied")
    return why


def depth_summary(study: DepthStudy | str) -> dict[str, Any]:
    """The study as JSON values."""
    if isinstance(study, str):
        return {"refused": study}
    return {
        "headline": study.headline,
        "tolerance": TOLERANCE,
        "knee": study.knee.depth,
        "in_words": study.in_words(),
        "rows": [{**vars(row), "values": dict(row.values)} for row in study.rows],
    }


def failures_summary(failures: Failures) -> dict[str, Any]:
    """The failures as JSON values: counts and ids, no texts."""
    return {
        "headline": failures.headline,
        "top": TOP,
        "helped": {case.query_id: case.gain for case in failures.helped},
        "hurt": {case.query_id: case.gain for case in failures.hurt},
        "never_found": {
            **_counts(failures.never_found),
            "found_nothing": failures.found_nothing,
            "worst": {
                case.query_id: list(case.never_found[:TOP]) for case in failures.never_found.cases
            },
        },
        "pushed_down": {
            **_counts(failures.pushed_down),
            "worst": {
                case.query_id: [vars(moved) for moved in case.pushed_down]
                for case in failures.pushed_down.cases
            },
        },
    }


def failures_line(failures: Mapping[str, Any], about: str = "") -> str:
    """Whose failures there are."""
    lost, pushed = failures["never_found"], failures["pushed_down"]
    return (
        f"failures{about}: never retrieved {lost['documents']:,} relevant documents of "
        f"{lost['queries']:,} queries ({lost['found_nothing']:,} found none); pushed out of the "
        f"top {TOP} {'' if about else 'by the reranker '}{pushed['documents']:,} of "
        f"{pushed['queries']:,} queries"
    )


def _depth(run: Run, system: str) -> int | str:
    """How deep a system read; as text why that says nothing of smaller depths."""
    if systems := run.spec.get("systems"):
        if system not in systems:
            return f"the lists of {system} were read, and not what they were made from"
        made_of = run.spec["made_of"]["settings"]["systems"][systems.index(system)]
        cascade, retrieval_depth = made_of["cascade"], made_of["depth"]
        listwise = [reads["listwise"] for reads in cascade]
        models = [system]
    else:
        config = run.spec["config"]
        reranker = config["reranker"]
        cascade = [] if reranker is None else list(reranker["stages"]) or [reranker]
        retrieval_depth = config["retrieval"]["depth"]
        models = [stage["model"] for stage in cascade]
        names = [ModelName(*model.split(":", 1)) for model in models]
        listwise = [is_listwise(n, s["method"]) for n, s in zip(names, cascade, strict=True)]
    if not cascade:
        return "it had no reranker"
    if len(cascade) > 1:
        return (
            f"it reranked by a cascade of {len(cascade)} stages, and what a later one would have "
            "got to read at another depth is not in it"
        )
    if listwise[0]:
        return f"{models[0]} reads whole lists, so its scores say nothing about shorter ones"
    return int(cascade[0]["depth"] or retrieval_depth)


def _counts(group: Group) -> dict[str, int]:
    return {"queries": group.queries, "documents": group.documents}
