"""What a run may spend on calls to services, and the cap that it must not go beyond.

Knows numbers only: who calls what is not its business.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rerank_batch.config import CostConfig, PriceConfig
from rerank_batch.errors import ConfigError, SpendCapReached
from rerank_batch.services.usage import Usage


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
        self._hold(expected.cost(self._price))

    def settle(self, expected: Usage, used: Usage) -> None:
        """The call is over: count what it really used instead."""
        with self._lock:
            self._under_way -= expected.cost(self._price)
            self._spent += used.cost(self._price)

    def count(self, cost: float) -> None:
        """Add what others have spent."""
        with self._lock:
            self._spent += cost

    @contextmanager
    def part(self, expected: Usage) -> Iterator["Budget"]:
        """A budget for several calls that are worth something together only: all or none.

        So much is set aside for them at once, and what they need beyond it is asked for as usual.

        Raises:
            SpendCapReached: as a whole they could go beyond the cap.
        """
        part = _Share(self, self._price, expected.cost(self._price))
        try:
            yield part
        finally:
            part.close()

    def _hold(self, cost: float) -> None:
        with self._lock:
            if self._cap is not None and self._spent + self._under_way + cost > self._cap:
                raise SpendCapReached(
                    f"what comes next would cost about {cost:.6g} beyond the {self._spent:.6g} "
                    f"that are spent, and cost.cap is {self._cap:g}. What was paid for is kept; go "
                    "on with --resume and a higher --set cost.cap=…"
                )
            self._under_way += cost

    def _release(self, cost: float, spent: float) -> None:
        with self._lock:
            self._under_way -= cost
            self._spent += spent


class _Share(Budget):
    """See `Budget.part`; ``left`` is set aside and under way in the whole."""

    def __init__(self, whole: Budget, price: PriceConfig, left: float) -> None:
        super().__init__(price)
        whole._hold(left)
        self._whole, self._left = whole, left

    def reserve(self, expected: Usage) -> None:
        """See `Budget.reserve`."""
        beyond = expected.cost(self._price) - self._left
        if beyond > 0:
            self._whole._hold(beyond)
        self._left = max(-beyond, 0.0)

    def settle(self, expected: Usage, used: Usage) -> None:
        """What a try did not use stays set aside for the next one."""
        cost, spent = expected.cost(self._price), used.cost(self._price)
        kept = max(cost - spent, 0.0)
        self._left += kept
        self._whole._release(cost - kept, spent)

    def close(self) -> None:
        """Hand back what is left."""
        self._whole._release(self._left, 0.0)
        self._left = 0.0


def check_price(cost: CostConfig, model: str, section: str | None = None) -> None:
    """A cap means nothing where the price of ``family:name`` is missing.

    ``section`` of the configuration names the model, where that is worth a word.

    Raises:
        ConfigError: which price that is.
    """
    if cost.cap is None or cost.price(model) is not None:
        return
    family = model.partition(":")[0]
    caller = f", which {section} calls" if section else ""
    raise ConfigError(
        f"cost.cap is set, but cost.prices has no price of {family} or {model}{caller}: nothing "
        "that it bills would count. A server of your own costs nothing a call: write "
        f"{family}: {{}}"
    )
