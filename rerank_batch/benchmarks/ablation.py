"""What each technique of the scoring engine is worth: all of them, and all but one."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder
from torch import Tensor, nn

from rerank_batch.benchmarks.scoring_speed import System, Workload, plain_predict, timed_system
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.rerankers.cross_encoder import CrossEncoderScorer
from rerank_batch.scoring.device import pick_device
from rerank_batch.scoring.engine import PairEngine, Window
from rerank_batch.scoring.library import Library
from rerank_batch.scoring.modes import Mode
from rerank_batch.scoring.networks.layout import BatchLayout
from rerank_batch.scoring.networks.network import pair_network
from rerank_batch.scoring.packing import TokenBudget
from rerank_batch.scoring.runtimes.base import Unavailable
from rerank_batch.scoring.runtimes.open import open_runtime

ALL = "all techniques"


def systems(folder: Path, work: Workload, mode: Mode, threads: int) -> dict[str, System]:
    """The engine in that mode, then without each technique, alone; `predict` last.

    Raises:
        Unavailable: there is no such mode here, or the engine does not know the model.
    """
    engine = _engine(folder, mode, threads)
    tokenizer, runtime = engine.tokenizer, engine.runtime
    found = {
        ALL: _scores(engine, work),
        "last layer for every token": _scores(
            _whole_last_layer(folder, engine, mode, threads), work
        ),
        "windows of one query": _scores(engine, work, one_by_one=True),
        "one pair a batch": _scores(PairEngine(tokenizer, runtime, TokenBudget(1)), work),
        "texts tokenised for every pair": _scores(
            _EveryPair(tokenizer, runtime, engine.budget), work
        ),
    }
    if mode.runtime != "torch":
        in_torch = _engine(folder, Mode("torch", mode.format), threads)
        found[f"torch instead of {mode.runtime}"] = _scores(in_torch, work)
    return {**found, "predict(32, float32)": plain_predict(folder, work, threads)}


def _engine(folder: Path, mode: Mode, threads: int) -> PairEngine:
    engine = CrossEncoderScorer(folder, ScorerOptions(mode=mode, threads=threads)).runtime
    if isinstance(engine, Library):
        raise Unavailable(f"the engine does not run {folder} in {mode}")
    return engine


def _whole_last_layer(folder: Path, engine: PairEngine, mode: Mode, threads: int) -> PairEngine:
    model = CrossEncoder(str(folder), device=pick_device(), model_kwargs={"dtype": torch.float32})
    network = pair_network(model.transformers_model.eval())
    network.layers.append(_FirstOnly())
    runtime = open_runtime(network, mode, pick_device(), threads)
    return PairEngine(engine.tokenizer, runtime, engine.budget)


class _FirstOnly(nn.Module):
    """Stands behind the last layer, which is then one like the others."""

    window = None

    def forward(self, hidden: Tensor, layout: BatchLayout, first: bool) -> Tensor:
        return layout.first(hidden) if first else hidden


class _EveryPair(PairEngine):
    """Tokenises both texts of every pair, as a tokenizer that is handed pairs does."""

    def window(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> Window:
        asked = [q for q, listed in zip(queries, documents, strict=True) for _ in listed]
        read = [text for listed in documents for text in listed]
        number = np.arange(len(asked), dtype=np.int64)
        tokens = (self.tokenizer.tokenize_queries(asked), self.tokenizer.tokenize(read))
        return Window(self.tokenizer.rows(*tokens, number, number), number)


def _scores(engine: PairEngine, work: Workload, one_by_one: bool = False) -> System:
    def whole() -> NDArray[np.float32]:
        return engine.score(work.queries, work.documents)[0]

    def each() -> NDArray[np.float32]:
        parts = zip(work.queries, work.documents, strict=True)
        return np.concatenate([engine.score([query], [listed])[0] for query, listed in parts])

    run: Callable[[], NDArray[np.float32]] = each if one_by_one else whole
    return timed_system(run)
