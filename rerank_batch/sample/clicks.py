"""A simulated click log: nobody clicked; a seeded model of users did.

The model is position-based: a document at position k is looked at with probability 1/k, and clicked
if it is looked at and attracts. Attractiveness is drawn for each query and document: high for the
documents that the sample holds relevant, low for most others, high for a few of them as well. What
is shown are the first documents of several rankings that put relevant ones on top more often than
not; a relevant document that none of them brings up is never shown. It knows nothing of files.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pyarrow as pa

from rerank_batch.sample.query_log import Query, seeded

RANKINGS = 4
SHOWN = 10
IMPRESSIONS = 50
"""Of each ranking of a query."""

_CANDIDATES = 20
_MISTAKEN = 0.03  # of the other documents: they promise what they do not hold

CLICKS_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("clicked", pa.bool_(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)


def simulate_clicks(queries: Sequence[Query], documents: Sequence[str], seed: int) -> pa.Table:
    """Impressions with and without a click of every query, counted by ranking and position.

    ``documents`` are the ids of the corpus. A query's clicks depend on it, its relevant documents,
    the corpus and the seed.
    """
    rows = []
    for query in queries:
        rng = random.Random(seeded(seed, "clicks", query.query_id))
        others = rng.sample(documents, min(len(documents), _CANDIDATES))
        pool = sorted({*query.relevant, *others})
        attractive = {doc_id: _attractiveness(doc_id in query.relevant, rng) for doc_id in pool}
        for _ in range(RANKINGS):
            merit = {doc_id: rng.gauss(doc_id in query.relevant, 0.6) for doc_id in pool}
            ranking = sorted(pool, key=lambda doc_id: -merit[doc_id])[:SHOWN]
            for position, doc_id in enumerate(ranking, start=1):
                likely = attractive[doc_id] / position
                clicks = sum(rng.random() < likely for _ in range(IMPRESSIONS))
                for clicked, count in ((True, clicks), (False, IMPRESSIONS - clicks)):
                    if count:
                        rows.append((query.query_id, doc_id, position, clicked, count, query.split))
    columns = list(zip(*rows, strict=True)) or [()] * len(CLICKS_SCHEMA)
    return pa.table(columns, schema=CLICKS_SCHEMA)


def _attractiveness(relevant: bool, rng: random.Random) -> float:
    if relevant or rng.random() < _MISTAKEN:
        return rng.uniform(0.5, 0.9)
    return rng.uniform(0.0, 0.08)
