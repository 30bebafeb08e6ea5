"""Reservations always fit: a job that cannot start on a small machine would wait for ever."""

from itertools import product
from typing import Any

import pytest

from rerank_batch.config import ComputeConfig
from rerank_batch.errors import ComputeError
from rerank_batch.pipeline.pools import (
    LIGHT_CPUS,
    Pool,
    of_group,
    plan_encoding,
    plan_pools,
    shared,
)

CPUS = (1, 1.5, 2, 4, 8, 64)
GPUS = (0, 1, 2)
SIZES: tuple[Any, ...] = ("auto", 1, 3, 16)

READ_AND_WRITE = 2 * LIGHT_CPUS
"""What the pipeline's reading and writing tasks reserve, unscaled."""

ROUNDING = 1e-4
"""Ray counts in ten-thousandths of a CPU."""


def cpus_of(*pools: Pool) -> float:
    return sum(pool.size * pool.num_cpus for pool in pools)


@pytest.mark.parametrize(("cpus", "gpus", "scorers"), product(CPUS, GPUS, SIZES))
def test_all_pools_fit_together_with_reading_and_writing(
    cpus: float, gpus: int, scorers: Any
) -> None:
    pools = plan_pools(ComputeConfig(scorers=scorers), cpus, gpus)
    all_pools = (pools.encoders, pools.retrievers, pools.scorers, pools.assemblers, pools.callers)
    assert cpus_of(*all_pools) + READ_AND_WRITE <= cpus + ROUNDING
    assert all(pool.num_cpus > 0 and pool.size >= 1 and pool.threads >= 1 for pool in all_pools)


@pytest.mark.parametrize(("cpus", "light"), product(CPUS, (3, 16)))
def test_many_encoders_and_retrievers_fit_as_well(cpus: float, light: int) -> None:
    pools = plan_pools(ComputeConfig(encoders=light, retrievers=light), cpus, 0)
    all_pools = (pools.encoders, pools.retrievers, pools.scorers, pools.assemblers, pools.callers)
    assert cpus_of(*all_pools) + READ_AND_WRITE <= cpus + ROUNDING
    assert all(pool.num_cpus > 0 for pool in all_pools)


@pytest.mark.parametrize(("cpus", "gpus", "encoders"), product(CPUS, GPUS, SIZES))
def test_the_index_job_fits_too(cpus: float, gpus: int, encoders: Any) -> None:
    pool = plan_encoding(ComputeConfig(encoders=encoders), cpus, gpus)
    assert cpus_of(pool) + READ_AND_WRITE <= cpus + ROUNDING
    assert encoders in ("auto", pool.size)


@pytest.mark.parametrize(("gpus", "scorers"), product((1, 2, 4), ("auto", 1, 2, 3, 5, 16)))
def test_every_scorer_finds_room_on_one_gpu(gpus: int, scorers: Any) -> None:
    """An actor's share lies on a single GPU: two thirds fit once on each of two, not thrice."""
    pool = plan_pools(ComputeConfig(scorers=scorers), 16, gpus).scorers
    assert 0 < pool.num_gpus <= 1
    per_gpu = int((1 + ROUNDING) / pool.num_gpus)
    assert per_gpu * gpus >= pool.size


def test_sizes_that_were_asked_for_are_kept() -> None:
    pools = plan_pools(ComputeConfig(encoders=2, retrievers=3, scorers=5), 8, 0)
    assert (pools.encoders.size, pools.retrievers.size, pools.scorers.size) == (2, 3, 5)


@pytest.mark.parametrize(("cpus", "gpus", "size"), [(1, 0, 1), (2, 0, 1), (64, 0, 32), (8, 2, 2)])
def test_auto_is_a_scorer_for_two_cores_or_one_for_each_gpu(
    cpus: int, gpus: int, size: int
) -> None:
    scorers = plan_pools(ComputeConfig(), cpus, gpus).scorers
    assert scorers.size == size
    assert scorers.num_gpus == (1 if gpus else 0)


@pytest.mark.parametrize("cpus", [2, 4, 8, 64])
def test_scoring_gets_nearly_all_cores(cpus: int) -> None:
    scorers = plan_pools(ComputeConfig(), cpus, 0).scorers
    assert cpus_of(scorers) >= 0.75 * cpus
    assert scorers.size * scorers.threads == cpus


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_stages_that_share_a_pool_take_no_more_than_it_has(stages: int) -> None:
    """A cascade with a service in its middle scores here before it and after it."""
    pool = plan_pools(ComputeConfig(), 8, 2).scorers
    each = shared(pool, stages)
    assert cpus_of(*[each] * stages) == pytest.approx(cpus_of(pool))
    assert each.num_gpus * stages == pytest.approx(pool.num_gpus)
    assert each.threads >= 1


def test_less_than_a_cpu_is_refused() -> None:
    with pytest.raises(ComputeError, match=r"0\.5 CPUs"):
        plan_pools(ComputeConfig(), 0.5, 0)


@pytest.mark.parametrize(("cpus", "retrievers"), product(CPUS, SIZES))
@pytest.mark.parametrize("searches", [(5,), (100,), (3, 1, 7)])
def test_the_actors_of_many_groups_fit_as_well(
    cpus: float, retrievers: Any, searches: tuple[int, ...]
) -> None:
    """Groups of one search share what it has; none is without an actor."""
    pools = plan_pools(ComputeConfig(retrievers=retrievers), cpus, 0, searches)
    groups = [of_group(pools.retrievers, count) for count in searches for _ in range(count)]
    others = (pools.encoders, pools.scorers, pools.assemblers, pools.callers)
    assert cpus_of(*groups, *others) + READ_AND_WRITE <= cpus + ROUNDING
    assert all(pool.size >= 1 and pool.num_cpus >= 1e-4 for pool in groups)
    for count in searches:
        size = of_group(pools.retrievers, count).size
        assert (size - 1) * count < pools.retrievers.size <= size * count
