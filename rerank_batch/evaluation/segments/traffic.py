"""The segments of a finished run, by the traffic in its result files and by columns of the log."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rerank_batch.config import Config
from rerank_batch.evaluation.segments.columns import read_segments
from rerank_batch.evaluation.segments.groupings import Floats
from rerank_batch.evaluation.segments.study import Measured, SegmentStudy, study_segments
from rerank_batch.storage import open_file


class Compared(Measured, Protocol):
    """A comparison whose queries have names: those of the run's result rows, or rejected ids."""

    @property
    def query_ids(self) -> Sequence[str]:
        """[n], the smallest id of each query."""


def segments_of(paths: Sequence[str], config: Config, compared: Compared) -> SegmentStudy:
    """The segments of the judged queries of a finished run, whose result files are ``paths``.

    Raises:
        ConfigError: see `columns.read_segments`.
    """
    names = config.evaluation.segments
    weights, ids = _read_traffic(paths, compared.query_ids if names else ())
    return study_segments(compared, weights, read_segments(config.queries, names, ids))


def _read_traffic(paths: Sequence[str], query_ids: Sequence[str]) -> tuple[Floats, list[list[str]]]:
    """Weights of all queries of the result files, and every log id of those that are named.

    A named query that is not among the results was rejected and gets no ids.
    """
    named = pa.array(query_ids, pa.string())
    weights: list[Floats] = []
    ids: dict[str, list[str]] = {}
    columns = ["query_id", "query_ids", "weight"]
    for path in paths:
        for batch in pq.ParquetFile(open_file(path)).iter_batches(columns=columns):
            weights.append(batch.column("weight").to_numpy())
            rows = batch.filter(pc.is_in(batch.column("query_id"), value_set=named))
            names, listed = (rows.column(name).to_pylist() for name in columns[:2])
            ids |= zip(names, listed, strict=True)
    everything = np.concatenate(weights) if weights else np.empty(0)
    return everything, [ids.get(name, []) for name in query_ids]
