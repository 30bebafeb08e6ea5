"""How an encoder runs, as data: imports no model library."""

from dataclasses import dataclass

from rerank_batch.config import Precision
from rerank_batch.scoring.modes import Graphs, Mode


@dataclass(frozen=True)
class EncoderOptions:
    """How an encoder runs; as in `rerankers.base.ScorerOptions`."""

    max_length: int | None = None
    precision: Precision = "fp32"
    runtime: str = "auto"
    threads: int = 1
    mode: Mode | None = None
    graphs: Graphs | None = None
