"""The cluster that a job works on: one that is there, or a Ray started on this machine."""

import logging
import math
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psutil
import ray
from ray._private.ray_logging import stdout_deduplicator

from rerank_batch.config import ComputeConfig
from rerank_batch.errors import ComputeError, RerankBatchError
from rerank_batch.pipeline.resources import Cluster
from rerank_batch.ray_backend.actors import RETRIES
from rerank_batch.ray_backend.nodes import working_nodes
from rerank_batch.ray_backend.start import (
    Note,
    address_of,
    check_ray,
    connected,
    start_here,
    without_stderr,
)
from rerank_batch.storage import endpoint_variables


@contextmanager
def cluster(
    compute: ComputeConfig, verbose: bool = False, note: Note = lambda text: None
) -> Iterator[Cluster]:
    """Connect to the cluster that the configuration or RAY_ADDRESS names, or start one here.

    A cluster started here is stopped on the way out. ``note`` gets a line where it takes long.

    Raises:
        ComputeError: the cluster cannot be reached or started.
        StorageError: there is no room for the files of one started here.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not verbose:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    seconds = check_ray(compute, note)
    address = address_of(compute)
    settings: dict[str, Any] = {
        "address": address or "local",
        "log_to_driver": verbose,
        "logging_level": "INFO" if verbose else "ERROR",
        # The scorer's own threads are the parallelism; tokenizer threads on top would fight them.
        "runtime_env": {"env_vars": {"TOKENIZERS_PARALLELISM": "0", **endpoint_variables()}},
    }
    if address is None:
        settings["include_dashboard"] = False
        settings["object_store_memory"] = compute.object_store_mb << 20
        if compute.cpus != "auto":
            settings["num_cpus"] = compute.cpus
        if compute.gpus != "auto":
            settings["num_gpus"] = compute.gpus
    start = partial(ray.init, **settings)
    try:
        with without_stderr(not verbose) as audible, _own_signals():
            if address is None:
                context = start_here(start, audible(note))
            else:
                context = connected(start, address, seconds, audible(note))
    except RerankBatchError:
        raise
    except Exception as error:  # of a node that starts too slowly Ray says no more than that
        raise ComputeError(
            f"Ray did not start at {address or 'this machine'}: {str(error).rstrip('. ')}. "
            "Run again with -v for its logs"
        ) from error
    _configure_data(verbose)
    try:
        resources = ray.cluster_resources()
        memory = [node["Resources"].get("memory", math.inf) for node in working_nodes()]
        yield Cluster(
            cpus=resources.get("CPU", 0),
            gpus=resources.get("GPU", 0),
            nodes=max(1, len(memory)),
            memory=min(memory, default=math.inf),
            dashboard=_job_page(context.dashboard_url),
        )
    finally:
        ray.shutdown()


def lost_since(before: Cluster) -> str:
    """What the cluster has lost since then, with nodes that died; empty where nothing is.

    The pools are sized once: an actor whose node is not replaced waits for room.
    """
    now = ray.cluster_resources()
    gone = [
        f"{had - now.get(kind, 0):g} of {had:g} {kind}s"
        for kind, had in (("CPU", before.cpus), ("GPU", before.gpus))
        if now.get(kind, 0) < had
    ]
    return f"waiting for {' and '.join(gone)} that the cluster has lost" if gone else ""


def this_node(compute: ComputeConfig, nodes: int) -> Cluster:
    """So many nodes like this machine, as far as one can say without Ray, which looks closer."""
    cpus = (os.cpu_count() or 1) if compute.cpus == "auto" else compute.cpus
    gpus = 0 if compute.gpus == "auto" else compute.gpus
    return Cluster(cpus, gpus, nodes, psutil.virtual_memory().available)


def _job_page(dashboard: str | None) -> str | None:
    """Where the dashboard shows this job; None without one, as in an installation of Ray alone."""
    if not dashboard:
        return None
    return f"http://{dashboard}/#/jobs/{ray.get_runtime_context().get_job_id()}"


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM over to print a stack and exit; the caller's handler says how to go on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _configure_data(verbose: bool) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = verbose
    context.print_on_execution_start = verbose
    context.execution_options.preserve_order = False
    # A block stays one block from read to commit, however large its rows are.
    context.target_max_block_size = None
    # A node may die while an actor loads its model; the default is to give up at once.
    context.max_consecutive_actor_init_deaths = RETRIES - 1
    if not verbose:
        # Failed tries of tasks and ends of workers, with stacks: what they mean is in the error.
        stdout_deduplicator.skip_re = re.compile("")
        context.issue_detectors_config.detectors = []
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
