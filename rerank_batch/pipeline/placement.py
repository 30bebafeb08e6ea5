"""How the shards of an index are divided into groups, by what a node of the cluster may hold.

Decided anew whenever a run begins or goes on: it changes where the work is done and no result.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rerank_batch import schema
from rerank_batch.config import ComputeConfig, Source
from rerank_batch.errors import ConfigError
from rerank_batch.index.manifest import Manifest
from rerank_batch.index.open import Index
from rerank_batch.pipeline.pools import Pools, of_group, plan_pools
from rerank_batch.pipeline.resources import Cluster
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.retrieval.shard_groups import Group, groups_per_node, plan_groups
from rerank_batch.retrieval.sources import SourceUse
from rerank_batch.retrieval.stages import SearchGroup
from rerank_batch.storage import NodeCache

GB = 1e9

_SHARE = 0.5
"""Of the smallest node's memory, for the index; the rest is for models and what they compute."""

_VISITED = {"Flat": 1.0, "IVF": 1 / 8}
"""What share of its vectors a search compares, by the kind of index; of others next to none."""

_LONG = 50_000_000
"""Numbers compared for a query from which on a search is long: some 10 ms of a core."""


@dataclass(frozen=True)
class Search:
    """What one search of a job opens of each shard: what these sources read."""

    index: Index
    sources: tuple[Source, ...]

    def sizes(self) -> list[int]:
        """Bytes of the shards, in order, each with the BM25 that goes with it."""
        manifest = self.index.manifest
        return [self._size(manifest.part(n, n + 1)) for n in range(len(manifest.shards))]

    def texts(self) -> int:
        """Bytes of all texts, and after an update of the numbering: every node has them."""
        return sum(file.bytes for file in self.index.manifest.files_of_all_parts())

    def is_downloaded(self) -> bool:
        """Whether nodes keep copies of its files."""
        return self.index.root.local(self.index.manifest.shards[0].texts.key) is None

    def is_long(self) -> bool:
        """Whether a query's search may take a core as long as a fast reranker does."""
        manifest = self.index.manifest
        numbers = manifest.bounds[-1][1] * manifest.dimension * _VISITED.get(manifest.kind, 0)
        return "dense" in self.sources and numbers >= _LONG

    def _size(self, part: Manifest) -> int:
        dense = sum(shard.vectors.bytes for shard in part.shards)
        words = sum(each.postings.bytes for each in part.word_shards())
        return dense * ("dense" in self.sources) + words * ("bm25" in self.sources)


Groups = Mapping[str, tuple[Group, ...]]
"""The groups of each search of a job, by the name of its stage."""


def with_retrievers(
    compute: ComputeConfig, searches: Mapping[str, Search], cpus: float
) -> ComputeConfig:
    """With so many retrievers as long searches need: one for every CPU, where it is left to us.

    They reserve nearly nothing and wait while scoring is the slower one; where it is not, a few of
    them would leave the other cores without work.
    """
    if compute.retrievers != "auto" or not any(each.is_long() for each in searches.values()):
        return compute
    return compute.model_copy(update={"retrievers": max(1, int(cpus))})


def divide(
    compute: ComputeConfig,
    searches: Mapping[str, Search],
    resources: Cluster,
    room: Callable[[NodeCache], int],
) -> tuple[Groups, list[str]]:
    """The groups of every search, and what its user should know of them.

    ``room`` is how many bytes a cache may hold on each of the nodes.

    Raises:
        ConfigError: a shard alone is more than a node may hold, or there are too few nodes; the
            message says what to do.
    """
    groups, notes = {}, []
    for name, search in searches.items():
        groups[name], note = _divide(compute, search, resources, room)
        notes += [f"{name}: {note}"] if note else []
    return groups, notes


def group_name(search: str, number: int, groups: int) -> str:
    """What the stage of a group is called, counted from 1."""
    return search if groups == 1 else f"{search}-{number}of{groups}"


