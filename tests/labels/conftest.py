"""A made-up run to mine, and the job in this process: Ray is replaced by a plain loop."""

import pytest

from rerank_batch import schema
from rerank_batch.benchmarks.synthetic_runs import write_run
from rerank_batch.config import Config, LabelsConfig
from rerank_batch.pipeline.pools import Pool
from rerank_batch.pipeline.resources import Cluster
from rerank_batch.runs import read_block
from rerank_batch.runs.commit import BlockDone, commit_block
from rerank_batch.workflows import execute
from rerank_batch.workflows import make_labels as job
from tests.services.conftest import environment, serve

__all__ = ["environment", "serve"]

QUERIES = 60


@pytest.fixture
def made_up(tmp_path) -> Config:
    """60 queries of 12 candidates over 300 documents, in files of 20."""
    config = write_run(tmp_path, 300, QUERIES, 12, block_rows=20)
    labels = LabelsConfig(formats=("pairs", "margin-mse"), license="cc-by-4.0")
    compute = config.compute.model_copy(update={"block_rows": 12})
    return config.model_copy(update={"labels": labels, "compute": compute})


@pytest.fixture
def plain_loop(monkeypatch):
    """What the cluster does, block by block; says which blocks it did."""
    done: list[int] = []

    class Local:
        def __init__(self, *_):
            pass

        def __enter__(self):
            return Cluster(1, 0)

        def __exit__(self, *_):
            pass

    def run_queries(blocks, stages, writer, keep_texts, plan, sums):
        (spec,) = stages
        assert isinstance(spec.pool, Pool)
        stage = spec.stage(**spec.kwargs)
        for number in blocks:
            table = stage(read_block(writer.root, writer.run_id, number, plan))
            table = schema.check(table, spec.output, "mine")
            notes = ["[]", *[None] * (table.num_rows - 1)]
            side = table.append_column(schema.SIDE, [notes])
            (row,) = commit_block(side, writer, keep_texts, sums).to_pylist()
            done.append(number)
            yield BlockDone(row["queries"], row["rejected_rows"])

    monkeypatch.setattr(execute, "cluster", Local)
    monkeypatch.setattr(job, "run_queries", run_queries)
    return done
