"""Opening the runtime of a mode."""

from rerank_batch.scoring.modes import Graphs, Mode
from rerank_batch.scoring.networks.network import Network
from rerank_batch.scoring.runtimes.base import Runtime, Unavailable


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
