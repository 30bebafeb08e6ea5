"""Cross-encoders: one transformer reads query and document together and gives one logit.

Models of a known shape are scored by our own engine: texts are tokenised once per window, pairs
spliced from their ids, packed by token count over the whole window and computed for the token that
the head reads. Any other model that sentence-transformers loads is scored by its own code. Either
way a score is the logit that `CrossEncoder.predict` gives; the engine is held to that on a few
pairs whenever a model is loaded.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder

from rerank_batch.config import Truncation
from rerank_batch.errors import ModelError
from rerank_batch.rerankers.base import PairScores, ScorerOptions, split
from rerank_batch.scoring.choice import choose
from rerank_batch.scoring.device import first_pass, pick_device
from rerank_batch.scoring.engine import NotTheSame, PairEngine, check_engine, probe
from rerank_batch.scoring.library import Library
from rerank_batch.scoring.loading import loading
from rerank_batch.scoring.modes import Choice, Mode, modes_for
from rerank_batch.scoring.network import UnknownShape, pair_network
from rerank_batch.scoring.packing import TokenBudget
from rerank_batch.scoring.runtime import Unavailable, open_runtime
from rerank_batch.scoring.tokens import NotSpliceable, PairTokenizer

logger = logging.getLogger(__name__)


class CrossEncoderScorer:
    """Scores are raw logits: what `CrossEncoder.predict` gives with the identity activation."""

    def __init__(self, folder: Path, options: ScorerOptions) -> None:
        self.mode = options.mode or self.choose(folder, options).mode
        model = _load(folder, options)
        budget = TokenBudget(options.batch_tokens, model.device.type)
        try:
            self.runtime: PairEngine | Library = _engine(model, options, self.mode, budget)
        except (NotSpliceable, UnknownShape, NotTheSame) as error:
            logger.warning(
                "%s is scored by sentence-transformers, our engine does not fit: %s", folder, error
            )
            self.runtime = _library(model, options, self.mode, budget)

    @staticmethod
    def choose(folder: Path, options: ScorerOptions) -> Choice:
        """Measure which mode is the fastest that the options allow."""

        def opened(mode: Mode) -> Any:
            return _engine(_load(folder, options), options, mode, TokenBudget(None)).runtime

        try:
            modes = modes_for(options.precision, options.allow, options.runtime, pick_device())
            return choose(modes, opened)
        except (NotSpliceable, UnknownShape, NotTheSame):
            # Nothing was measured, so nothing that loses digits is known to pay.
            return Choice(Mode("torch", "fp32"), {})

    def score(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> PairScores:
        """See `PairScorer.score`."""
        flat, cut = self.runtime.score(queries, documents)
        return PairScores(split(flat, documents), split(cut, documents))


def _load(folder: Path, options: ScorerOptions) -> Any:
    with loading(folder, "a cross-encoder"):
        model: Any = CrossEncoder(
            str(folder),
            device=pick_device(),
            max_length=options.max_length,
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
        )
    if model.num_labels != 1:
        raise ModelError(
            f"{folder} has {model.num_labels} labels; a reranker needs a cross-encoder with one"
        )
    return model.eval()


def _engine(model: Any, options: ScorerOptions, mode: Mode, budget: TokenBudget) -> PairEngine:
    """The engine for a model, checked."""
    theirs = first_pass(lambda: probe(model), options.threads)
    network = pair_network(model.transformers_model)
    runtime = open_runtime(network, mode, model.device.type, options.threads, options.graphs)

    def engine(truncation: Truncation) -> PairEngine:
        tokenizer = PairTokenizer(
            model.tokenizer, model.max_seq_length, network.position_of_padding, truncation
        )
        return PairEngine(tokenizer, runtime, budget)

    # The model itself knows one way of cutting, so it is checked in that one.
    as_model = engine("longest_first")
    first_pass(lambda: check_engine(as_model, theirs, mode.format), options.threads)
    return as_model if options.truncation == "longest_first" else engine(options.truncation)


def _library(model: Any, options: ScorerOptions, mode: Mode, budget: TokenBudget) -> Library:
    if mode.format == "int8" or options.truncation != "longest_first":
        raise Unavailable(
            f"{mode.format} and truncation: {options.truncation} need a model that our engine knows"
        )
    library = Library(model.bfloat16() if mode.format == "bf16" else model, budget)
    first_pass(lambda: library.score(["a"], [["b"]]), options.threads)
    return library
