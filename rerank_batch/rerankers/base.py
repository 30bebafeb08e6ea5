"""What every pointwise reranker is: queries and their documents in, one number per pair out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rerank_batch.config import LlmMethod, Lossy, Precision, ServiceConfig, Truncation
from rerank_batch.scoring.modes import Graphs, Mode
from rerank_batch.services.spending import Budget
from rerank_batch.services.usage import Usage


@dataclass(frozen=True)
class ScorerOptions:
    """How a scorer runs; what it is, is in the model's files or at the service.

    ``max_length`` None means what the model says. ``batch_tokens`` bounds the tokens of one forward
    pass, padding included; None: what suits the device. ``mode`` None: the scorer measures which of
    the modes that ``precision`` and ``allow`` permit is the fastest. ``graphs`` is where exported
    networks are kept. ``sharers`` is how many scorers of the job call ``service`` by the same key:
    each takes its part of what the key allows. The rest is as in `config.ScorerSettings`.
    """

    max_length: int | None = None
    precision: Precision = "auto"
    allow: tuple[Lossy, ...] = ()
    runtime: str = "auto"
    truncation: Truncation = "longest_first"
    batch_tokens: int | None = None
    threads: int = 1
    mode: Mode | None = None
    graphs: Graphs | None = None
    layer: int | None = None
    instruction: str | None = None
    max_chars: int | None = None
    method: LlmMethod = "yes-no"
    window: int = 20
    step: int = 10
    service: ServiceConfig = field(default_factory=ServiceConfig)
    sharers: int = 1


@dataclass(frozen=True)
class QueryScores:
    """Scores of one query, as in `PairScores`."""

    values: NDArray[np.float32]
    truncated: NDArray[np.bool_]
    fell_back: bool = False


NO_SCORES = QueryScores(np.empty(0, np.float32), np.empty(0, np.bool_))


@dataclass(frozen=True)
class PairScores:
    """Scores of a window of queries.

    ``values[i][j]`` is the raw float32 score of query i and its document j: higher is better, no
    activation applied. ``truncated[i][j]`` says whether the model saw that pair cut short.
    ``fell_back`` are the numbers of queries that got no scores, so that they keep the order they
    had: their values are not to be read.
    """

    values: list[NDArray[np.float32]]
    truncated: list[NDArray[np.bool_]]
    fell_back: frozenset[int] = frozenset()

    def of_query(self, number: int) -> QueryScores:
        """The scores of one query of the window."""
        return QueryScores(self.values[number], self.truncated[number], number in self.fell_back)


@dataclass(frozen=True)
class Answer:
    """What a service made of one query of a window: its number there, then as in `PairScores`.

    ``used`` is all that was billed for it, tries that came to nothing included.
    """

    query: int
    values: NDArray[np.float32]
    truncated: NDArray[np.bool_]
    used: Usage
    fell_back: bool = False


class ServiceScorer(Protocol):
    """Scores by calling a service, many calls at a time."""

    def answers(
        self, queries: Sequence[str], documents: Sequence[Sequence[str]], budget: Budget
    ) -> Iterator[Answer]:
        """One answer for each query, in the order in which they come.

        Every answer that was paid for is yielded before an error is raised.

        Raises:
            SpendCapReached: the budget allows no further call.
            ServiceError: the service refuses, or failed on every try.
        """


class PairScorer(Protocol):
    """Scores pairs independently of each other: safe to batch across queries and to cache."""

    def score(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> PairScores:
        """Score ``documents[i]`` for ``queries[i]``; order in, order out; lists may be empty."""


def split(flat: NDArray[Any], documents: Sequence[Sequence[str]]) -> list[NDArray[Any]]:
    """One value per pair back to one array per query."""
    ends = np.cumsum([len(listed) for listed in documents])
    return list(np.split(flat, ends[:-1])) if len(documents) else []
