"""How fast pairs are looked up, and what that takes of memory: for the benchmark.

The pairs of a file are a function of the seed and their number, so that a file of any size is made
in bounded memory, and looked up without having been read before.
"""

import time
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from numpy.typing import NDArray

from rerank_batch.score_cache.keys import Keys
from rerank_batch.score_cache.segment import ScoreSegment
from rerank_batch.score_cache.writer import LIMIT, PAIR, Pairs, write_segment

DEPTH = 50
"""Documents of every query."""

_Numbers = NDArray[np.int64]


def make_segment(file: Path, pairs: int, seed: int = 0, day: int = 20_000) -> None:
    """Write a segment of ``pairs // DEPTH`` queries with `DEPTH` documents each."""
    queries = pairs // DEPTH
    step = max(1, LIMIT // DEPTH)

    def rows_of(numbers: _Numbers) -> Pairs:
        rows = np.empty((len(numbers), DEPTH), PAIR)
        rows["query_hi"], rows["query_lo"] = _query_keys(numbers, queries, seed).T[:, :, None]
        keys = _document_keys(numbers[:, None] * DEPTH + np.arange(DEPTH), seed)
        order = np.argsort(keys[:, :, 0], axis=1)
        keys = np.take_along_axis(keys, order[:, :, None], axis=1)
        rows["document_hi"], rows["document_lo"] = keys[:, :, 0], keys[:, :, 1]
        rows["score"], rows["truncated"], rows["day"] = _score(keys), 0, day
        return rows.ravel()

    starts = range(0, queries, step)
    write_segment(file, (rows_of(np.arange(n, min(n + step, queries))) for n in starts))


def thin(file: Path, target: Path, missing: float, seed: int = 0) -> None:
    """Write a segment again without a share of its pairs, drawn from all queries alike."""
    rng = np.random.default_rng(seed)
    segment = ScoreSegment(file)
    parts = (segment.read(n, 0, segment.rows(n)) for n in range(segment.batches))
    write_segment(target, (pairs[rng.random(len(pairs)) >= missing] for pairs in parts))


def measure_lookups(
    file: Path, pairs: int, hits: float, windows: int = 200, window: int = 256, seed: int = 0
) -> dict[str, float]:
    """Look up windows of ``window`` queries with `DEPTH` documents each, in this thread.

    ``file`` is what `make_segment` made with the same numbers; a share of ``hits`` of the queries
    is in it, spread over it by chance. Memory is in bytes; what is mapped (``mapped_bytes``) is
    shared with every process that reads the file, and given back when memory is short.
    """
    queries = pairs // DEPTH
    random = np.random.default_rng(seed)
    process = psutil.Process()
    before = process.memory_info()
    began = time.perf_counter()
    segment = ScoreSegment(file)
    opened = time.perf_counter() - began
    query_of = np.repeat(np.arange(window), DEPTH)
    rates = []
    for _ in range(windows):
        numbers = random.integers(0, queries, window)
        numbers[random.random(window) >= hits] += queries  # these nobody has scored
        query_keys = _query_keys(numbers, queries, seed)
        documents = _document_keys(numbers[query_of] * DEPTH + np.tile(range(DEPTH), window), seed)
        began = time.perf_counter()
        answer = segment.find(query_keys, query_of, documents)
        rates.append(len(query_of) / (time.perf_counter() - began))
        right = np.where(answer.found, answer.score == _score(documents), True)
        if not np.array_equal(answer.found, (numbers < queries)[query_of]) or not right.all():
            raise AssertionError("the look-up is wrong")
    after = process.memory_info()
    return {
        "pairs_per_second": median(rates),
        "slowest": min(rates),
        "fastest": max(rates),
        "open_seconds": opened,
        "file_bytes": file.stat().st_size,
        "bytes_per_pair": file.stat().st_size / segment.pairs,
        "own_bytes": (after.rss - after.shared) - (before.rss - before.shared),
        "mapped_bytes": after.shared - before.shared,
    }


def _query_keys(numbers: _Numbers, queries: int, seed: int) -> Keys:
    """Keys in the order of the numbers below ``queries``; the others lie between those."""
    slot = np.uint64(2**64 // queries)
    hi = (numbers % queries).astype(np.uint64) * slot + _mix(numbers, seed) % slot
    return np.stack([hi, _mix(numbers, seed + 1)], axis=-1)


def _document_keys(numbers: _Numbers, seed: int) -> Keys:
    return np.stack([_mix(numbers, seed + 2), _mix(numbers, seed + 3)], axis=-1)


def _score(documents: Keys) -> NDArray[np.float32]:
    return (documents[..., 0] >> np.uint64(40)).astype(np.float32)


def _mix(numbers: _Numbers, seed: int) -> NDArray[np.uint64]:
    """Random words by number: SplitMix64."""
    z = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed * 0x632BE5AB)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
