"""The boundary to Ray Train: one function run by several workers of one process group.

Knows no model: what the workers do is handed in. `pipeline` is the boundary to Ray Data.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
from ray.train.v2.api.exceptions import TrainingFailedError

from rerank_batch.errors import ComputeError, ConfigError
from rerank_batch.pipeline.resources import Cluster
from rerank_batch.ray_backend.carried import carrying, unpacked
from rerank_batch.ray_backend.errors import why_it_failed


def train_on_workers(
    work: Callable[[int], None], workers: int, resources: Cluster, scratch: Path
) -> None:
    """Call ``work(threads)`` in each of so many workers, with torch.distributed set up.

    A worker gets a GPU where there is one for each, else its share of the CPUs. ``scratch`` is
    where Ray keeps what it needs to know of the run; every worker sees it.

    Raises:
        ConfigError: there are fewer CPUs than workers.
        RerankBatchError: an error of ours in a worker, as it was raised.
        ComputeError: a worker failed otherwise.
    """
    if workers > resources.cpus:
        raise ConfigError(f"--workers {workers} needs as many CPUs; there are {resources.cpus:g}")
    gpus = resources.gpus >= workers
    threads = max(1, int(resources.cpus) // workers)
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")

    def loop(_: dict[str, Any]) -> None:
        with carrying():
            work(threads)

    trainer = ray.train.torch.TorchTrainer(
        loop,
        train_loop_config={},
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=gpus, resources_per_worker=_each(resources, workers, gpus)
        ),
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if gpus else "gloo"),
        run_config=ray.train.RunConfig(name="finetune", storage_path=str(scratch)),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        if ours := unpacked(str(error)):
            raise ours from error
        raise ComputeError(why_it_failed(error, "a training worker failed")) from error


def _each(resources: Cluster, workers: int, gpus: bool) -> dict[str, float]:
    cpus = float(max(1, int(resources.cpus) // workers))
    return {"CPU": cpus, "GPU": 1.0} if gpus else {"CPU": cpus}
