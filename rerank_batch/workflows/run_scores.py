"""The score cache of a job: which cached scores a run uses, and how its new ones get in.

A run uses the scores that were there when it began, to its end and whoever resumes it. No run needs
them: where the cache cannot be read or written the job goes on without, and says so.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rerank_batch.config import Config
from rerank_batch.config.node_cache import node_cache
from rerank_batch.errors import RerankBatchError, StorageError
from rerank_batch.pipeline.work import Work
from rerank_batch.reporter import Reporter
from rerank_batch.rerankers import is_listwise
from rerank_batch.rerankers.cached import KNOWN, SCORED, SECONDS, CacheUse
from rerank_batch.rerankers.configured import ScorerInput
from rerank_batch.runs import Commit, Run, total
from rerank_batch.runs.coverage import check_coverage
from rerank_batch.runs.decisions import keep_decision, read_decision
from rerank_batch.runs.summary import CacheFacts
from rerank_batch.score_cache import CacheSnapshot, ScoreCache, scope
from rerank_batch.scoring.modes import Choice, Mode
from rerank_batch.storage import NodeCache, Wanted

_GRACE_SECONDS = 14 * 24 * 3600
"""Longer than any job: what a merge has replaced may be in use by one that began before."""


@dataclass(frozen=True)
class RunScores:
    """The score cache as one model of a run uses it, and keeps it within its limits."""

    run: Run
    scorer: ScorerInput
    cache: ScoreCache
    snapshot: CacheSnapshot
    config: Config

    @property
    def prefix(self) -> str:
        """Of the keys of the run's objects."""
        return f"runs/{self.run.run_id}/"

    def use(self) -> CacheUse:
        """What its workers need."""
        there = node_cache(self.config.storage)
        return CacheUse(
            self.run.root,
            there,
            self.snapshot.segments,
            self.prefix,
            self.scorer.number,
            is_listwise(self.scorer.model, self.scorer.config.method),
        )

    def facts(self, sums: Mapping[str, float]) -> CacheFacts:
        """What the cache gave the run, from the sums of its commits."""
        known, scored, rate = self._counts(sums)
        return CacheFacts(
            known_pairs=int(known),
            scored_pairs=int(scored),
            hit_rate=round(known / max(known + scored, 1), 4),
            saved_seconds=round(known * rate, 1),
        )

    def keep(self, commits: Sequence[Commit]) -> None:
        """Add the run's new scores to the cache, delete the run's copies, hold the limits.

        Raises:
            RerankBatchError: the store fails.
        """
        self._add(commits, self._counts(total(commits, "sums"))[2])

    def _counts(self, sums: Mapping[str, float]) -> tuple[float, float, float]:
        """Pairs that were known, pairs that were scored, seconds for each of these."""
        known, scored, seconds = (
            sums.get(f"{name}.{self.scorer.number}", 0.0) for name in (KNOWN, SCORED, SECONDS)
        )
        return known, scored, seconds / scored if scored else self.snapshot.seconds_per_pair

    def _add(self, commits: Sequence[Commit], seconds_per_pair: float) -> None:
        mine = f"scores/{self.scorer.number}/"
        files = [f for commit in commits for f in commit.scores if f.key.startswith(mine)]
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
    run: Run, config: Config, work: Work, modes: Sequence[Choice | None], reporter: Reporter
) -> list[RunScores | None]:
    """The score caches for a run, model by model; None where there is none to use."""
    return [
        _run_scores(run, config, scorer, choice.mode if choice else None, reporter)
        for scorer, choice in zip(work.scorers, modes, strict=True)
    ]


def _run_scores(
    run: Run, config: Config, scorer: ScorerInput, mode: Mode | None, reporter: Reporter
) -> RunScores | None:
    if not config.cache.enabled or (mode is None and not scorer.is_service):
        return None
    left_out = {"model", "depth", "service", "precision", "allow", "runtime", "batch_tokens"}
    settings = {
        **scorer.config.model_dump(mode="json", exclude=left_out),
        "family": scorer.model.family,
        "model": scorer.made_of,
        "mode": str(mode),
        # They are in the fingerprint. That they are read is new: older scores were without them.
        **({"prompts": dict(scorer.prompts)} if scorer.prompts else {}),
    }
    cache = ScoreCache(run.root, scope(settings))
    try:
        decided = read_decision(run, "cache", scorer.number, _KEYS)
        if decided is None:
            keep_decision(run, "cache", scorer.number, asdict(cache.snapshot()))
            decided = read_decision(run, "cache", scorer.number, _KEYS) or {}
        return RunScores(run, scorer, cache, _snapshot(decided), config)
    except StorageError as error:
        reporter.note(f"going on without cached scores: {error}")
        return None


def keep_scores(
    run: Run, caches: Sequence[RunScores], reporter: Reporter, add: bool = True
) -> list[CacheSnapshot | None]:
    """Keep the new scores of a run whose queries are all covered; what each cache holds since.

    None where a cache cannot be written: no run needs it, so that is only noted. Without ``add``
    nothing is kept.

    Raises:
        RunConflict: a query is missing, or there twice.
    """
    commits = run.commits()
    bounds = [(commit.name.start, commit.name.stop) for commit in commits]
    check_coverage(bounds, run.spec.planned, run.run_id)
    held: list[CacheSnapshot | None] = []
    for cache in caches:
        try:
            if add:
                cache.keep(commits)
            held.append(cache.cache.snapshot())
        except RerankBatchError as error:
            reporter.note(f"new scores are not cached: {error}")
            held.append(None)
    return held


def cache_facts(
    run: Run, caches: Sequence[RunScores], held: Sequence[CacheSnapshot | None]
) -> CacheFacts | None:
    """What all caches of a cascade gave a run, and hold now; None where there are none."""
    if not caches:
        return None
    sums = total(run.commits(), "sums")
    each = [cache.facts(sums) for cache in caches]
    known, scored = sum(f.known_pairs for f in each), sum(f.scored_pairs for f in each)
    there = [snapshot for snapshot in held if snapshot is not None]
    return CacheFacts(
        known_pairs=known,
        scored_pairs=scored,
        hit_rate=round(known / max(known + scored, 1), 4),
        saved_seconds=round(sum(f.saved_seconds for f in each), 1),
        cached_pairs=sum(snapshot.pairs for snapshot in there) if there else None,
        cached_bytes=sum(snapshot.bytes for snapshot in there) if there else None,
    )


def scores_line(facts: CacheFacts) -> str:
    """A line of the summary."""
    asked = facts.known_pairs + facts.scored_pairs
    line = (
        f"{facts.known_pairs:,} of {asked:,} pairs known ({facts.hit_rate:.1%}), "
        f"about {facts.saved_seconds:,} s saved"
    )
    if facts.cached_pairs is None or facts.cached_bytes is None:
        return line
    return f"{line}; {facts.cached_pairs:,} scores kept, {facts.cached_bytes / 1e6:,.1f} MB"


_KEYS = ("segments", "pairs", "bytes", "seconds_per_pair")


def _snapshot(value: Mapping[str, Any]) -> CacheSnapshot:
    segments = tuple(Wanted(**each) for each in value["segments"])
    return CacheSnapshot(segments, value["pairs"], value["bytes"], value["seconds_per_pair"])