def group_stages(
    search: str,
    index: Index,
    sources: Sequence[SourceUse],
    groups: Sequence[Group],
    pools: Pools,
) -> list[StageSpec]:
    """The stages of all groups but the last, whose stage does what comes after the search too."""
    reading = tuple(use for use in sources if use.reads_shards)
    return [
        StageSpec(
            group_name(search, number, len(groups)),
            SearchGroup,
            {
                "index": index.part(group.start, group.stop),
                "sources": reading,
                "goes_on": number > 1,
            },
            of_group(pools.retrievers, len(groups)),
            schema.SEARCHED,
            alone=True,
        )
        for number, group in enumerate(groups[:-1], start=1)
    ]


def in_gb(groups: Groups) -> dict[str, list[float]]:
    """GB of each group of each search; without those that open no shards."""
    return {
        name: [round(group.bytes / GB, 6) for group in each]
        for name, each in groups.items()
        if any(group.bytes for group in each)
    }


def groups_line(sizes: Mapping[str, Sequence[float]]) -> str:
    """`in_gb` as a person reads it."""
    lines = []
    for name, each in sizes.items():
        what = "" if len(sizes) == 1 else f"{name}: "
        parts = f" in {len(each)} groups of at most {max(each):.3g} GB" if len(each) > 1 else ""
        lines.append(f"{what}{sum(each):.3g} GB to search{parts}")
    return "\n".join(lines)


def _divide(
    compute: ComputeConfig, search: Search, resources: Cluster, room: Callable[[NodeCache], int]
) -> tuple[tuple[Group, ...], str | None]:
    sizes = search.sizes()
    largest = max(sizes)
    memory = _SHARE * resources.memory
    if compute.index_memory_gb != "auto":
        memory = compute.index_memory_gb * GB
        if largest > memory:
            raise ConfigError(
                f"{_too_large(search, largest)} compute.index_memory_gb "
                f"({compute.index_memory_gb:g}) allows; raise it, or {_more_shards(sizes, memory)}"
            )
    disk = math.inf
    if search.is_downloaded():
        disk = room(search.index.cache) - search.texts()
        if largest > disk:
            raise ConfigError(
                f"{_too_large(search, largest)} a node's cache has beside "
                f"{search.texts() / GB:.3g} GB of texts ({max(disk, 0) / GB:.3g} GB); raise "
                f"storage.cache_gb, give {search.index.cache.folder} a larger disk, or "
                f"{_more_shards(sizes, disk)}"
            )
    # What is mapped and not in memory is read again: slow, and not worth refusing a run for.
    limit = min(max(memory, largest), disk)
    retrievers = plan_pools(compute, resources.cpus, resources.gpus).retrievers
    possible: list[tuple[tuple[Group, ...], float]] = []
    at_least, held = 1, 0.0
    while at_least <= len(sizes):
        groups = plan_groups(sizes, limit, at_least)
        at_least = len(groups) + 1
        actors = of_group(retrievers, len(groups)).size
        held = groups_per_node(len(groups), actors, resources.nodes) * max(g.bytes for g in groups)
        if held <= disk:
            possible.append((groups, held))
        if held <= min(memory, disk):
            return groups, None
        if possible and sum(sizes) > resources.nodes * memory:
            break  # more groups would not help
    if not possible:
        raise ConfigError(
            f"{search.index.root.uri} needs {(held + search.texts()) / GB:.3g} GB of node cache on "
            f"each of {resources.nodes} nodes, which has {(disk + search.texts()) / GB:.3g} GB; "
            "raise storage.cache_gb (and the disk behind it), or add nodes"
        )
    groups, held = possible[0]
    return groups, (
        f"a node may have to hold {held / GB:.3g} GB of the index where "
        f"{memory / GB:.3g} GB are meant for it (compute.index_memory_gb), and reads from disk "
        "what memory has no room for; add nodes"
    )


def _too_large(search: Search, largest: int) -> str:
    return f"a shard of {search.index.root.uri} takes {largest / GB:.3g} GB, more than"


def _more_shards(sizes: Sequence[int], limit: float) -> str:
    """What makes shards that are small enough, with a little to spare."""
    if limit <= 0:
        return "keep the index in a folder that the nodes share"
    shards = math.ceil(1.1 * sum(sizes) / limit)
    return f"build the index with more shards (--set index.shards={shards})"
