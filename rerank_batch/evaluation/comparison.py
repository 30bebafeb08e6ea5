"""Systems against the first of them, query by query: what they are worth in every measure."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rerank_batch.evaluation.judged import JudgedQuery
from rerank_batch.evaluation.measures import parse_measures, per_query

METRICS = pa.schema(
    [
        ("query_id", pa.string()),
        ("weight", pa.float64()),
        ("system", pa.string()),
        ("measure", pa.string()),
        ("value", pa.float64()),
    ]
)
"""Per-query metrics: one row per query, system and measure."""

Floats = NDArray[np.float64]
Values = Mapping[str, Mapping[str, Floats]]
"""System -> measure -> float64 [queries]."""

Signal = Callable[[NDArray[np.float32]], float]
"""What the scores of retrieval, best first, say of a query."""


@dataclass(frozen=True)
class Comparison:
    """Values of every system for the same queries, with what these say and how often they came.

    The first of ``systems`` is the baseline. The queries are every judged query of a run in the
    order of their ids, and with zeros and no text those that were rejected. ``weights`` is float64
    [queries], and so is each of the ``signals`` of retrieval, minus infinity where it was rejected.
    """

    measures: tuple[str, ...]
    systems: tuple[str, ...]
    query_ids: tuple[str, ...]
    texts: tuple[str, ...]
    weights: Floats
    values: Values
    signals: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def queries(self) -> int:
        """How many queries there are."""
        return len(self.query_ids)

    @property
    def headline(self) -> str:
        """The measure that the advice is about: the first."""
        return self.measures[0]

    @property
    def baseline(self) -> str:
        """What the others are compared with."""
        return self.systems[0]

    @property
    def others(self) -> tuple[str, ...]:
        """Every system but the baseline."""
        return self.systems[1:]

    @property
    def best(self) -> str:
        """The best of the others by the headline measure; the baseline where there is no other."""
        means = self.means()
        return max(self.others or self.systems, key=lambda system: means[system][self.headline])

    def gains(self, system: str, measure: str) -> Floats:
        """The system's values minus the baseline's."""
        return self.values[system][measure] - self.values[self.baseline][measure]

    def by_query(self, system: str, measure: str) -> dict[str, float]:
        """The values under the ids of their queries."""
        return dict(zip(self.query_ids, self.values[system][measure].tolist(), strict=True))

    def means(self) -> dict[str, dict[str, float]]:
        """System -> measure -> mean over the queries, exactly rounded."""
        count = max(self.queries, 1)
        return {
            system: {name: math.fsum(self.values[system][name]) / count for name in self.measures}
            for system in self.systems
        }

    def tables(self, queries: int = 50_000) -> Iterator[pa.Table]:
        """Per-query values in the long form of `METRICS`, of some queries at a time."""
        columns = [(system, name) for system in self.systems for name in self.measures]
        systems, names = ([pair[place] for pair in columns] for place in (0, 1))
        for start in range(0, max(self.queries, 1), queries):
            stop = min(start + queries, self.queries)
            rows = np.repeat(np.arange(stop - start), len(columns))
            values = [self.values[system][name][start:stop] for system, name in columns]
            yield pa.table(
                [
                    pa.array(self.query_ids[start:stop], pa.string()).take(pa.array(rows)),
                    pa.array(self.weights[start:stop][rows]),
                    pa.array(systems * (stop - start), pa.string()),
                    pa.array(names * (stop - start), pa.string()),
                    pa.array(np.stack(values, axis=1).ravel()),
                ],
                schema=METRICS,
            )

    def table(self) -> pa.Table:
        """All of them."""
        return pa.concat_tables(self.tables())


def compare(
    blocks: Iterable[Sequence[JudgedQuery]],
    systems: Sequence[str],
    rejected: Collection[str],
    measures: tuple[str, ...],
) -> Comparison:
    """Measure the lists of the ``systems`` in every judged query of the blocks.

    ``rejected`` are the ids of judged queries that were rejected; an id that is also the id of a
    written query (the log held it twice, once damaged) counts as written.
    """
    parts = [measured_block(block, systems, measures, rejected) for block in blocks]
    return merged(parts, systems, rejected, measures)


@dataclass(frozen=True)
class MeasuredBlock:
    """The values of some queries, and signals of their retrieval, in the order in which they came.

    ``planned`` are those of the rejected ids that turned out to be the ids of these queries.
    """

    query_ids: list[str]
    texts: list[str]
    weights: Floats
    values: Values
    planned: frozenset[str]
    signals: Mapping[str, Floats] = field(default_factory=dict)


def measured_block(
    block: Sequence[JudgedQuery],
    systems: Sequence[str],
    measures: tuple[str, ...],
    rejected: Collection[str] = (),
    signals: Mapping[str, Signal] | None = None,
) -> MeasuredBlock:
    """Measure the lists of the ``systems`` in a block; see `compare`.

    ``signals`` are computed of the scores of the candidates of the first system.
    """
    parsed = parse_measures(measures)
    grades = {query.query_id: query.grades for query in block}
    values = {}
    for system in systems:
        found = per_query(
            parsed, measures, grades, {q.query_id: q.lists[system].doc_ids for q in block}
        )
        values[system] = {
            name: np.array([found[query][name] for query in grades], np.float64)
            for name in measures
        }
    return MeasuredBlock(
        query_ids=list(grades),
        texts=[query.text for query in block],
        weights=np.array([query.weight for query in block], np.float64),
        values=values,
        planned=frozenset(a for query in block for a in query.query_ids if a in rejected),
        signals={
            name: np.array([signal(q.retrieved[systems[0]].scores) for q in block], np.float64)
            for name, signal in (signals or {}).items()
        },
    )


def merged(
    parts: Sequence[MeasuredBlock],
    systems: Sequence[str],
    rejected: Collection[str],
    measures: tuple[str, ...],
) -> Comparison:
    """The blocks of a run as one comparison; in which order they come changes nothing."""
    planned = frozenset[str]().union(*(part.planned for part in parts))
    lost = sorted(set(rejected) - planned)
    ids = [query for part in parts for query in part.query_ids] + lost
    texts = [text for part in parts for text in part.texts] + [""] * len(lost)
    order = sorted(range(len(ids)), key=ids.__getitem__)

    def in_order(columns: Iterable[Floats], of_lost: float = 0.0) -> Floats:
        return np.concatenate([*columns, np.full(len(lost), of_lost)])[order]

    return Comparison(
        measures=measures,
        systems=tuple(systems),
        query_ids=tuple(ids[place] for place in order),
        texts=tuple(texts[place] for place in order),
        weights=in_order(part.weights for part in parts),
        values={
            system: {
                name: in_order(part.values[system][name] for part in parts) for name in measures
            }
            for system in systems
        },
        signals={
            name: in_order((part.signals[name] for part in parts), -np.inf)
            for name in (parts[0].signals if parts else ())
        },
    )
