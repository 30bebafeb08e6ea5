"""Late interaction: every query token looks for its best match among the document's tokens.

The score is MaxSim (Khattab and Zaharia, "ColBERT", SIGIR 2020,
https://doi.org/10.1145/3397271.3401075): for each query token the maximum cosine with any token of
the document. Of a plain bi-encoder, which needs no training for it, it is their mean over the
query's tokens without the special ones, so that scores of short and long queries share a scale; of
a ColBERT checkpoint their sum over all vectors that `colbert` gives, as it was trained.

Each distinct document of a window is encoded once, whatever the number of queries that have it as
a candidate, and its token vectors are dropped as soon as those queries are scored: memory does not
grow with the window.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rerank_batch.errors import ModelError
from rerank_batch.progress import pairs as progress
from rerank_batch.rerankers.base import PairScores, ScorerOptions, split
from rerank_batch.rerankers.colbert import ColbertEncoder, is_colbert
from rerank_batch.scoring.bi_encoder import load_bi_encoder, text_engine, unit
from rerank_batch.scoring.device import first_pass, pick_device
from rerank_batch.scoring.engine import TextEngine, check_same
from rerank_batch.scoring.measure_modes import choose
from rerank_batch.scoring.modes import Choice, Mode, modes_for
from rerank_batch.scoring.packing import TokenBudget
from rerank_batch.scoring.stored import task_prompt
from rerank_batch.scoring.tokens import TokenBatch
from rerank_batch.scoring.usable import (
    check_finite,
    check_padding,
    check_positions,
    check_room,
)

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Take = Callable[[IntArray, Sequence[FloatArray]], None]

_TASKS = ("query", "document")
_PROBES = ("what is it?", "Ünïcode, 東京 and\ttabs ", "word " * 700, "")


class TokenEncoder(Protocol):
    """Texts to the unit vectors [tokens, width] of the tokens that count in the score."""

    def queries(self, texts: Sequence[str]) -> tuple[list[FloatArray], NDArray[np.bool_]]:
        """The vectors of each query, and which were cut."""

    def documents(self, texts: Sequence[str], take: Take) -> NDArray[np.bool_]:
        """Hand ``take`` numbers of documents and their vectors; returns which were cut."""


class LateInteractionScorer:
    """Scores are mean maximum cosines, within -1 and 1, or their sums for a ColBERT checkpoint.

    A pair without tokens scores 0.

    Raises:
        UnknownShape, NotSpliceable: the bi-encoder is none that our engine knows.
    """

    def __init__(self, folder: Path, options: ScorerOptions) -> None:
        self.mode = options.mode or self.choose(folder, options).mode
        colbert = is_colbert(folder)
        kind = ColbertEncoder if colbert else BiEncoder
        self._encoder: TokenEncoder = kind(folder, options, self.mode)
        self._combine: Callable[[FloatArray], np.float32] = np.sum if colbert else np.mean

    @staticmethod
    def choose(folder: Path, options: ScorerOptions) -> Choice:
        """Measure which mode is the fastest that the options allow."""
        return (ColbertEncoder if is_colbert(folder) else BiEncoder).choose(folder, options)

    def score(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> PairScores:
        """See `PairScorer.score`."""
        pairs = [(i, d) for i, listed in enumerate(documents) for d in listed]
        texts, which = np.unique(np.array([d for _, d in pairs], dtype=object), return_inverse=True)
        query_of = np.array([i for i, _ in pairs], dtype=np.int64)
        query_tokens, query_cut = self._encoder.queries(queries)
        flat = np.zeros(len(pairs), dtype=np.float32)
        by_text = np.argsort(which, kind="stable")
        ends = np.searchsorted(which[by_text], np.arange(len(texts) + 1))

        def score_documents(numbers: IntArray, vectors: Sequence[FloatArray]) -> None:
            for text, tokens in zip(numbers, vectors, strict=True):
                mine = by_text[ends[text] : ends[text + 1]]
                flat[mine] = [self._max_cosines(query_tokens[q], tokens) for q in query_of[mine]]
            progress.scored(int((ends[numbers + 1] - ends[numbers]).sum()))

        document_cut = self._encoder.documents(list(texts), score_documents)
        return PairScores(
            split(flat, documents), split(document_cut[which] | query_cut[query_of], documents)
        )

    def _max_cosines(self, query: FloatArray, document: FloatArray) -> float:
        """The score of one pair's token vectors, computed apart from any other pair's."""
        if not len(query) or not len(document):
            return 0.0
        return float(self._combine((query @ document.T).max(axis=1)))


class BiEncoder:
    """A sentence-transformers model by our own engine: queries without their special tokens.

    Where prompts are stored with the model they are a part of its texts, as when it encodes.
    """

    def __init__(self, folder: Path, options: ScorerOptions, mode: Mode) -> None:
        model = _open(folder, options)
        marks = (model.tokenizer.cls_token_id, model.tokenizer.sep_token_id)
        self._marks = np.array([mark for mark in marks if mark is not None])
        self._prompts = {task: task_prompt(model, task) for task in _TASKS}
        self._engine = _engine(folder, model, options, mode)

    @staticmethod
    def choose(folder: Path, options: ScorerOptions) -> Choice:
        """Measure which mode is the fastest that the options allow."""

        def opened(mode: Mode) -> Any:
            return _engine(folder, _open(folder, options), options, mode).runtime

        modes = modes_for(options.precision, options.allow, options.runtime, pick_device())
        return choose(modes, opened)

    def queries(self, texts: Sequence[str]) -> tuple[list[FloatArray], NDArray[np.bool_]]:
        """See `TokenEncoder.queries`."""
        encoded = [np.empty((0, 0), np.float32)] * len(texts)

        def keep(numbers: IntArray, batch: TokenBatch, vectors: FloatArray) -> None:
            ends = np.cumsum(batch.lengths)[:-1]
            words = np.split(~np.isin(batch.ids, self._marks), ends)
            for query, tokens, word in zip(
                numbers, np.split(unit(vectors), ends), words, strict=True
            ):
                encoded[query] = tokens[word]

        return encoded, self._engine.tokens(self._prompted(texts, "query"), keep)

    def documents(self, texts: Sequence[str], take: Take) -> NDArray[np.bool_]:
        """See `TokenEncoder.documents`."""

        def cut_up(numbers: IntArray, batch: TokenBatch, vectors: FloatArray) -> None:
            take(numbers, np.split(unit(vectors), np.cumsum(batch.lengths)[:-1]))

        return self._engine.tokens(self._prompted(texts, "document"), cut_up)

    def _prompted(self, texts: Sequence[str], task: str) -> list[str]:
        return [self._prompts[task] + text for text in texts]


def _open(folder: Path, options: ScorerOptions) -> Any:
    """The model, with everything about it checked that its files tell.

    Raises:
        ModelError: it does not load, or cannot be used; the message names what to change.
    """
    model = load_bi_encoder(folder, options.max_length)
    check_padding(folder, model.tokenizer)
    check_positions(folder, model.transformers_model, model.max_seq_length)
    prompts = [task_prompt(model, task) for task in _TASKS]
    for prompt in prompts:
        check_room(folder, model.tokenizer, prompt, model.max_seq_length)
    if any(prompts) and not all(getattr(each, "include_prompt", True) for each in model):
        raise ModelError(
            f"{folder} leaves its prompt's tokens out of what it pools, which late interaction "
            "does not do: take another model"
        )
    return model


def _engine(folder: Path, model: Any, options: ScorerOptions, mode: Mode) -> TextEngine:
    """The engine for a model, its token vectors checked against the model's own."""
    budget = TokenBudget(options.batch_tokens, model.device.type)
    engine = text_engine(model, "tokens", mode, options.threads, options.graphs, budget)
    for prompt in dict.fromkeys(task_prompt(model, task) for task in _TASKS):
        first_pass(
            lambda prompt=prompt: _check(folder, model, engine, prompt, mode),  # type: ignore[misc]
            options.threads,
        )
    return engine


def _check(folder: Path, model: Any, engine: TextEngine, prompt: str, mode: Mode) -> None:
    """Hold the engine to the model's own vectors of a few texts behind a prompt."""
    reference = model.encode(
        list(_PROBES), prompt=prompt, output_value="token_embeddings", show_progress_bar=False
    )

    def check(numbers: IntArray, batch: TokenBatch, vectors: FloatArray) -> None:
        for number in numbers:
            if _PROBES[number]:
                check_finite(folder, reference[number].float().cpu().numpy(), "fp32")
        truth = torch.cat([reference[number] for number in numbers]).float().cpu().numpy()
        check_same(unit(vectors), unit(truth), mode.format)

    engine.tokens([prompt + text for text in _PROBES], check)
