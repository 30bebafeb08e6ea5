"""The table of the command `lookup`."""

from typing import Any

from rich.table import Table

from rerank_batch.reporter import in_one_line

from ..console import Console


def show(row: dict[str, Any], console: Console) -> None:
    """Print the documents, the best first."""
    key = in_one_line(row["key"])
    table = Table(title=f"{key} ({row['run_id']})", title_justify="left")
    for name in ("rank", "document", "score"):
        table.add_column(name, justify="left" if name == "document" else "right")
    hits = zip(row["doc_ids"], row["scores"], strict=True)
    for rank, (name, score) in enumerate(hits, start=1):
        table.add_row(str(rank), in_one_line(name), f"{score:.4f}")
    console.result(row, table if row["doc_ids"] else f"{key}: no documents")
