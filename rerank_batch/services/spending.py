"""What calls to a service cost, and the cap that a run must not go beyond.

Knows numbers only: who calls what is not its business.
"""

import threading
from dataclasses import asdict, dataclass

from rerank_batch.config import PriceConfig
from rerank_batch.errors import SpendCapReached


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
        mine, theirs = asdict(self), asdict(other)
        return Usage(**{name: mine[name] + theirs[name] for name in mine})

    def cost(self, price: PriceConfig) -> float:
        """In the currency of the price."""
        return (
            self.requests * price.request
            + self.search_units * price.search_unit
            + self.tokens * price.million_tokens / 1e6
            + self.output_tokens * price.million_output_tokens / 1e6
        )


class Budget:
    """What may still be spent, for all calls of a scorer together; safe between threads.

    A call is allowed when all that was spent, all that is under way as expected, and the call
    itself as expected stay within the cap.
    """

    def __init__(
        self, price: PriceConfig | None = None, cap: float | None = None, spent: float = 0.0
    ) -> None:
        self._price = price or PriceConfig()
        self._cap = cap
        self._lock = threading.Lock()
        self._spent = spent
        self._under_way = 0.0

    @property
    def spent(self) -> float:
        """All that was settled, in the currency of the price."""
        return self._spent

    def reserve(self, expected: Usage) -> None:
        """Allow a call that is expected to use so much; `settle` must follow.

        Raises:
            SpendCapReached: the call could go beyond the cap.
        """
        cost = expected.cost(self._price)
        with self._lock:
            if self._cap is not None and self._spent + self._under_way + cost > self._cap:
                raise SpendCapReached(
                    f"the next call would cost about {cost:.6g} beyond the {self._spent:.6g} that "
                    f"are spent, and cost.cap is {self._cap:g}. What was paid for is kept; go on "
                    "with --resume and a higher --set cost.cap=…"
                )
            self._under_way += cost

    def settle(self, expected: Usage, used: Usage) -> None:
        """The call is over: count what it really used instead."""
        with self._lock:
            self._under_way -= expected.cost(self._price)
            self._spent += used.cost(self._price)

    def count(self, cost: float) -> None:
        """Add what others have spent."""
        with self._lock:
            self._spent += cost
