"""Which stages share an actor: on a small machine nearly all of them do.

Every actor is a process that loads its libraries, holds them in memory and wakes up a hundred times
a second to look for work. On two cores, where scoring takes both, that costs more than it gains:
encoding and searching a block beside scoring another one needs a core that is free.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from rerank_batch.pipeline.stage import StageSpec

MANY_CPUS = 4
"""From so many CPUs on every stage has actors of its own."""


def share_actors(stages: Sequence[StageSpec], cpus: float, gpus: float) -> list[StageSpec]:
    """The same stages; on a small machine, neighbours that may share actors have them in common.

    They are those of the stage that reserves most, and are named after it; each keeps its number of
    threads. GPUs are not kept waiting: where there is one, nothing is shared.
    """
    willing = [stage for stage in stages if not stage.alone]
    if cpus >= MANY_CPUS or gpus or not willing:
        return list(stages)
    heaviest = max(willing, key=_reserved)

    def may_share(stage: StageSpec) -> bool:
        return not stage.alone and stage.pool.size in (1, heaviest.pool.size)

    placed: list[StageSpec] = []
    for share, neighbours in groupby(stages, may_share):
        listed = list(neighbours)
        if share and len(listed) > 1:
            host = max(listed, key=_reserved)
            listed = [_hosted(stage, host) for stage in listed]
        placed += listed
    return placed


def _hosted(stage: StageSpec, host: StageSpec) -> StageSpec:
    """With its own number of threads: torch's last digits depend on it, and no result on where a
    stage runs."""
    pool = replace(host.pool, threads=stage.pool.threads)
    return replace(stage, pool=pool, actor=host.name)


def _reserved(stage: StageSpec) -> float:
    return stage.pool.num_cpus


def by_actor(stages: Sequence[StageSpec]) -> list[tuple[StageSpec, ...]]:
    """Neighbours that share actors, together."""
    return [tuple(each) for _, each in groupby(stages, lambda stage: stage.actor or stage.name)]


def use_threads(threads: int) -> None:
    """Torch has one number of threads for a process, and stages that share it have one each."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
