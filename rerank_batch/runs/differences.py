"""What changed since the last run of a job: queries that are new or gone, lists that are others."""

import polars as pl
import pyarrow.compute as pc

from rerank_batch.errors import RerankBatchError
from rerank_batch.reporter import Reporter
from rerank_batch.runs import Run
from rerank_batch.runs.lists import digests, lists_by_query
from rerank_batch.runs.summary import RunChanges


def changes_since(run_id: str | None, run: Run, reporter: Reporter) -> RunChanges | None:
    """Compare a run that is whole with another one; None where there is no other.

    A query is known by its text. Its list has changed when another document is in it, or in another
    place; scores are not compared.
    """
    if run_id is None or run_id == run.run_id:
        return None
    try:
        before = Run.open(run.root, run_id)
        old, new = _lists(before), _lists(run)
        documents = before.finished().get("documents")
    except RerankBatchError as error:
        reporter.note(f"not compared with the last run: {error}")
        return None
    both = new.join(old, on="query", suffix="_before")
    changed = both.filter(pl.col("list") != pl.col("list_before")).height
    return RunChanges(
        since=before.run_id,
        queries_new=new.height - both.height,
        queries_gone=old.height - both.height,
        lists_changed=changed,
        lists_same=both.height - changed,
        documents_before=documents,
    )


def changes_line(changes: RunChanges) -> str:
    """A line of the summary."""
    return (
        f"{changes.queries_new:,} queries new, {changes.queries_gone:,} gone; of the others "
        f"{changes.lists_changed:,} lists changed, {changes.lists_same:,} did not "
        f"(since {changes.since})"
    )


def _lists(run: Run) -> pl.DataFrame:
    """``query`` and ``list``, digests of 16 bytes each, of every query of a run."""
    empty = pl.DataFrame(schema={"query": pl.Binary, "list": pl.Binary})
    frames = [
        pl.DataFrame({"query": queries, "list": digests(pc.binary_join(ids, "\n").to_pylist())})
        for queries, ids in lists_by_query(run)
    ]
    return pl.concat([empty, *frames]).unique("query", keep="first")
