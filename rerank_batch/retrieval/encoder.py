"""The bi-encoder: texts to unit vectors. Knows sentence-transformers, not FAISS and not Ray.

Models of a known shape run by our own engine, packed by token count in the fastest mode that is
allowed; any other that sentence-transformers loads is run by its own code.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rerank_batch.retrieval.options import EncoderOptions
from rerank_batch.scoring.bi_encoder import load_bi_encoder, text_engine, unit
from rerank_batch.scoring.device import first_pass, pick_device
from rerank_batch.scoring.engine import NotTheSame, TextEngine, check_same
from rerank_batch.scoring.measure_modes import choose
from rerank_batch.scoring.modes import Choice, Mode, modes_for
from rerank_batch.scoring.networks.body import Read, UnknownShape
from rerank_batch.scoring.packing import TokenBudget
from rerank_batch.scoring.runtimes.base import Unavailable
from rerank_batch.scoring.stored import task_prompt
from rerank_batch.scoring.tokens import NotSpliceable
from rerank_batch.scoring.usable import (
    check_finite,
    check_padding,
    check_positions,
    check_room,
    note,
    using,
)

_SECTION = "index"
_TASKS = ("query", "document")
_PROBES = ("what is it?", "Ünïcode, 東京 and\ttabs ", "word " * 700, "a few words", "")
_PLAIN = 4
"""So many of them are not empty."""

_READS: dict[str, Read] = {"mean": "mean", "cls": "first"}


class Encoder:
    """Encodes queries and documents with their own prompts, where the model defines any.

    Vectors are float32 of length 1, so that the inner product is the cosine.
    """

    def __init__(self, folder: Path, options: EncoderOptions | None = None) -> None:
        options = options or EncoderOptions()
        self.mode = options.mode or self.choose(folder, options).mode
        self._encode: Callable[[Sequence[str], str], NDArray[np.float32]]
        with using(folder, _SECTION):
            model = _open(folder, options)
            truth = _truth(folder, model, options)
            try:
                self._encode = _engine(model, truth, options, self.mode)
            except (NotSpliceable, UnknownShape, NotTheSame) as error:
                self._encode = _Library(model, options.threads)
                note(f"{folder} is run by sentence-transformers: {error}")
            _note_similarity(folder, model)

    @staticmethod
    def choose(folder: Path, options: EncoderOptions) -> Choice:
        """Measure which mode is the fastest that the options allow."""

        def opened(mode: Mode) -> Any:
            model = _open(folder, options)
            return _engine(model, _truth(folder, model, options), options, mode).engine.runtime

        with using(folder, _SECTION):
            try:
                modes = modes_for(options.precision, (), options.runtime, pick_device())
                return choose(modes, opened)
            except (NotSpliceable, UnknownShape, NotTheSame) as error:
                if options.runtime == "openvino":
                    raise Unavailable(
                        f"{folder} does not run by OpenVINO ({error}): set {_SECTION}.runtime: auto"
                    ) from None
                return Choice(Mode("torch", "fp32"), {}, fallback=str(error))

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries, float32 [n, dimension]."""
        return unit(self._encode(texts, "query"))

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents, float32 [n, dimension]."""
        return unit(self._encode(texts, "document"))


@dataclass(frozen=True)
class _Engine:
    engine: TextEngine
    prompts: dict[str, str]
    dimension: int

    def __call__(self, texts: Sequence[str], task: str) -> NDArray[np.float32]:
        prompt = self.prompts[task]
        return self.engine.vectors([prompt + text for text in texts], self.dimension)


_Truth = dict[str, NDArray[np.float32]]
"""What a model itself gives for a few texts, as queries and as documents."""


class _Library:
    """sentence-transformers in our micro-batches; its own are sorted by characters."""

    def __init__(self, model: Any, threads: int) -> None:
        self._model = model
        self._dimension = _dimension(model)
        self._budget = TokenBudget(None, model.device.type)
        self._prompts = {task: task_prompt(model, task) for task in _TASKS}
        first_pass(lambda: self(["a"], "document"), threads)

    def __call__(self, texts: Sequence[str], task: str) -> NDArray[np.float32]:
        vectors = np.empty((len(texts), self._dimension), dtype=np.float32)

        def forward(which: NDArray[np.int64]) -> None:
            vectors[which] = _by_model(self._model, [texts[position] for position in which], task)

        self._budget.each(self._lengths([self._prompts[task] + t for t in texts]), forward)
        return vectors

    def _lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        if not texts:
            return np.zeros(0, dtype=np.int64)
        ids = self._model.tokenizer(list(texts), return_attention_mask=False, verbose=False)
        lengths = np.array([len(row) for row in ids["input_ids"]], dtype=np.int64)
        return np.minimum(lengths, self._model.max_seq_length or self._budget.tokens)


def _open(folder: Path, options: EncoderOptions) -> Any:
    """The model, with everything about it checked that its files tell.

    Raises:
        ModelError: it does not load, or cannot be used; the message names what to change.
    """
    model = load_bi_encoder(folder, options.max_length)
    check_padding(folder, model.tokenizer)
    check_positions(folder, model.transformers_model, model.max_seq_length, _SECTION)
    for task in _TASKS:
        prompt = task_prompt(model, task)
        check_room(folder, model.tokenizer, prompt, model.max_seq_length, _SECTION)
    return model


def _truth(folder: Path, model: Any, options: EncoderOptions) -> _Truth:
    """What the model itself gives for the texts that the engine is held to."""
    truth = {
        task: first_pass(lambda task=task: _by_model(model, _PROBES, task), options.threads)  # type: ignore[misc]
        for task in _TASKS
    }
    for vectors in truth.values():
        check_finite(folder, vectors[:_PLAIN], "fp32", _SECTION)
    return truth


def _engine(model: Any, truth: _Truth, options: EncoderOptions, mode: Mode) -> _Engine:
    """The engine for a model, checked against it with its prompts for queries and documents."""
    budget = TokenBudget(None, model.device.type)
    engine = _Engine(
        text_engine(model, _read(model), mode, options.threads, options.graphs, budget),
        {task: task_prompt(model, task) for task in truth},
        _dimension(model),
    )
    for task, theirs in truth.items():
        ours = first_pass(lambda task=task: engine(_PROBES, task), options.threads)  # type: ignore[misc]
        check_same(unit(ours), unit(theirs), mode.format)
    return engine


def _read(model: Any) -> Read:
    """What a model's pooling reads; `UnknownShape` where the model does more than that."""
    kinds = [type(module).__name__ for module in model]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise UnknownShape(f"its modules are {', '.join(kinds)}")
    pooling = model[1]
    if pooling.pooling_mode not in _READS or not pooling.include_prompt:
        raise UnknownShape(f"its pooling is {pooling.pooling_mode}")
    return _READS[pooling.pooling_mode]


def _by_model(model: Any, texts: Sequence[str], task: str) -> NDArray[np.float32]:
    encode = model.encode_query if task == "query" else model.encode_document
    vectors: NDArray[np.float32] = encode(
        list(texts), batch_size=len(texts), show_progress_bar=False
    )
    return vectors


def _note_similarity(folder: Path, model: Any) -> None:
    """Vectors are compared by cosine; a model may have been trained for something else."""
    stored = model.similarity_fn_name
    if stored != "cosine" and "Normalize" not in [type(module).__name__ for module in model]:
        note(f"{folder} stores the similarity {stored}, and its vectors are compared by cosine")


def _dimension(model: Any) -> int:
    """Size of a vector; sentence-transformers renamed the method in version 6."""
    newer = getattr(model, "get_embedding_dimension", None)
    return int(newer() if newer else model.get_sentence_embedding_dimension())
