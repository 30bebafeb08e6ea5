"""How the parts of the judged queries fare: by length, by frequency, by columns of the log."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rerank_batch.config import Config
from rerank_batch.evaluation.segments.columns import check_segments, read_segments
from rerank_batch.evaluation.segments.study import (
    Floats,
    Measured,
    Segment,
    SegmentStudy,
    study_segments,
)
from rerank_batch.remarks import Remark
from rerank_batch.runs import Run
from rerank_batch.storage import open_file


class Compared(Measured, Protocol):
    """A comparison whose queries have names: those of the run's result rows, or rejected ids."""

    @property
    def query_ids(self) -> Sequence[str]:
        """[n], the smallest id of each query."""


def check(config: Config) -> tuple[Remark, ...]:
    """See that the log has the columns of ``evaluation.segments``, before anything is run; what
    looks wrong about them.

    Raises:
        ConfigError: it has none, or others.
    """
    return check_segments(config.queries, config.evaluation.segments)


def segments_of(run: Run, config: Config, compared: Compared) -> SegmentStudy:
    """The segments of a finished run's judged queries; see `check` for what is raised."""
    asked = config.evaluation.segments
    weights, ids = _traffic(run.results_paths(), compared.query_ids if asked else ())
    columns = read_segments(config.queries, asked, ids)
    return study_segments(compared, weights, columns)


def segment_summary(study: SegmentStudy) -> dict[str, Any]:
    """The study as JSON values."""
    return {
        "headline": study.headline,
        "systems": list(study.systems),
        "best": study.best,
        "fewest_for_interval": study.fewest,
        "overall": _as_json(study.overall),
        "groups": [
            {
                "name": group.name,
                "definition": group.definition,
                "segments": [_as_json(segment) for segment in group.segments],
            }
            for group in study.groups
        ],
    }


def _as_json(segment: Segment) -> dict[str, Any]:
    gains = {system: vars(gain) for system, gain in segment.gains.items()}
    return {**vars(segment), "gains": gains}


def _traffic(paths: Sequence[str], query_ids: Sequence[str]) -> tuple[Floats, list[list[str]]]:
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
            found = batch.filter(pc.is_in(batch.column("query_id"), value_set=named))
            names, listed = (found.column(name).to_pylist() for name in columns[:2])
            ids |= zip(names, listed, strict=True)
    everything = np.concatenate(weights) if weights else np.empty(0)
    return everything, [ids.get(name, []) for name in query_ids]
