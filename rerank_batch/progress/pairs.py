"""How many pairs the rerankers of this process have scored of those they have to score.

Scorers count batch by batch, and another thread reads the counts meanwhile. Outside of `reading`,
as while a model is tried out, nothing is counted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace


@dataclass
class Pairs:
    """How many pairs were ``requested``, ``known`` of them before, and how many are ``scored``."""

    requested: int = 0
    known: int = 0
    scored: int = 0

    @property
    def share(self) -> float:
        """How much is scored of what had to be; 1 where nothing had to."""
        wanted = self.requested - self.known
        return min(1.0, self.scored / wanted) if wanted > 0 else 1.0

    def __add__(self, other: "Pairs") -> "Pairs":
        return Pairs(
            self.requested + other.requested, self.known + other.known, self.scored + other.scored
        )


_pairs: dict[int, Pairs] = {}
_now: Pairs | None = None


@contextmanager
def reading(reranker: int, pairs: int) -> Iterator[None]:
    """While it lasts, the reranker of that number scores so many pairs more.

    When it ends without an error all of them are scored, whether or not each was counted.
    """
    global _now
    current = _pairs.setdefault(reranker, Pairs())
    current.requested += pairs
    _now = current
    try:
        yield
        current.scored = current.requested - current.known
    finally:
        _now = None


def scored(pairs: int) -> None:
    """So many pairs more are scored; to be called for a batch, never for a pair."""
    if _now is not None:
        _now.scored += pairs


def known(pairs: int) -> None:
    """So many pairs need no scoring."""
    if _now is not None:
        _now.known += pairs


def counted() -> dict[int, Pairs]:
    """What is counted since `forget`, by the reranker's number."""
    return {reranker: replace(pairs) for reranker, pairs in list(_pairs.items())}


def forget() -> None:
    """Begin anew: the work is other work, or the same once more."""
    _pairs.clear()
