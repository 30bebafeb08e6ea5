"""What runs a network: the protocol of a runtime, and opening the one of a mode."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rerank_batch.errors import ModelError
from rerank_batch.scoring.modes import Graphs, Mode
from rerank_batch.scoring.network import Network
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


def open_runtime(
    network: Network, mode: Mode, device: str, threads: int, graphs: Graphs | None = None
) -> Runtime:
    """The network in that mode.

    Raises:
        Unavailable: there is no such mode on this machine.
    """
    if mode.runtime == "openvino":
        from rerank_batch.scoring.runtimes.openvino import OpenVinoRuntime

        if device != "cpu":
            raise Unavailable(f"{mode} runs on CPUs, not on {device}")
        return OpenVinoRuntime(network, mode.format, threads, graphs)
    from rerank_batch.scoring.runtimes.torch import TorchRuntime

    return TorchRuntime(network, mode.format, device)
