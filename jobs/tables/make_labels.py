"""The tables of the command `make-labels` and of its dry run."""

from typing import Any

from rich.table import Table

from rerank_batch.labels.rows import (
    SPLITS,
)
from rerank_batch.remarks import counts_in_words, read_remarks
from rerank_batch.workflows.judging import judge_lines, plan_line

from ..console import Console
from .facts import facts_table, remark_lines


def show(card: dict[str, Any], console: Console) -> None:
    """Print rows by split, what was kept out by which rule, and where the dataset is."""
    table = Table(title=f"Labels of {card['source']['run']}", title_justify="left", pad_edge=False)
    table.add_column("split")
    for column in ("queries", "positives", "negatives"):
        table.add_column(column, justify="right")
    for split in SPLITS:
        counts = [card["rows"].get(f"{split} {role}", 0) for role in ("positive", "negative")]
        table.add_row(split, *(f"{n:,}" for n in (card["split_queries"][split], *counts)))
    removed = {rule: count for rule, count in card["removed"].items() if count}
    rows = sum(card["rows"].values())
    facts: dict[str, object] = {
        "run": card["run"],
        "truth": card["source"]["truth"],
        **(judge_lines(card["source"]["judge"]) if card["source"].get("judge") else {}),
        "looked at": f"{card['looked_at']:,} documents for negatives",
        "kept out": counts_in_words(removed),
        "rejects": counts_in_words(card["rejects"]),
        "leak check": "passed",
        "rows": f"{rows:,} ({card['rows_per_second']:,} rows/s)",
        "peak memory": f"{card['peak_memory_gb']} GiB, all processes",
        "dataset": card["out"],
    }
    if card.get("dashboard"):
        facts["Ray dashboard"] = card["dashboard"]
    facts |= remark_lines(read_remarks(card["remarks"]))
    console.result(card, table, facts_table("Labels", facts))


def show_plan(plan: dict[str, Any], console: Console) -> None:
    """Print what `dry_run` found."""
    facts: dict[str, object] = {"run": plan["run"], "truth": plan["truth"], "dataset": plan["out"]}
    if "judge" in plan:
        facts["judge"] = plan_line(plan["judge"])
        facts["splits"] = "known when all is judged"
    else:
        splits = ", ".join(f"{split} {count:,}" for split, count in plan["split_queries"].items())
        facts["queries"] = (
            f"{plan['queries']:,} in {plan['groups']:,} groups ({splits}); "
            f"{plan['queries_unknown_to_the_truth']:,} unknown to the truth"
        )
    facts |= remark_lines(read_remarks(plan["remarks"]))
    console.result(plan, facts_table("Labels, dry run: nothing was written", facts))
