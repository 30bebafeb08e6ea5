"""What every pointwise reranker is: queries and their documents in, one number per pair out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rerank_batch.config import Lossy, Precision, Truncation
from rerank_batch.scoring.modes import Graphs, Mode


@dataclass(frozen=True)
class ScorerOptions:
    """How a scorer runs; what it is, is in the model's files.

    ``max_length`` None means what the model says. ``batch_tokens`` bounds the tokens of one forward
    pass, padding included; None: what suits the device. ``mode`` None: the scorer measures which of
    the modes that ``precision`` and ``allow`` permit is the fastest. ``graphs`` is where exported
    networks are kept.
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


@dataclass(frozen=True)
class PairScores:
    """Scores of a window of queries.

    ``values[i][j]`` is the raw float32 score of query i and its document j: higher is better, no
    activation applied. ``truncated[i][j]`` says whether the model saw that pair cut short.
    """

    values: list[NDArray[np.float32]]
    truncated: list[NDArray[np.bool_]]


class PairScorer(Protocol):
    """Scores pairs independently of each other: safe to batch across queries and to cache."""

    def score(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> PairScores:
        """Score ``documents[i]`` for ``queries[i]``; order in, order out; lists may be empty."""


def split(flat: NDArray[Any], documents: Sequence[Sequence[str]]) -> list[NDArray[Any]]:
    """One value per pair back to one array per query."""
    ends = np.cumsum([len(listed) for listed in documents])
    return list(np.split(flat, ends[:-1])) if len(documents) else []
