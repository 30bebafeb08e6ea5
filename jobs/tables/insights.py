"""What a run shows beside its means: results at smaller depths, and failures."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from rerank_batch.evaluation.failures.study import TOP


def depth_parts(depth: Mapping[str, Any], about: str = "") -> list[Table | str]:
    """The table of depths and its meaning, or why there is none."""
    if "refused" in depth:
        return [f"depth{about}: not known from this run: {depth['refused']}"]
    name, last = depth["headline"], depth["rows"][-1]
    table = Table(title=f"Depth{about}", title_justify="left")
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


def failures_line(failures: Mapping[str, Any], about: str = "") -> str:
    """Whose failures there are."""
    lost, pushed = failures["never_found"], failures["pushed_down"]
    return (
        f"failures{about}: never retrieved {lost['documents']:,} relevant documents of "
        f"{lost['queries']:,} queries ({lost['found_nothing']:,} found none); pushed out of the "
        f"top {TOP} {'' if about else 'by the reranker '}{pushed['documents']:,} of "
        f"{pushed['queries']:,} queries"
    )
