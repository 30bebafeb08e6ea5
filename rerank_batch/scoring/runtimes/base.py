"""What runs a network: the protocol of a runtime."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rerank_batch.errors import ModelError
from rerank_batch.scoring.tokens import TokenBatch

FloatArray = NDArray[np.float32]


class Unavailable(ModelError):
    """A runtime or number format that this machine or installation does not have."""


class Runtime(Protocol):
    """Runs batches; what it gives for one may still be on its way until it is fetched.

    ``even``: the texts of a batch have to be of one length. ``ahead``: how many batches are worked
    on at a time; who runs fewer before fetching leaves it idle.
    """

    even: bool
    ahead: int

    def run(self, batch: TokenBatch) -> Any:
        """Start the batch."""

    def fetch(self, pending: Sequence[Any]) -> list[FloatArray]:
        """What `run` gave, as arrays: [n], [n, width], or [tokens, width] in the batch's order."""
