"""What a service bills: estimated before a call, and read from its answer."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rerank_batch.config import PriceConfig


@dataclass(frozen=True)
class Usage:
    """What a service billed or counted; sums of it are of the same kind.

    ``unread`` counts answers that could not be read: whether they were billed is not known here.
    """

    requests: int = 0
    search_units: int = 0
    tokens: int = 0
    output_tokens: int = 0
    unread: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        mine, others = asdict(self), asdict(other)
        return Usage(**{name: mine[name] + others[name] for name in mine})

    def cost(self, price: PriceConfig) -> float:
        """In the currency of the price."""
        return (
            self.requests * price.request
            + self.search_units * price.search_unit
            + self.tokens * price.million_tokens / 1e6
            + self.output_tokens * price.million_output_tokens / 1e6
        )


def tokens_of(text: str) -> int:
    """How many tokens a text may be: three bytes each, which is on the safe side in any script."""
    return math.ceil(len(text.encode(errors="replace")) / 3)


def pair_tokens(query: str, documents: Sequence[str]) -> int:
    """The same for a call that reads the query once beside each document."""
    return tokens_of(query) * len(documents) + sum(map(tokens_of, documents))


def count_at(answer: Any, *keys: str) -> int | None:
    """The whole number at a place in an answer; None where there is no such number."""
    for key in keys:
        answer = answer.get(key) if isinstance(answer, dict) else None
    if isinstance(answer, bool) or not isinstance(answer, int | float) or not 0 <= answer < 1e15:
        return None
    return math.ceil(answer)
