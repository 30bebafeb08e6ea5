"""Which shards are opened together, where all of them are more than one node may hold.

Groups are of consecutive shards. What is found does not depend on them: each group's hits are
merged into those of the groups before it, under the one total order. Knows sizes, not machines.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """The shards ``start`` up to ``stop`` of an index, and the bytes of their files."""

    start: int
    stop: int
    bytes: int


def plan_groups(sizes: Sequence[int], limit: float, at_least: int = 1) -> tuple[Group, ...]:
    """The fewest groups, but ``at_least`` so many, that hold at most ``limit`` bytes each.

    They are as even as so many can be: the largest is as small as possible. ``sizes`` are the bytes
    of the shards in order.

    Raises:
        ValueError: a shard is larger than the limit by itself, or there are not so many shards.
    """
    if max(sizes) > limit or at_least > len(sizes):
        raise ValueError(f"no {at_least} groups of {len(sizes)} shards hold {limit:g} bytes each")
    count = max(at_least, len(_filled(sizes, limit)))
    low, high = max(sizes), sum(sizes)
    while low < high:
        middle = (low + high) // 2
        if len(_filled(sizes, middle)) <= count:
            high = middle
        else:
            low = middle + 1
    return _split(sizes, _filled(sizes, low), count)


def groups_per_node(groups: int, actors: int, nodes: int) -> int:
    """How many different groups a node has, with ``actors`` for each, spread over the nodes."""
    return min(groups, math.ceil(groups * actors / nodes))


def _filled(sizes: Sequence[int], limit: float) -> list[int]:
    """Where groups begin if each takes as many shards as fit, which makes the fewest groups."""
    starts, held = [0], 0
    for number, size in enumerate(sizes):
        if held and held + size > limit:
            starts.append(number)
            held = 0
        held += size
    return starts


def _split(sizes: Sequence[int], starts: list[int], count: int) -> tuple[Group, ...]:
    """Groups that begin there; the largest that can be are halved until there are enough."""
    groups = [
        Group(a, b, sum(sizes[a:b])) for a, b in zip(starts, [*starts[1:], len(sizes)], strict=True)
    ]
    while len(groups) < count:
        largest = max((g for g in groups if g.stop - g.start > 1), key=lambda g: g.bytes)
        middle = (largest.start + largest.stop) // 2
        parts = ((largest.start, middle), (middle, largest.stop))
        place = groups.index(largest)
        groups[place : place + 1] = [Group(a, b, sum(sizes[a:b])) for a, b in parts]
    return tuple(groups)
