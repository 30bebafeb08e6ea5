"""The nodes of the cluster: a function is called on each, or where an actor would run."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rerank_batch.pipeline.pools import LIGHT_CPUS, Pool
from rerank_batch.ray_backend.carried import call_carrying
from rerank_batch.ray_backend.errors import clear_errors
from rerank_batch.schema import JsonObject

T = TypeVar("T")


def on_worker(function: Callable[..., T], pool: Pool, *arguments: Any) -> T:
    """Call a function where an actor of the pool would run, and wait for what it returns."""
    with clear_errors():
        task = ray.remote(num_cpus=pool.num_cpus, num_gpus=pool.num_gpus, name=_name(function))
        result: T = ray.get(task(call_carrying).remote(function, *arguments))
        return result


def on_every_node(function: Callable[..., T], *arguments: Any) -> list[T]:
    """Call a function on each node that actors may run on."""
    with clear_errors():
        task = ray.remote(num_cpus=LIGHT_CPUS, name=_name(function))(call_carrying)
        tasks = [
            task.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
            ).remote(function, *arguments)
            for node in working_nodes()
        ]
        results: list[T] = ray.get(tasks)
        return results


def _name(function: Callable[..., Any]) -> str:
    """What Ray's dashboard shows such a task as."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__qualname__", type(function).__qualname__)


def working_nodes() -> list[JsonObject]:
    """The nodes that have CPUs to give; a head is often there for the rest alone."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
