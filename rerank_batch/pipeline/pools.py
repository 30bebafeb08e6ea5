"""How many actors of which size: resources as data, decided in one place.

Every actor reserves its CPUs for life, and reading and writing need some too, so on a small
machine the reservations must fit together or nothing ever starts. Here they always do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rerank_batch.config import ComputeConfig, PoolSize
from rerank_batch.errors import ComputeError

LIGHT_CPUS = 0.01
"""What a stage reserves that mostly waits: query encoding, search, assembling, reading, writing.

So little that the light stages of several jobs on one cluster always find room: what they wait for
is then a scorer of their own, and never each other.
"""

_RESERVED = 0.5
_CALLERS = 1
_THREADS_PER_SCORER = 2


@dataclass(frozen=True)
class Pool:
    """``size`` actors that each reserve ``num_cpus`` and ``num_gpus`` and run ``threads``."""

    size: int
    num_cpus: float
    num_gpus: float = 0
    threads: int = 1


@dataclass(frozen=True)
class Pools:
    """The pools of the rerank job.

    ``callers`` call a service: one actor with many calls at a time, so that what its key allows is
    kept to by the job as a whole.
    """

    encoders: Pool
    retrievers: Pool
    scorers: Pool
    assemblers: Pool
    callers: Pool


def plan_pools(
    compute: ComputeConfig, cpus: float, gpus: float, searches: Sequence[int] = (1,)
) -> Pools:
    """Pools for a cluster with that many logical CPUs and GPUs.

    ``searches`` are the searches of the job, each with the number of its groups: these have actors
    of their own, see `of_group`.

    Scoring is where the time goes: it gets everything but half a CPU. On CPUs that is one actor
    for every two cores; with GPUs one actor each.

    Raises:
        ComputeError: less than one CPU.
    """
    if cpus < 1:
        raise ComputeError(f"the cluster has {cpus:g} CPUs; at least one is needed")
    encoders = _size(compute.encoders, max(1, int(cpus) // 16))
    retrievers = _size(compute.retrievers, max(1, int(cpus) // 16))
    assemblers = max(1, int(cpus) // 16)
    tasks = 2 * tasks_at_once(cpus) * LIGHT_CPUS  # those that read and those that write
    searching = sum(groups * _share(retrievers, groups) for groups in searches)
    light = (encoders + searching + assemblers + _CALLERS) * LIGHT_CPUS + tasks
    reserved = min(max(_RESERVED, light), cpus / 2)
    shrink = min(1.0, (reserved - tasks) / (light - tasks))
    spare = cpus - reserved
    if gpus >= 1:
        scorers = _size(compute.scorers, int(gpus))
        each = min(1.0, spare / scorers)
        scorer_pool = Pool(scorers, each, num_gpus=1 / math.ceil(scorers / int(gpus)))
    else:
        scorers = _size(compute.scorers, max(1, int(cpus) // _THREADS_PER_SCORER))
        each = spare / scorers
        scorer_pool = Pool(scorers, each, threads=max(1, round(each)))
    return Pools(
        encoders=Pool(encoders, LIGHT_CPUS * shrink),
        retrievers=Pool(retrievers, LIGHT_CPUS * shrink),
        scorers=scorer_pool,
        assemblers=Pool(assemblers, LIGHT_CPUS * shrink),
        callers=Pool(_CALLERS, LIGHT_CPUS * shrink),
    )


def shared(pool: Pool, stages: int) -> Pool:
    """The pool of each of so many stages that have to share one."""
    return replace(
        pool,
        num_cpus=pool.num_cpus / stages,
        num_gpus=pool.num_gpus / stages,
        threads=max(1, pool.threads // stages),
    )


def of_group(pool: Pool, groups: int) -> Pool:
    """The pool of each of so many groups of shards: each does its part of what one pool would."""
    return replace(pool, size=_share(pool.size, groups))


def tasks_at_once(cpus: float) -> int:
    """How many blocks are read, and how many written, at the same time."""
    return max(1, int(cpus) // 4)


def plan_encoding(compute: ComputeConfig, cpus: float, gpus: float) -> Pool:
    """The one heavy pool of the index job."""
    return plan_pools(
        compute.model_copy(
            update={"scorers": compute.encoders, "encoders": "auto", "retrievers": "auto"}
        ),
        cpus,
        gpus,
    ).scorers


def _share(actors: int, groups: int) -> int:
    return math.ceil(actors / groups)


def _size(wanted: PoolSize, auto: int) -> int:
    return auto if wanted == "auto" else wanted
