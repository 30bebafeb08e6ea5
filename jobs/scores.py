"""The score cache of a job: which cached scores a run uses, and how its new ones get in.

A run uses the scores that were there when it began, to its end and whoever resumes it. No run needs
them: where the cache cannot be read or written the job goes on without, and says so.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.console import Console
from jobs.inputs import Inputs, node_cache
from rerank_batch.cached_scorer import KNOWN, SCORED, SECONDS, CacheUse
from rerank_batch.config import Config
from rerank_batch.errors import RerankBatchError, StorageError
from rerank_batch.run import Commit, Run, total
from rerank_batch.score_cache import ScoreCache, Snapshot, scope
from rerank_batch.scoring.modes import Mode
from rerank_batch.storage import NodeCache, Wanted

_GRACE_SECONDS = 14 * 24 * 3600
"""Longer than any job: what a merge has replaced may be in use by one that began before."""


@dataclass(frozen=True)
class RunScores:
    """The score cache as one run uses it, and keeps it within its limits."""

    run: Run
    cache: ScoreCache
    snapshot: Snapshot
    config: Config

    @property
    def prefix(self) -> str:
        """Of the keys of the run's objects."""
        return f"runs/{self.run.run_id}/"

    def use(self) -> CacheUse:
        """What its workers need."""
        there = node_cache(self.config.storage)
        return CacheUse(self.run.root, there, self.snapshot.segments, self.prefix)

    def facts(self, commits: Sequence[Commit], console: Console, keep: bool) -> dict[str, Any]:
        """What the summary says of the cache, to which the run's new scores are added first."""
        sums = total(commits, "sums")
        known, scored = (int(sums.get(name, 0)) for name in (KNOWN, SCORED))
        rate = sums.get(SECONDS, 0.0) / scored if scored else self.snapshot.seconds_per_pair
        facts: dict[str, Any] = {
            "known_pairs": known,
            "scored_pairs": scored,
            "hit_rate": round(known / max(known + scored, 1), 4),
            "saved_seconds": round(known * rate, 1),
        }
        try:
            if keep:
                self._add(commits, rate)
            held = self.cache.snapshot()
        except RerankBatchError as error:
            console.note(f"new scores are not cached: {error}")
            return facts
        return {**facts, "cached_pairs": held.pairs, "cached_bytes": held.bytes}

    def _add(self, commits: Sequence[Commit], seconds_per_pair: float) -> None:
        files = [file for commit in commits for file in commit.scores]
        wanted = [Wanted(f"{self.prefix}{file.key}", file.bytes, file.sha256) for file in files]
        if not self.cache.has(self.run.run_id):
            with tempfile.TemporaryDirectory(prefix="scores-") as folder:
                there = NodeCache(Path(folder), sum(each.bytes for each in wanted) + 1)
                pieces = there.fetch(self.run.root, wanted)
                self.cache.add(self.run.run_id, pieces, seconds_per_pair)
        self.run.root.delete([each.key for each in wanted])
        limits = self.config.cache
        self.cache.expire(limits.max_age, limits.max_bytes)
        self.cache.sweep(_GRACE_SECONDS)


def run_scores(
    run: Run, config: Config, inputs: Inputs, mode: Mode | None, console: Console
) -> RunScores | None:
    """The score cache for a run; None without a reranker, or where it is switched off."""
    reranker = config.reranker
    if reranker is None or inputs.reranker is None or mode is None or not config.cache.enabled:
        return None
    settings = {
        "family": inputs.reranker.family,
        "model": inputs.made_of["reranker"],
        "mode": str(mode),
        "max_length": reranker.max_length,
        "truncation": reranker.truncation,
    }
    cache = ScoreCache(run.root, scope(settings))
    try:
        decided = run.decided("cache", _KEYS)
        if decided is None:
            run.decide("cache", asdict(cache.snapshot()))
            decided = run.decided("cache", _KEYS) or {}
        return RunScores(run, cache, _snapshot(decided), config)
    except StorageError as error:
        console.note(f"going on without cached scores: {error}")
        return None


def scores_line(facts: Mapping[str, Any]) -> str:
    """A line of the summary."""
    return (
        f"{facts['known_pairs']:,} of {facts['known_pairs'] + facts['scored_pairs']:,} pairs known "
        f"({facts['hit_rate']:.1%}), about {facts['saved_seconds']:,} s saved"
        + (
            f"; {facts['cached_pairs']:,} scores kept, {facts['cached_bytes'] / 1e6:,.1f} MB"
            if "cached_pairs" in facts
            else ""
        )
    )


_KEYS = ("segments", "pairs", "bytes", "seconds_per_pair")


def _snapshot(value: Mapping[str, Any]) -> Snapshot:
    segments = tuple(Wanted(**each) for each in value["segments"])
    return Snapshot(segments, value["pairs"], value["bytes"], value["seconds_per_pair"])
