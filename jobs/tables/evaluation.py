"""What an evaluation prints: systems, what the tests say of them, and what cannot be decided."""

from collections.abc import Sequence

from rich.table import Table

from rerank_batch.evaluation.acceptance import Check
from rerank_batch.evaluation.depth.study import DepthStudy
from rerank_batch.evaluation.failures.study import TOP, Failures
from rerank_batch.evaluation.ground_truth import JUDGEMENTS
from rerank_batch.evaluation.report.headline import headline_cells
from rerank_batch.remarks import NotKnown
from rerank_batch.runs.summary import CacheFacts
from rerank_batch.workflows.evaluate import Evaluation
from rerank_batch.workflows.run_scores import scores_line

from ..console import Console
from .facts import facts_table, remark_lines
from .outcomes import outcomes_parts
from .segments import segment_parts


def show(evaluation: Evaluation, console: Console) -> None:
    """Print the comparison, what it cannot decide, and where the report is."""
    comparison, truth = evaluation.comparison, evaluation.ground_truth
    several = len(comparison.systems) > 2
    about = f" of {comparison.best}, the best by the first measure" if several else ""
    console.result(
        evaluation.to_json(),
        *([_systems_table(evaluation)] if several else []),
        _comparison_table(evaluation, several),
        "p: randomisation test, corrected by Holm over this table. Intervals are not corrected.",
        *([] if truth.words == JUDGEMENTS else [truth.words]),
        *(
            f"{row.system if several else row.measure}: {row.test.doubt}"
            for row in evaluation.rows
            if row.test.doubt and (not several or row.measure == comparison.headline)
        ),
        *(
            f"{name} has no list for {count:,} of the queries: they count as 0"
            for name, count in evaluation.missing.items()
            if count
        ),
        *depth_parts(evaluation.depth, about),
        failures_line(evaluation.failures, about),
        *segment_parts(evaluation.segments),
        *outcomes_parts(evaluation.outcomes),
        *passed_lines(evaluation.checks),
        facts_table("Evaluation", _facts(evaluation)),
    )


def depth_parts(depth: DepthStudy | NotKnown, about: str = "") -> list[Table | str]:
    """The table of depths and its meaning, or why there is none."""
    if isinstance(depth, NotKnown):
        return [f"depth{about}: not known from this run: {depth.reason}"]
    name, last = depth.headline, depth.rows[-1]
    table = Table(title=f"Depth{about}", title_justify="left")
    for column in ("candidates", name, "recall ceiling", "pairs", "cost"):
        table.add_column(column, justify="right")
    table.add_column("")
    for row in depth.rows:
        table.add_row(
            str(row.depth),
            f"{row.values[name]:.4f}",
            f"{row.recall:.4f}" if row.depth else "–",
            f"{row.pairs:,}",
            f"{row.pairs / last.pairs:.0%}" if last.pairs else "–",
            "knee" if row.depth == depth.knee.depth else "",
        )
    return [table, f"depth: {depth.in_words()}"]


def failures_line(failures: Failures, about: str = "") -> str:
    """Whose failures there are."""
    lost, pushed = failures.never_found, failures.pushed_down
    return (
        f"failures{about}: never retrieved {lost.documents:,} relevant documents of "
        f"{lost.queries:,} queries ({failures.found_nothing:,} found none); pushed out of the "
        f"top {TOP} {'' if about else 'by the reranker '}{pushed.documents:,} of "
        f"{pushed.queries:,} queries"
    )


def passed_lines(checks: Sequence[Check]) -> list[str]:
    """A line for each check that passed; the error of the command has the others."""
    return [f"passed: {check.requirement} ({check.numbers})" for check in checks if check.passed]


def _comparison_table(evaluation: Evaluation, several: bool) -> Table:
    title = f"{evaluation.comparison.queries:,} judged queries"
    table = Table(title=title, title_justify="left", pad_edge=False)
    (first, *others), *rows = headline_cells(evaluation.comparison.systems, evaluation.rows)
    table.add_column(first)
    for column in others:
        table.add_column(column, justify="right")
    for number, row in enumerate(rows):
        last_of_system = number + 1 < len(rows) and rows[number + 1][0] != ""
        table.add_row(*row, end_section=several and last_of_system)
    return table


def _systems_table(evaluation: Evaluation) -> Table:
    """Every system with its means: the baseline first."""
    table = Table(title="Systems", title_justify="left", pad_edge=False)
    table.add_column("system")
    for name in evaluation.comparison.measures:
        table.add_column(name, justify="right")
    table.add_column("what it is")
    for system, means in evaluation.comparison.means().items():
        values = [f"{value:.4f}" for value in means.values()]
        table.add_row(system, *values, evaluation.systems.get(system, ""))
    return table


def _facts(evaluation: Evaluation) -> dict[str, object]:
    final = evaluation.final
    cache = final.get("cache")
    facts: dict[str, object] = {
        "run": evaluation.run_id,
        "pairs": f"{final['pairs']:,} read"
        + (f"; {scores_line(CacheFacts(**cache))}" if cache else ""),
        "report": evaluation.report,
    }
    if final.get("dashboard"):
        facts["Ray dashboard"] = final["dashboard"]
    return facts | remark_lines(evaluation.remarks)
