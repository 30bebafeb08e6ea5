"""Every error of ours comes out of tasks, actors and their constructors as it was raised."""

import os
import time
import traceback
from functools import partial
from unittest import mock

import pyarrow as pa
import pytest

from rerank_batch.config import ComputeConfig
from rerank_batch.errors import ComputeError
from rerank_batch.pipeline.pools import Pool
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.ray_backend.actors import StageActor
from rerank_batch.ray_backend.carried import unpacked
from rerank_batch.ray_backend.cluster import cluster
from rerank_batch.ray_backend.datasources import read_blocks
from rerank_batch.ray_backend.errors import clear_errors
from rerank_batch.ray_backend.execution import map_blocks, map_files, map_stages
from rerank_batch.ray_backend.nodes import on_every_node, on_worker
from rerank_batch.services.client import Declined
from tests.ray_backend.test_carried import MESSAGE, all_errors

TWO_DOCUMENTS = partial(pa.table, {"document": [0, 1]})
NUMBERS = pa.schema([("document", pa.int64())])


@pytest.fixture(scope="module")
def ray_here():
    # Ray sets RAY_AUTH_MODE in the process that starts it, and a later cluster would ask its
    # drivers for a token.
    with mock.patch.dict(os.environ), cluster(ComputeConfig(cpus=2, object_store_mb=80)):
        yield


def fail(kind, *_):
    raise kind(MESSAGE)


class Fails:
    """A stage that fails while it is made, or at its first call."""

    def __init__(self, kind, at_once, threads=1):
        self.kind = kind
        if at_once:
            fail(kind)

    def __call__(self, table):
        return fail(self.kind)


def what_actors_raise(kinds):
    """Actors like those of a job, made and called in the process of a worker: what they raise."""
    texts = []
    for kind in kinds:
        for at_once in (True, False):
            kwargs = {"kind": kind, "at_once": at_once}
            actor = StageActor([StageSpec("rerank", Fails, kwargs, Pool(1, 1), NUMBERS)], [kwargs])
            try:
                actor(pa.table({"document": [1]}))
            except Exception:
                texts.append(traceback.format_exc())
    return texts


def through_an_actor(kind):
    stage = StageSpec("rerank", Fails, {"kind": kind, "at_once": True}, Pool(1, 1), NUMBERS)
    with clear_errors():
        map_stages(read_blocks([TWO_DOCUMENTS]), [stage]).take_all()


def through_a_commit(kind):
    with clear_errors():
        list(map_blocks(read_blocks([TWO_DOCUMENTS]), partial(fail, kind)))


def through_a_read(kind):
    with clear_errors():
        read_blocks([partial(fail, kind)]).take_all()


def through_a_file(kind):
    list(map_files(["a"], partial(fail, kind)))


def test_every_class_comes_out_of_a_task(ray_here):
    for kind in all_errors():
        with pytest.raises(kind) as error:
            on_worker(fail, Pool(1, 1), kind)
        assert type(error.value) is kind
        assert str(error.value) == MESSAGE
        assert error.value.exit_code == kind.exit_code


def test_every_class_comes_out_of_actors_and_their_constructors(ray_here):
    kinds = all_errors()
    texts = on_worker(what_actors_raise, Pool(1, 1), kinds)
    found = [unpacked(text) for text in texts]
    assert [type(error) for error in found] == [kind for kind in kinds for _ in range(2)]
    assert {str(error) for error in found} == {MESSAGE}


@pytest.mark.parametrize(
    "send",
    [
        through_an_actor,
        through_a_commit,
        through_a_read,
        through_a_file,
        partial(on_every_node, fail),
    ],
    ids=["constructor", "commit", "read", "file", "node"],
)
def test_an_error_comes_out_of_every_way_there_is_at_once_and_in_silence(ray_here, send, capfd):
    began = time.monotonic()
    with pytest.raises(Declined) as error:
        send(Declined)
    assert (type(error.value), str(error.value)) == (Declined, MESSAGE)
    assert time.monotonic() - began < 60
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err


def test_a_library_s_error_is_named_with_a_next_step(ray_here, capfd):
    with pytest.raises(ComputeError, match="ValueError: tei at") as error:
        through_an_actor(ValueError)
    assert "Run again with -v" in str(error.value)
    assert "DataContext" not in str(error.value)
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err
