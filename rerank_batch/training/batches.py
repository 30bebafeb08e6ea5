"""What each training step reads, as a pure function of its number.

Group number ``i`` is made from the seed and ``i`` alone. So a run that was killed goes on with the
same data from any step, and workers that share a step need not agree on anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rerank_batch.training.config import FinetuneConfig
from rerank_batch.training.labels import LabelledQuery

_ORDER, _DRAW = 0, 1


@dataclass(frozen=True)
class TrainingGroup:
    """One query with a positive, which comes first, and negatives.

    ``labels`` and ``teacher`` belong to ``documents``. The teacher's score of a random document is
    NaN where it was not read, or the lowest of the query; see `config.FinetuneConfig`.
    """

    query_id: str
    query: str
    documents: list[str]
    labels: list[float]
    teacher: list[float]
    hard: int


class GroupPlan:
    """All groups of a training run; every query comes once before any comes again."""

    def __init__(
        self, queries: Sequence[LabelledQuery], texts: Sequence[str], config: FinetuneConfig
    ) -> None:
        self._queries = queries
        self._texts = texts
        self._config = config
        self._pool = np.unique(np.concatenate([query.documents for query in queries]))
        known = [query.labels[~np.isnan(query.labels)] for query in queries]
        self.highest_label = float(max([1.0, *np.concatenate(known).tolist()]))
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        return self._config.steps * self._config.queries_per_step

    def hard_share(self, number: int) -> float:
        """The probability with which a negative of that group is a hard one."""
        first, last = self._config.hard_share
        done = (number // self._config.queries_per_step) / max(self._config.steps - 1, 1)
        return first + (last - first) * done

    def group(self, number: int) -> TrainingGroup:
        """Group ``number``, from 0."""
        query = self._queries[self._query_number(number)]
        rng = np.random.default_rng([self._config.seed, _DRAW, number])
        wanted = self._config.documents_per_query - 1
        positive = rng.permutation(np.flatnonzero(query.positive))[:1]
        hard = rng.permutation(np.flatnonzero(query.hard))
        easy = rng.permutation(np.flatnonzero(query.easy))
        many = int(rng.binomial(wanted, self.hard_share(number)))
        drawn: list[int] = []
        if not len(easy) and self._config.draws_documents:
            drawn = self._drawn(rng, query, wanted - min(many, len(hard)))
            hard = hard[: wanted - len(drawn)]
        else:
            # What one kind lacks the other gives.
            many = min(max(many, wanted - len(easy)), len(hard))
            hard, easy = hard[:many], easy[: wanted - many]
        listed = np.concatenate([positive, hard, easy]).astype(np.int64)
        if self._config.loss == "margin-mse" and len(listed) <= wanted:
            # This loss wants equally many everywhere, so negatives come again.
            listed = np.concatenate([listed[:1], np.resize(listed[1:], wanted)])
        teacher = [*query.teacher[listed].tolist(), *[float("nan")] * len(drawn)]
        if self._config.random_is_lowest:
            teacher = np.nan_to_num(teacher, nan=float(np.nanmin(query.teacher))).tolist()
        unknown = np.where(query.positive, 1.0, 0.0)
        labels = np.where(np.isnan(query.labels), unknown, query.labels)[listed]
        return TrainingGroup(
            query.query_id,
            query.text,
            [self._texts[n] for n in [*query.documents[listed], *drawn]],
            [*labels.tolist(), *[0.0] * len(drawn)],
            teacher,
            len(hard),
        )

    def _query_number(self, number: int) -> int:
        round_number, place = divmod(number, len(self._queries))
        if self._order[0] != round_number:
            rng = np.random.default_rng([self._config.seed, _ORDER, round_number])
            self._order = (round_number, rng.permutation(len(self._queries)))
        return int(self._order[1][place])

    def _drawn(self, rng: np.random.Generator, query: LabelledQuery, count: int) -> list[int]:
        """Documents of other queries; fewer where hardly any are left, as tries are bounded."""
        known = set(query.documents.tolist())
        found: dict[int, None] = {}
        for candidate in rng.choice(self._pool, size=4 * count + 16):
            if len(found) < count and int(candidate) not in known:
                found[int(candidate)] = None
        return list(found)
