"""What there is to compute with, as data: sizes of pools and groups follow from it."""

import math
import os
from dataclasses import dataclass

import psutil

from rerank_batch.config import ComputeConfig


@dataclass(frozen=True)
class Cluster:
    """What Ray has to give: on how many nodes, and bytes of memory on the smallest of them.

    ``dashboard`` is the address of this job in its dashboard.
    """

    cpus: float
    gpus: float
    nodes: int = 1
    memory: float = math.inf
    dashboard: str | None = None


def this_node(compute: ComputeConfig, nodes: int) -> Cluster:
    """So many nodes like this machine, as far as one can say without Ray, which looks closer."""
    cpus = (os.cpu_count() or 1) if compute.cpus == "auto" else compute.cpus
    gpus = 0 if compute.gpus == "auto" else compute.gpus
    return Cluster(cpus, gpus, nodes, psutil.virtual_memory().available)
