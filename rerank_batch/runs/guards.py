"""What keeps a run that is complete from its readers: limits it must hold before it is published.

The limits are those that the run began with, and the verdict is kept with the run, once: whoever
resumes or repeats it comes to the same. `runs publish --force` is the way past them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from rerank_batch.config import GuardsConfig
from rerank_batch.data.reject_limit import are_too_many
from rerank_batch.errors import GuardsFailed, RunConflict
from rerank_batch.runs import Run, is_latest, publish_run, read_latest
from rerank_batch.runs.decisions import Guard, Verdict, is_held_back, keep_verdict, read_verdict
from rerank_batch.runs.lists import lists_by_query
from rerank_batch.runs.summary import Publication

TOP = 10


@dataclass(frozen=True)
class Overlap:
    """How much two runs have in common: the mean of `queries` queries, None without any."""

    mean: float | None
    queries: int


def decide(run: Run) -> Verdict | None:
    """What the guards of a complete run say; None where it has none. Looked at once, then kept.

    Raises:
        StorageError: the run, or the last published one, cannot be read now.
    """
    if (known := read_verdict(run)) is not None:
        return known
    guards = GuardsConfig.model_validate(run.spec.config.get("guards") or {})
    if guards == GuardsConfig() or is_latest(run):
        return None
    latest = read_latest(run.root, run.spec.job)
    before = latest["run_id"] if latest else None
    return keep_verdict(run, list(_check(run, guards, before)), before)


def publish_unless_held_back(run: Run) -> Publication:
    """Publish a complete run if its guards let it; what came of that."""
    verdict = decide(run)
    held = is_held_back(run)
    if not held:
        publish_run(run)
    latest = read_latest(run.root, run.spec.job)
    guards = verdict.guards if verdict else ()
    return Publication(not held, latest["run_id"] if latest else None, guards)


def refuse_if_held_back(root_uri: str, run_id: str, publication: Publication | None) -> None:
    """End the command of a run that a guard kept back.

    Raises:
        GuardsFailed: which guards, what they found, and how to publish it all the same.
    """
    if publication is not None and not publication.published:
        raise GuardsFailed(held_back(root_uri, run_id, publication))


def held_back(root_uri: str, run_id: str, publication: Publication) -> str:
    """The message of a run that is not published."""
    failed = "\n".join(
        f"  - guards.{guard.name}: {guard.words}"
        for guard in publication.guards
        if not guard.passed
    )
    latest = publication.latest
    still = f"the latest is still {latest}" if latest else "there is no latest"
    return (
        f"run {run_id} is complete and not published; {still}:\n{failed}\n"
        "If it is good nonetheless, publish it with: "
        f"rerank-batch runs publish {root_uri} {run_id} --force"
    )


def guards_line(guards: Sequence[Guard]) -> str:
    """A line of the summary for each guard."""
    return "\n".join(
        f"{'holds' if guard.passed else 'FAILS'}: {guard.name}, {guard.words}" for guard in guards
    )


def overlap_at_10(run: Run, other: Run) -> Overlap:
    """Of a query's first ten documents the share that both runs have; the mean over their queries.

    A query is known by its text. Where both lists are shorter than ten, the share is of the longer
    one. Holds about 100 bytes for every query of ``other``, and one file of ``run``.
    """
    empty = pl.DataFrame(schema={"query": pl.Binary, "documents": pl.List(pl.UInt64)})
    old = pl.concat([empty, *_tops(other)]).unique("query", keep="first")
    total, queries = 0.0, 0
    for new in _tops(run):
        both = new.join(old, on="query", suffix="_before")
        shared = both["documents"].list.set_intersection(both["documents_before"]).list.len()
        longer = np.maximum(
            both["documents"].list.len().to_numpy(), both["documents_before"].list.len().to_numpy()
        )
        # Nothing found then and nothing found now is the same list.
        shares = np.where(longer == 0, 1.0, shared.to_numpy() / np.maximum(longer, 1))
        total += float(shares.sum())
        queries += both.height
    return Overlap(total / queries if queries else None, queries)


def _check(run: Run, guards: GuardsConfig, before: str | None) -> Iterator[Guard]:
    final = run.finished()
    if (most := guards.max_rejects) is not None:
        rejected, rows = sum(final["rejects"].values()), final["log_rows"]
        words = f"{rejected:,} of {rows:,} log rows are rejected, at most {most} may be"
        yield Guard("max_rejects", most, rejected, not are_too_many(rejected, rows, most), words)
    queries = final["queries"]
    if (fewest := guards.min_queries) is not None:
        words = f"{queries:,} queries have results, at least {fewest:,} must"
        yield Guard("min_queries", fewest, queries, queries >= fewest, words)
    if (most_queries := guards.max_queries) is not None:
        words = f"{queries:,} queries have results, at most {most_queries:,} may"
        yield Guard("max_queries", most_queries, queries, queries <= most_queries, words)
    for name, floor in guards.measure.items():
        yield _floor(final, name, floor)
    if guards.min_overlap_at_10 is not None:
        yield _same_as_before(run, guards.min_overlap_at_10, before)


def _floor(final: Mapping[str, Any], name: str, floor: float) -> Guard:
    if not final["metrics"]:
        words = f"no query of the run is judged, so it is not known to be {floor} or more"
        return Guard(f"measure.{name}", floor, None, False, words)
    value = final["metrics"]["reranked"][name]
    words = f"{value:.4f} over {final['judged']:,} judged queries, at least {floor} is asked for"
    return Guard(f"measure.{name}", floor, value, value >= floor, words)


def _same_as_before(run: Run, floor: float, before: str | None) -> Guard:
    name = "min_overlap_at_10"
    if before is None:
        return Guard(name, floor, None, True, "no run was published before: nothing to compare")
    try:
        overlap = overlap_at_10(run, Run.open(run.root, before))
    except RunConflict as error:
        return Guard(name, floor, None, False, f"the last run cannot be compared with: {error}")
    if overlap.mean is None:
        return Guard(name, floor, None, False, f"no query in common with {before}")
    words = (
        f"{overlap.mean:.4f} with {before} over {overlap.queries:,} queries of both, "
        f"at least {floor} is asked for"
    )
    return Guard(name, floor, overlap.mean, overlap.mean >= floor, words)


def _tops(run: Run) -> Iterator[pl.DataFrame]:
    """``query``, a digest of 16 bytes, and the hashes of its first documents, file by file."""
    for queries, ids in lists_by_query(run):
        first = pl.Series(pl.from_arrow(ids)).list.head(TOP)
        hashes = first.list.eval(pl.element().hash(seed=0))
        yield pl.DataFrame({"query": queries, "documents": hashes})
