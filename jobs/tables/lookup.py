"""TODO."""

from typing import Any

from rich.table import Table

from rerank_batch.reporter import in_one_line

from ..console import Console


def show(found: dict[str, Any], console: Console) -> None:
    """Print the documents, the best first."""
    key = in_one_line(found["key"])
    table = Table(title=f"{key} ({found['run_id']})", title_justify="left")
    for name in ("rank", "document", "score"):
        table.add_column(name, justify="left" if name == "document" else "right")
    hits = zip(found["doc_ids"], found["scores"], strict=True)
    for rank, (name, score) in enumerate(hits, start=1):
        table.add_row(str(rank), in_one_line(name), f"{score:.4f}")
    console.result(found, table if found["doc_ids"] else f"{key}: no documents")
