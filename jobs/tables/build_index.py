"""The table of ``build-index``."""

from rerank_batch.workflows.index_summary import IndexSummary

from ..console import Console
from .facts import facts_table, files_line, remark_lines


def show(summary: IndexSummary, console: Console) -> None:
    """Print the summary."""
    result = summary.to_json()
    kind = summary.kind + (" and BM25" if summary.bm25 else "")
    facts: dict[str, object] = {
        "index": summary.index,
        "files": files_line(summary.files_read),
        "documents": f"{summary.documents:,} in {summary.shards} shards ({kind})",
        "dropped": summary.dropped or "none",
    }
    if changes := summary.changes:
        facts["changes"] = ", ".join(f"{count:,} {what}" for what, count in changes.items())
        facts["shards"] = f"{summary.shards_reused} reused, {summary.shards_written} written"
    seconds = summary.seconds
    if summary.encoded is not None:
        encoding = seconds.get("encode")
        rate = f", {summary.encoded / encoding:.0f} a second" if encoding else ""
        facts["encoded"] = f"{summary.encoded:,} documents{rate}"
    if summary.recall_at_100 is not None:
        facts["recall@100"] = f"{summary.recall_at_100:.4f} against exact search"
    if "total" in seconds:
        facts["time"] = f"{seconds['total']:.0f} s, peak memory {summary.peak_memory_gb} GiB"
    facts |= remark_lines(summary.remarks)
    title = "Dry run: nothing was written" if summary.dry_run else "Index"
    console.result(result, facts_table(title, facts))
