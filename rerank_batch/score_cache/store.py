"""The score cache of a root: its segments, and the manifest that says which of them count.

    scores/<scope>/segments/<seconds>-<run>-<nonce>.arrow   written once
    scores/<scope>/manifest.json                            replaced by compare and swap

A segment counts from the swap that lists it. Every change is an edit of the newest manifest, tried
again when another job was faster; an edit finds nothing left to do where its own swap succeeded and
only the answer was lost. A merge lists its result in exchange for the very segments it has read, or
not at all, so that no listed pair gets lost. Objects are deleted by `sweep` alone, some time after
they left the manifest: jobs that began before may still have to fetch them. Knows runs by name.
"""

import logging
import math
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rerank_batch import tally
from rerank_batch.config import RUN_ID
from rerank_batch.errors import ConfigError, IndexMismatch, StorageError
from rerank_batch.score_cache.manifest import CacheManifest, DroppedSegment, ListedSegment
from rerank_batch.score_cache.merging import merge
from rerank_batch.score_cache.writer import today
from rerank_batch.storage import NodeCache, Root, Wanted, sha256_file

logger = logging.getLogger(__name__)

_SMALL = 1 << 17
"""Segments of fewer pairs count as this large: it does not pay to keep them apart."""

_RUNS_REMEMBERED = 1000


@dataclass(frozen=True)
class CacheSnapshot:
    """The segments of a moment, in the order in which they are asked, and what they hold.

    ``seconds_per_pair`` is what the run that was added last took to score one.
    """

    segments: tuple[Wanted, ...]
    pairs: int
    bytes: int
    seconds_per_pair: float = 0.0


class ScoreCache:
    """The scores of one scope (see `keys.scope`) under a root; see the module for the objects.

    Every method raises `StorageError` when the root, the local disk or the manifest is unusable.
    """

    def __init__(self, root: Root, scope: str) -> None:
        self._root = root
        self._folder = f"scores/{scope}/"
        self._segments = f"{self._folder}segments/"
        self._key = f"{self._folder}manifest.json"

    def snapshot(self) -> CacheSnapshot:
        """The segments that count now."""
        manifest, _ = self._manifest()
        listed = manifest.segments
        return CacheSnapshot(
            tuple(each.wanted for each in listed),
            sum(each.pairs for each in listed),
            sum(each.bytes for each in listed),
            manifest.seconds_per_pair,
        )

    def has(self, run_id: str) -> bool:
        """Whether a run's scores were added, as far as the manifest remembers."""
        return run_id in self._manifest()[0].added

    def add(self, run_id: str, pieces: Sequence[Path], seconds_per_pair: float = 0.0) -> None:
        """Add the segments that a run wrote, local files, as one; again changes nothing.

        Where pieces hold the same pair the first of them counts. Afterwards the newest segments are
        merged while they are of similar size, so that their number grows with the logarithm of the
        pairs.

        Raises:
            ConfigError: the id is not one.
        """
        if not RUN_ID.match(run_id):
            raise ConfigError(f"{run_id!r} is not a run id")
        if run_id in self._manifest()[0].added:
            return
        with _workspace() as folder:
            segment = self._publish(run_id, pieces, folder)
        if segment is None:
            return

        def add(manifest: CacheManifest) -> CacheManifest | None:
            if run_id in manifest.added:
                return None
            return replace(
                manifest,
                segments=(*manifest.segments, segment),
                added=(*manifest.added, run_id)[-_RUNS_REMEMBERED:],
                seconds_per_pair=seconds_per_pair,
            )

        self._change(add)
        if similar := _of_similar_size(self._manifest()[0].segments):
            self._rewrite(similar)

    def expire(self, max_age_days: int | None = None, max_bytes: int | None = None) -> None:
        """Drop the scores of more than ``max_age_days`` days ago, and then those of the oldest days
        until the rest fits into ``max_bytes``.

        The manifest says which segments hold such scores; only those are written again. Within a
        segment all pairs count as equally large.
        """
        by_age = 0 if max_age_days is None else today() - max_age_days
        while True:
            segments = self._manifest()[0].segments
            oldest = max(by_age, _oldest_that_fits(segments, max_bytes))
            expired = [segment for segment in segments if min(segment.days) < oldest]
            if not expired:
                return
            for segment in expired:
                if max(segment.days) < oldest:
                    self._replace([segment], None)
                else:
                    self._rewrite([segment], oldest)

    def sweep(self, grace_seconds: float) -> list[str]:
        """Delete segments that have not been listed for so long; their keys.

        What never was listed counts from the time in its name, so the grace must be longer than any
        job that reads the cache, and than any upload to it.
        """
        before = time.time() - grace_seconds
        # Listed before the manifest is read: what is added meanwhile is then listed there.
        present = self._root.sizes(self._segments)
        manifest = self._manifest()[0]
        listed = {each.key for each in manifest.segments}
        since = {each.key: each.at for each in manifest.dropped}
        old = [
            key for key in present if key not in listed and since.get(key, _created(key)) < before
        ]
        self._root.delete(old)
        for upload in self._root.stale_uploads(self._segments, grace_seconds):
            self._root.drop_upload(upload)
        gone = {key for key, at in since.items() if at < before}

        def forget(manifest: CacheManifest) -> CacheManifest | None:
            dropped = tuple(each for each in manifest.dropped if each.key not in gone)
            return None if dropped == manifest.dropped else replace(manifest, dropped=dropped)

        self._change(forget)
        return old

    def _manifest(self) -> tuple[CacheManifest, bytes | None]:
        """The manifest of now, and the bytes it came as."""
        raw = self._root.read(self._key)
        if raw is None:
            return CacheManifest(), None
        try:
            return CacheManifest.from_json(raw, self._segments), raw
        except StorageError as error:
            raise StorageError(
                f"{self._root.path(self._key)} is damaged: {error}. It is a cache: delete "
                f"{self._root.path(self._folder)} as a whole, and no result is lost"
            ) from None

    def _change(self, edit: Callable[[CacheManifest], CacheManifest | None]) -> None:
        """Replace the manifest by an edit of it, until that holds or has nothing left to do."""
        while True:
            manifest, raw = self._manifest()
            edited = edit(manifest)
            if edited is None or self._root.swap(self._key, edited.to_json(), expected=raw):
                return

    def _rewrite(self, parts: Sequence[ListedSegment], oldest_day: int = 0) -> None:
        """Merge neighbours in the manifest, without the scores from before ``oldest_day``."""
        with _workspace() as folder:
            files = [file for part in parts if (file := self._fetch(part, folder))]
            merged = self._publish("merged", files, folder, oldest_day)
        self._replace(parts, merged)

    def _replace(self, parts: Sequence[ListedSegment], merged: ListedSegment | None) -> None:
        """List one segment in the place of others, or nothing where others changed those."""
        keys = {part.key for part in parts}

        def exchange(manifest: CacheManifest) -> CacheManifest | None:
            listed = [each.key for each in manifest.segments]
            if not keys <= set(listed):
                return None
            place = listed.index(parts[0].key)
            kept = [each for each in manifest.segments if each.key not in keys]
            kept[place:place] = [merged] if merged else []
            now = time.time()
            dropped = (*manifest.dropped, *(DroppedSegment(part.key, now) for part in parts))
            return replace(manifest, segments=tuple(kept), dropped=dropped)

        self._change(exchange)

    def _publish(
        self, name: str, files: Sequence[Path], folder: Path, oldest_day: int = 0
    ) -> ListedSegment | None:
        """Merge local segments and upload the result; None where it holds nothing."""
        target = folder / "merged.arrow"
        days = merge(files, target, oldest_day)
        if not days:
            return None
        key = f"{self._segments}{int(time.time())}-{name}-{uuid.uuid4().hex[:12]}.arrow"
        stored = self._root.publish(key, target)
        return ListedSegment(key, stored.bytes, stored.sha256, days)

    def _fetch(self, segment: ListedSegment, folder: Path) -> Path | None:
        """A segment as a local file, its content checked; None where that is lost for good."""
        if self._root.size(segment.key) is not None:
            with suppress(IndexMismatch):
                (file,) = NodeCache(folder, sys.maxsize).fetch(self._root, [segment.wanted])
                # Files of a folder are used where they are: nobody has looked into them yet.
                in_place = self._root.local(segment.key) is not None
                if not in_place or sha256_file(file) == segment.sha256:
                    return file
        where = self._root.path(segment.key)
        logger.warning("%s is missing or damaged: it leaves the score cache", where)
        tally.count("score cache: a missing or damaged segment was given up")
        return None


