"""Two threads of a runtime that are the first of a process to hand an array to OpenVINO, again and
again: prints how many of the processes came to no end. Run by test_engine.py.
"""

import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
from transformers import AutoModelForSequenceClassification

from rerank_batch.scoring.modes import Graphs
from rerank_batch.scoring.networks.network import Network, pair_network
from rerank_batch.scoring.runtimes.openvino import OpenVinoRuntime
from rerank_batch.scoring.tokens import TokenBatch

ROUNDS = 10
SECONDS = 5


def batch() -> TokenBatch:
    row = np.arange(4)
    return TokenBatch(ids=row, types=row * 0, positions=row, lengths=np.array([4]))


def read_network(model: Path) -> Network:
    return pair_network(AutoModelForSequenceClassification.from_pretrained(model))


def first_arrays(network: Network, graphs: Graphs) -> None:
    """Both threads at once, which change places as often as they can."""
    sys.setswitchinterval(1e-6)
    runtime = OpenVinoRuntime(network, "fp32", 2, graphs)
    both, infer = threading.Barrier(2), runtime._infer

    def together(given: TokenBatch) -> object:
        both.wait()
        return infer(given)

    runtime._infer = together
    runtime.fetch([runtime.run(batch()) for _ in range(2)])


def ends(network: Network, graphs: Graphs) -> bool:
    """In a process of its own, ended by a signal: one that hangs so can run no Python any more."""
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        first_arrays(network, graphs)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    network, graphs = read_network(Path(sys.argv[1])), Graphs(Path(sys.argv[2]), "print")
    print(sum(not ends(network, graphs) for _ in range(ROUNDS)))
