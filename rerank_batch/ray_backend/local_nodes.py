"""Several Ray nodes on this machine, each with processes of its own, to measure and to test with.

By `ray.cluster_utils`, which Ray keeps for its own tests. To a driver it is like any cluster.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def nodes_here(count: int, cpus: int, object_store_mb: int) -> Iterator[str]:
    """A cluster of so many nodes, each with so many logical CPUs and no GPU; yields its address."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": cpus, "num_gpus": 0, "object_store_memory": object_store_mb << 20}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(count - 1):
            cluster.add_node(**node)
        cluster.wait_for_nodes()
        yield str(cluster.address)
    finally:
        cluster.shutdown()