def _of_similar_size(segments: Sequence[ListedSegment]) -> Sequence[ListedSegment]:
    """The newest segments, from the first on that is no larger than all after it together."""
    newer = 0.0
    first = len(segments)
    for number in range(len(segments) - 1, -1, -1):
        size = max(segments[number].pairs, _SMALL)
        if size <= newer:
            first = number
        newer += size
    return segments[first:]


def _oldest_that_fits(segments: Sequence[ListedSegment], max_bytes: int | None) -> int:
    """The oldest day that can stay where no more than ``max_bytes`` may; 0 for all."""
    left = sum(segment.bytes for segment in segments)
    if max_bytes is None or left <= max_bytes:
        return 0
    by_day: Counter[int] = Counter()
    for segment in segments:
        for day, pairs in segment.days.items():
            by_day[day] += segment.bytes * pairs // segment.pairs
    for day in sorted(by_day):
        left -= by_day[day]
        if left <= max_bytes:
            break
    if day == max(by_day):
        logger.warning("the scores of day %d alone need more than %d bytes", day, max_bytes)
    return day + 1


def _created(key: str) -> float:
    """When a segment that nobody lists was named; what is none of ours is never old."""
    seconds = key.rpartition("/")[2].partition("-")[0]
    return float(seconds) if seconds.isdecimal() else math.inf


@contextmanager
def _workspace() -> Iterator[Path]:
    """A local folder to merge in."""
    try:
        with tempfile.TemporaryDirectory(prefix="scores-") as folder:
            yield Path(folder)
    except OSError as error:
        raise StorageError(f"merging scores in {tempfile.gettempdir()} failed: {error}") from None
