"""Which stages share an actor, and that sharing one changes nothing of what they do."""

import json

import pyarrow as pa
import pytest
import torch

from rerank_batch import schema
from rerank_batch.config import ComputeConfig
from rerank_batch.pipeline.actors import by_actor, share_actors
from rerank_batch.pipeline.pools import Pool, plan_pools
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.ray_backend.actors import StageActor
from rerank_batch.ray_backend.execution import map_stages
from rerank_batch.tally import drain
from tests.ray_backend.test_execution import AddOne, Recorder


def stage(name, pool, alone=False):
    columns = ("x", "encode", "retrieve", "rerank", "assemble")
    output = pa.schema([(c, pa.int64()) for c in columns[: columns.index(name) + 1]])
    return StageSpec(name, AddOne, {"column": name}, pool, output, alone=alone)


def job(cpus, gpus=0, *, paid=False, **compute):
    pools = plan_pools(ComputeConfig(**compute), cpus, gpus)
    return [
        stage("encode", pools.encoders),
        stage("retrieve", pools.retrievers),
        stage("rerank", pools.callers if paid else pools.scorers, alone=paid),
        stage("assemble", pools.assemblers),
    ]


def names(stages):
    return [[each.name for each in actors] for actors in by_actor(stages)]


@pytest.mark.parametrize("cpus", [1, 2, 3])
def test_on_a_small_machine_one_process_does_a_whole_block(cpus):
    planned = job(cpus)
    stages = share_actors(planned, cpus, 0)
    assert names(stages) == [["encode", "retrieve", "rerank", "assemble"]]
    host = planned[2].pool
    assert {each.pool.num_cpus for each in stages} == {host.num_cpus}, "what scoring reserves"
    assert [s.pool.threads for s in stages] == [s.pool.threads for s in planned], "and no other"
    asked = map_stages(Recorder(), stages)
    assert asked.function.__name__ == "rerank"
    assert asked.arguments["num_cpus"] == planned[2].pool.num_cpus


def test_stages_that_share_a_process_compute_with_their_own_threads():
    """torch has one number of threads for all of them, and its last digits depend on it."""
    output = pa.schema([("threads", pa.int64())])
    specs = [
        StageSpec(name, Threads, {}, Pool(1, 2.0, threads=threads), output)
        for name, threads in (("encode", 1), ("rerank", 2))
    ]
    actor = StageActor(specs, [{}, {}])
    assert actor(pa.table({"threads": [0]})).column("threads").to_pylist() == [12]


class Threads:
    """Appends torch's number of threads to what other stages had, as another digit."""

    def __init__(self, threads):
        assert threads in (1, 2)

    def __call__(self, table):
        digits = [10 * each + torch.get_num_threads() for each in table["threads"].to_pylist()]
        return pa.table({"threads": digits})


def test_two_scorers_do_their_own_encoding():
    stages = share_actors(job(2, scorers=2), 2, 0)
    assert names(stages) == [["encode", "retrieve", "rerank", "assemble"]]
    assert {each.pool.size for each in stages} == {2}


@pytest.mark.parametrize(("cpus", "gpus"), [(4, 0), (64, 0), (2, 1)])
def test_where_there_is_room_or_a_gpu_every_stage_has_actors_of_its_own(cpus, gpus):
    planned = job(cpus, gpus)
    assert share_actors(planned, cpus, gpus) == planned
    assert names(planned) == [["encode"], ["retrieve"], ["rerank"], ["assemble"]]


def test_who_calls_a_service_stays_alone_and_so_does_a_pool_of_another_size():
    stages = share_actors(job(2, paid=True), 2, 0)
    assert names(stages) == [["encode", "retrieve"], ["rerank"], ["assemble"]]
    stages = share_actors(job(2, retrievers=2), 2, 0)
    assert names(stages) == [["encode"], ["retrieve"], ["rerank", "assemble"]]


def test_a_shared_actor_gives_what_actors_of_their_own_give_and_times_each_stage():
    drain()
    stages = share_actors(job(2), 2, 0)
    kwargs = [dict(each.kwargs) for each in stages]
    given = pa.table({"x": [1, 2], schema.SIDE: pa.nulls(2, pa.string())})
    together = StageActor(stages, kwargs)(given)
    alone = given
    for each, arguments in zip(stages, kwargs, strict=True):
        alone = StageActor([each], [arguments])(alone)
    assert together.drop_columns([schema.SIDE]).equals(alone.drop_columns([schema.SIDE]))
    notes = json.loads(together.column(schema.SIDE)[0].as_py())
    assert [list(note["seconds"]) for note in notes] == [[each.name] for each in stages]
