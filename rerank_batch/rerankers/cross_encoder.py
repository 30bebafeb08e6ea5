"""Cross-encoders: one transformer reads query and document together and gives one logit.

Models of a known shape are scored by our own engine: texts are tokenised once per window, pairs
spliced from their ids, packed by token count over the whole window and computed for the token that
the head reads. Any other model that sentence-transformers loads is scored by its own code. Either
way a score is the logit that `CrossEncoder.predict` gives, with the prompt that is stored with the
model; either is held to that on a few pairs whenever a model is loaded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder

from rerank_batch.config import Truncation
from rerank_batch.errors import ModelError
from rerank_batch.rerankers.base import PairScores, ScorerOptions, split
from rerank_batch.scoring.activation import check_activation
from rerank_batch.scoring.device import first_pass, pick_device
from rerank_batch.scoring.engine import NotTheSame, PairEngine, check_engine, plain, probe
from rerank_batch.scoring.library import Library, reads_at_most, set_most
from rerank_batch.scoring.measure_modes import choose
from rerank_batch.scoring.modes import Choice, Mode, modes_for
from rerank_batch.scoring.networks.body import UnknownShape
from rerank_batch.scoring.networks.network import pair_network
from rerank_batch.scoring.packing import TokenBudget
from rerank_batch.scoring.runtimes.base import FloatArray, Unavailable
from rerank_batch.scoring.runtimes.open import open_runtime
from rerank_batch.scoring.stored import default_prompt
from rerank_batch.scoring.tokens import NotSpliceable, PairTokenizer
from rerank_batch.scoring.usable import (
    check_finite,
    check_padding,
    check_positions,
    check_room,
    note,
)
from rerank_batch.scoring.weights import check_modules, weights_of


class CrossEncoderScorer:
    """Scores are raw logits: what `CrossEncoder.predict` gives with the identity activation."""

    def __init__(self, folder: Path, options: ScorerOptions) -> None:
        self.mode = options.mode or self.choose(folder, options).mode
        model = _open(folder, options)
        budget = TokenBudget(options.batch_tokens, model.device.type)
        reference = _truth(folder, model, options)
        try:
            self.runtime: PairEngine | Library = _engine(
                model, reference, options, self.mode, budget
            )
        except (NotSpliceable, UnknownShape, NotTheSame) as error:
            self.runtime = _library(folder, model, reference, options, self.mode, budget)
            note(f"{folder} is scored by sentence-transformers, our engine does not fit: {error}")

    @staticmethod
    def choose(folder: Path, options: ScorerOptions) -> Choice:
        """Measure which mode is the fastest that the options allow."""

        def opened(mode: Mode) -> Any:
            model = _open(folder, options)
            reference = _truth(folder, model, options)
            return _engine(model, reference, options, mode, TokenBudget(None)).runtime

        try:
            modes = modes_for(options.precision, options.allow, options.runtime, pick_device())
            return choose(modes, opened)
        except (NotSpliceable, UnknownShape, NotTheSame) as error:
            if options.runtime == "openvino":
                raise Unavailable(
                    f"{folder} does not run by OpenVINO ({error}): set reranker.runtime: auto"
                ) from None
            # Nothing was measured, so nothing that loses digits is known to pay.
            mode = Mode("torch", "fp32")
            model = _open(folder, options)
            reference = _truth(folder, model, options)
            _library(folder, model, reference, options, mode, TokenBudget(None))
            return Choice(mode, {}, fallback=str(error))

    def score(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> PairScores:
        """See `PairScorer.score`."""
        flat, cut = self.runtime.score(queries, documents)
        return PairScores(split(flat, documents), split(cut, documents))


def _load(folder: Path, options: ScorerOptions) -> Any:
    with weights_of(folder, "a cross-encoder"):
        model: Any = CrossEncoder(
            str(folder),
            device=pick_device(),
            max_length=options.max_length,
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
        )
    check_modules(folder, model)
    if model.num_labels != 1:
        raise ModelError(
            f"{folder} has {model.num_labels} labels; a reranker needs a cross-encoder with one"
        )
    return model.eval()


def _open(folder: Path, options: ScorerOptions) -> Any:
    """The model, with everything about it checked that its files tell.

    Raises:
        ModelError: it does not load, or cannot be used; the message names what to change.
    """
    model = _load(folder, options)
    check_activation(folder, model.activation_fn)
    if options.max_length is not None:
        set_most(model, options.max_length)
    limit = reads_at_most(model)
    check_padding(folder, model.tokenizer)
    check_positions(folder, model.transformers_model, limit)
    # Of a pair that is cut, query and document keep half each, or the query keeps all.
    room = limit // 2 if limit and options.truncation == "longest_first" else limit
    check_room(folder, model.tokenizer, default_prompt(model), room)
    return model


def _truth(folder: Path, model: Any, options: ScorerOptions) -> FloatArray:
    """What the model itself gives for the pairs that its scorer is held to."""
    reference = first_pass(lambda: probe(model), options.threads)
    check_finite(folder, plain(reference), "fp32")
    return reference


def _engine(
    model: Any, reference: FloatArray, options: ScorerOptions, mode: Mode, budget: TokenBudget
) -> PairEngine:
    """The engine for a model, checked."""
    network = pair_network(model.transformers_model)
    runtime = open_runtime(network, mode, model.device.type, options.threads, options.graphs)

    def engine(truncation: Truncation) -> PairEngine:
        tokenizer = PairTokenizer(
            model.tokenizer,
            reads_at_most(model),
            network.position_of_padding,
            truncation,
            default_prompt(model),
        )
        return PairEngine(tokenizer, runtime, budget)

    # The model itself knows one way of cutting, so it is checked in that one.
    as_model = engine("longest_first")
    first_pass(lambda: check_engine(as_model, reference, mode.format), options.threads)
    return as_model if options.truncation == "longest_first" else engine(options.truncation)


def _library(
    folder: Path,
    model: Any,
    reference: FloatArray,
    options: ScorerOptions,
    mode: Mode,
    budget: TokenBudget,
) -> Library:
    """sentence-transformers' own code for a model, held to `predict` as the engine is.

    Raises:
        Unavailable: the options need the engine.
        ModelError: it gives something else.
    """
    for unknown, what, instead in (
        (mode.format == "int8", "int8", "precision: fp32"),
        (options.truncation != "longest_first", options.truncation, "truncation: longest_first"),
    ):
        if unknown:
            raise Unavailable(
                f"{folder} is scored by sentence-transformers, and {what} needs a model that our "
                f"engine knows: set reranker.{instead}"
            )
    library = Library(model.bfloat16() if mode.format == "bf16" else model, budget)
    try:
        first_pass(lambda: check_engine(library, reference, mode.format), options.threads)
    except NotTheSame as error:
        advice = "" if mode.format == "fp32" else ": set reranker.precision: fp32"
        raise ModelError(
            f"{folder} does not score in {mode.format} as by CrossEncoder.predict, {error}{advice}"
        ) from None
    return library
