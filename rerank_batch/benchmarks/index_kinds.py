"""Our search over shards beside plain FAISS over one index, and what approximate kinds find.

Vectors are seeded: unit vectors around 256 centres, since approximate kinds live on clusters and
evenly spread vectors have none.
"""

import statistics
import time
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import faiss as _typed_faiss
import numpy as np
from numpy.typing import NDArray

from rerank_batch.retrieval.approximate import SearchOptions
from rerank_batch.retrieval.shards import Shard, build_shard, open_shard, search_all, set_threads

faiss: Any = _typed_faiss  # its stubs lag behind its library

_CENTRES = 256
_SPREAD = 0.6


@dataclass(frozen=True)
class Searched:
    """Queries per second of one system over all rounds; ``recall`` of the exact best k."""

    system: str
    median: float
    low: float
    high: float
    recall: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def make_vectors(count: int, dimension: int, seed: int) -> NDArray[np.float32]:
    """Unit vectors float32 [count, dimension]; the centres are the same for every seed."""
    centres = np.random.default_rng(0).normal(size=(_CENTRES, dimension)).astype(np.float32)
    rng = np.random.default_rng(seed + 1)
    noise = rng.normal(size=(count, dimension)).astype(np.float32)
    vectors = centres[rng.integers(0, _CENTRES, count)] + _SPREAD * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def measure(
    folder: Path,
    documents: NDArray[np.float32],
    queries: NDArray[np.float32],
    kinds: list[str],
    shards: int,
    k: int,
    rounds: int,
    threads: int,
) -> list[Searched]:
    """Every system in turn, ``rounds`` times after one that is not counted; plain FAISS first."""
    set_threads(threads)
    plain = faiss.IndexFlatIP(documents.shape[1])
    plain.add(documents)
    bounds = np.linspace(0, len(documents), shards + 1).astype(int)
    systems: dict[str, Any] = {"plain FAISS, one Flat index": lambda: plain.search(queries, k)[1]}
    for kind in kinds:
        opened, slow = [], []
        for start, stop in pairwise(bounds.tolist()):
            file = folder / f"{kind}-{start}.faiss"
            build_shard(documents[start:stop], kind, file)
            opened.append(open_shard(file, start))
            slow.append(open_shard(file, start, SearchOptions(by_lists=False)))
        name = f"ours, {kind} in {shards} shards"
        if kind.startswith("IVF"):
            systems[f"{name}, query by query"] = partial(_documents, slow, queries, k)
        systems[name] = partial(_documents, opened, queries, k)
    rates: dict[str, list[float]] = {name: [] for name in systems}
    found: dict[str, NDArray[np.int64]] = {}
    for number in range(rounds + 1):
        for name, search in systems.items():
            began = time.perf_counter()
            found[name] = search()
            if number:
                rates[name].append(len(queries) / (time.perf_counter() - began))
    exact = next(iter(found.values()))
    return [
        Searched(
            name, statistics.median(values), min(values), max(values), _recall(found[name], exact)
        )
        for name, values in rates.items()
    ]


def _documents(shards: list[Shard], queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    return search_all(shards, queries, k).documents


def _recall(found: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    pairs = zip(found.tolist(), exact.tolist(), strict=True)
    return statistics.mean(len({*one} & {*other}) / len(other) for one, other in pairs)
