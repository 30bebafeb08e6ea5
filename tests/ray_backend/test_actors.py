"""What an actor does around its stages."""

import json

import pyarrow as pa
import pytest

from rerank_batch.pipeline.pools import Pool
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.ray_backend.actors import StageActor
from rerank_batch.ray_backend.carried import Carried
from rerank_batch.tally import count, drain
from tests.ray_backend.test_execution import AddOne, spec


def test_an_actor_times_its_stage_and_passes_earlier_times_on():
    actor = StageActor([spec(Pool(1, 1, threads=7))], [{"column": "y"}])
    before = {"seconds": {"encode": 0.5}, "counts": {"halved": 2}, "sums": {}, "scores": []}
    given = json.dumps([before])
    out = actor(pa.table({"x": [1, 2], "side": pa.array([given, None], pa.string())}))
    assert out.column("y").to_pylist() == [7, 7]
    assert out.column_names == ["x", "y", "side"]
    first, second = out.column("side").to_pylist()
    passed_on, told = json.loads(first)
    assert passed_on == before
    assert 0 < told["seconds"]["rerank"] < 10
    assert second is None, "what travels beside a block would be counted twice"


def test_an_actor_hands_on_what_happened_once():
    drain()
    actor = StageActor([spec(Pool(1, 1))], [{"column": "y"}])
    count("a batch was tried again")
    first, second = (
        json.loads(actor(pa.table({"x": [1, 2]})).column("side")[0].as_py()) for _ in range(2)
    )
    assert first[0]["counts"] == {"a batch was tried again": 1}
    assert second[0]["counts"] == {}


def test_an_actor_isolates_the_query_that_fails():
    class Fails:
        def __init__(self, threads=1):
            pass

        def __call__(self, table):
            if 5 in table.column("qidx").to_pylist():
                raise ValueError("query 5")
            return table

    output = pa.schema([("qidx", pa.int64()), ("reject", pa.string())])
    drain()
    actor = StageActor([StageSpec("rerank", Fails, {}, Pool(1, 1), output)], [{}])
    out = actor(pa.table({"qidx": [4, 5, 6], "reject": pa.nulls(3, pa.string())}))
    assert out.column("reject").to_pylist() == [None, "rerank_failed:ValueError", None]
    (told,) = json.loads(out.column("side")[0].as_py())
    assert told["counts"] == {"batch of rerank tried again after ValueError": 1}


def test_a_stage_that_loses_rows_or_columns_is_caught_at_its_edge():
    class LoseARow(AddOne):
        def __call__(self, table):
            return super().__call__(table).slice(1)

    losing = StageSpec("rerank", LoseARow, {}, Pool(1, 1), pa.schema([("x", pa.int64())]))
    with pytest.raises(Carried, match="RerankBatchError: stage rerank made 1 rows of 2"):
        StageActor([losing], [{"column": "y"}])(pa.table({"x": [1, 2]}))
    wrong = spec(Pool(1, 1), pa.schema([("x", pa.int64()), ("z", pa.int64())]))
    with pytest.raises(Carried, match="RerankBatchError: stage rerank: no column 'z'"):
        StageActor([wrong], [{"column": "y"}])(pa.table({"x": [1, 2]}))
