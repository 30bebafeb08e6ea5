"""What nights cost at sizes that nobody has here: lines through two measured ones.

Building is a line in the documents. A run's cores work, for each query, a line in the documents
(every vector is compared), for each pair the same, and for each query the rest; seconds on the
clock are a line in what cores work, of which the start is paid once however many cores there are.
Work is taken to divide evenly among nodes.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import compress
from typing import Any

RETRIEVE, RERANK = "retrieve", "rerank"

_INDEX_SHARE = 0.5
"""Of a node's memory, what an index may take; the rest is for models, blocks and the system."""


@dataclass(frozen=True)
class Night:
    """One size as it was measured: seconds on the clock, seconds of cores by stage, bytes, GiB.

    ``again`` is the night after it, with the scores of this one in the cache, on an index that was
    updated in ``update`` seconds.
    """

    documents: int
    queries: int
    pairs: int
    gated: int
    cpus: int
    build: float
    run: float
    cores: Mapping[str, float]
    build_memory_gb: float
    run_memory_gb: float
    index_bytes: int
    run_bytes: int
    update: float
    again: float
    again_pairs: int
    again_cores: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def cores_of(self, stage: str) -> float:
        """Core seconds of a stage, of all its sources and groups (``retrieve-2``, …) together."""
        parts = (name == stage or name.startswith(f"{stage}-") for name in self.cores)
        return sum(compress(self.cores.values(), parts))


@dataclass(frozen=True)
class Line:
    """``start`` and ``each``, neither of them below 0."""

    start: float
    each: float

    @classmethod
    def through(cls, one: tuple[float, float], other: tuple[float, float]) -> "Line":
        """The line through two points with different x; a flat or falling one is their mean."""
        (x, y), (x_other, y_other) = one, other
        each = (y_other - y) / (x_other - x)
        if each <= 0:
            return cls((y + y_other) / 2, 0.0)
        if (start := y - each * x) < 0:
            return cls(0.0, y_other / x_other)
        return cls(start, each)

    def at(self, x: float) -> float:
        """Its value."""
        return self.start + self.each * x


@dataclass(frozen=True)
class Law:
    """What sizes cost on a machine with so many ``cpus``."""

    cpus: int
    build: Line  # documents to seconds
    retrieve: Line  # documents to core seconds a query
    rerank: float  # core seconds a pair
    rest: float  # core seconds a query
    clock: Line  # core seconds to seconds of a run
    index_bytes: Line  # documents to bytes

    @classmethod
    def through(cls, one: Night, other: Night) -> "Law":
        """The law of two nights of different sizes on the same machine, the smaller one first."""
        both = one, other
        retrieve = [(n.documents, n.cores_of(RETRIEVE) / n.queries) for n in both]
        return cls(
            cpus=other.cpus,
            build=Line.through(*((n.documents, n.build) for n in both)),
            retrieve=Line.through(*retrieve),
            rerank=other.cores_of(RERANK) / other.pairs,
            rest=_rest(other) / other.queries,
            clock=Line.through(*((sum(n.cores.values()), n.run) for n in both)),
            index_bytes=Line.through(*((n.documents, n.index_bytes) for n in both)),
        )

    def cores(self, documents: int, queries: int, pairs: int) -> float:
        """Core seconds of a run."""
        each = self.retrieve.at(documents) + self.rest
        return queries * each + pairs * self.rerank

    def run(self, documents: int, queries: int, pairs: int) -> float:
        """Seconds of a run on the machine that was measured."""
        return self.clock.at(self.cores(documents, queries, pairs))


@dataclass(frozen=True)
class Models:
    """What models of one's own do on one node: documents encoded and pairs read in a second."""

    documents_per_second: float
    pairs_per_second: float


@dataclass(frozen=True)
class Nodes:
    """A kind of node, with its price an hour, and the hours that a night may have."""

    cpus: int
    memory_gb: float
    price: float
    hours: float


@dataclass(frozen=True)
class Projection:
    """One size on as many nodes as it needs: hours and money of a build and of a night."""

    documents: int
    queries: int
    pairs: int
    index_gb: float
    nodes: int
    build_hours: float
    build_price: float
    run_hours: float
    run_price: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def project(
    law: Law, nodes: Nodes, documents: int, queries: int, depth: float, models: Models | None
) -> Projection:
    """A size on the fewest nodes that hold its index in memory and end the night in its hours.

    ``depth`` is the pairs a query, after the gate. With ``models`` their time comes on top of what
    was measured, which has models that cost nearly nothing.

    Raises:
        ValueError: the start alone takes longer than the night may.
    """
    pairs = round(queries * depth)
    index_gb = law.index_bytes.at(documents) / 2**30
    building = documents * law.build.each * law.cpus / nodes.cpus
    running = law.cores(documents, queries, pairs) * law.clock.each * law.cpus / nodes.cpus
    if models is not None:
        building += documents / models.documents_per_second
        running += pairs / models.pairs_per_second
    left = nodes.hours * 3600 - law.clock.start
    if left <= 0:
        raise ValueError(f"a run takes {law.clock.start:.0f} s to start, more than a night has")
    count = math.ceil(max(index_gb / (_INDEX_SHARE * nodes.memory_gb), running / left, 1))
    build_hours = (law.build.start + building / count) / 3600
    run_hours = (law.clock.start + running / count) / 3600
    return Projection(
        documents,
        queries,
        pairs,
        index_gb,
        count,
        build_hours,
        build_hours * count * nodes.price,
        run_hours,
        run_hours * count * nodes.price,
    )


def _rest(night: Night) -> float:
    return sum(night.cores.values()) - night.cores_of(RETRIEVE) - night.cores_of(RERANK)
