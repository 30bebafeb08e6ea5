"""What a run teaches beside its means: how many candidates to rerank, and where it fails."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from rerank_batch.evaluation.comparison import Comparison
from rerank_batch.evaluation.depth import TOLERANCE, DepthStudy, study_depths
from rerank_batch.evaluation.failures import TOP, Failures, Group, find_failures
from rerank_batch.evaluation.judged import judged_blocks
from rerank_batch.models import ModelName
from rerank_batch.qrels import Qrels
from rerank_batch.rerankers import is_listwise
from rerank_batch.run import Run


def study_depth(run: Run, qrels: Qrels, comparison: Comparison) -> DepthStudy | str:
    """Quality and cost at every depth up to the run's, or why they cannot be told from it."""
    config = run.spec["config"]
    if refused := _why_not(config["reranker"]):
        return refused
    stage = _stages(config["reranker"])[0]
    return study_depths(
        judged_blocks(run.results_paths(), qrels),
        comparison.measures,
        stage["depth"] or config["retrieval"]["depth"],
        len(comparison.retrieval),
    )


def failures_of(run: Run, qrels: Qrels, comparison: Comparison) -> Failures:
    """The queries that were helped and hurt most, and the failures of each side."""
    headline = comparison.measures[0]
    before, after = (
        {query: values[headline] for query, values in each.items()}
        for each in (comparison.retrieval, comparison.reranked)
    )
    return find_failures(judged_blocks(run.results_paths(), qrels), headline, before, after)


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


def depth_parts(depth: Mapping[str, Any]) -> list[Table | str]:
    """The table of depths and its meaning, or why there is none."""
    if "refused" in depth:
        return [f"depth: not known from this run: {depth['refused']}"]
    name, last = depth["headline"], depth["rows"][-1]
    table = Table(title="Depth", title_justify="left")
    for column in ("candidates", name, "recall ceiling", "pairs", "cost"):
        table.add_column(column, justify="right")
    table.add_column("")
    for row in depth["rows"]:
        table.add_row(
            str(row["depth"]),
            f"{row['values'][name]:.4f}",
            f"{row['recall']:.4f}" if row["depth"] else "–",
            f"{row['pairs']:,}",
            f"{row['pairs'] / last['pairs']:.0%}" if last["pairs"] else "–",
            "knee" if row["depth"] == depth["knee"] else "",
        )
    return [table, f"depth: {depth['in_words']}"]


def failures_line(failures: Mapping[str, Any]) -> str:
    """Whose failures there are."""
    lost, pushed = failures["never_found"], failures["pushed_down"]
    return (
        f"failures: never retrieved {lost['documents']:,} relevant documents of "
        f"{lost['queries']:,} queries ({lost['found_nothing']:,} found none); pushed out of the "
        f"top {TOP} by the reranker {pushed['documents']:,} of {pushed['queries']:,} queries"
    )


def _why_not(reranker: Mapping[str, Any] | None) -> str | None:
    if reranker is None:
        return "it had no reranker"
    stages = _stages(reranker)
    if len(stages) > 1:
        return (
            f"it reranked by a cascade of {len(stages)} stages, and what a later one would have "
            "got to read at another depth is not in it"
        )
    family, _, location = stages[0]["model"].partition(":")
    if is_listwise(ModelName(family, location), stages[0]["method"]):
        return (
            f"{stages[0]['model']} reads whole lists, so its scores say nothing about shorter ones"
        )
    return None


def _stages(reranker: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(reranker["stages"]) or [reranker]


def _counts(group: Group) -> dict[str, int]:
    return {"queries": group.queries, "documents": group.documents}
