"""Cross-encoders: one transformer reads query and document together and gives one logit.

Loaded by sentence-transformers and fed by its own preprocessing, so that every checkpoint which
`CrossEncoder.predict` can score gives the same logits here; the batches are ours, sorted by token
count over the whole window and cut by a token budget.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder
from sentence_transformers.util import batch_to_device

from rerank_batch.errors import ModelError
from rerank_batch.rerankers.base import PairScores, ScorerOptions, split
from rerank_batch.scoring.device import pick_device, pick_dtype
from rerank_batch.scoring.loading import loading
from rerank_batch.scoring.packing import TokenBudget


class CrossEncoderScorer:
    """Scores are raw logits: what `CrossEncoder.predict` gives with the identity activation."""

    def __init__(self, folder: Path, options: ScorerOptions) -> None:
        torch.set_num_threads(options.threads)
        self._device = pick_device()
        self._budget = TokenBudget(options.batch_tokens)
        dtype = pick_dtype(options.precision, self._device)
        with loading(folder, "a cross-encoder"):
            self._model: Any = CrossEncoder(
                str(folder),
                device=self._device,
                max_length=options.max_length,
                model_kwargs={"dtype": dtype, "use_safetensors": True},
            )
        if self._model.num_labels != 1:
            raise ModelError(
                f"{folder} has {self._model.num_labels} labels; "
                "a reranker needs a cross-encoder with one"
            )
        self._model.eval()
        self._special = self._model.tokenizer.num_special_tokens_to_add(pair=True)

    @torch.inference_mode()
    def score(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> PairScores:
        """See `PairScorer.score`."""
        pairs = [(q, d) for q, listed in zip(queries, documents, strict=True) for d in listed]
        lengths = self._pair_lengths(pairs)
        longest = self._model.max_length or np.iinfo(np.int64).max
        flat = np.empty(len(pairs), dtype=np.float32)

        def forward(positions: NDArray[np.int64]) -> None:
            flat[positions] = self._logits([pairs[position] for position in positions])

        self._budget.each(np.minimum(lengths, longest), forward)
        cut = split(lengths > longest, documents)
        return PairScores(split(flat, documents), [bool(np.any(row)) for row in cut])

    def _logits(self, pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        features = batch_to_device(self._model.preprocess(pairs), torch.device(self._device))
        scores: torch.Tensor = self._model(features)["scores"]
        return scores.float().reshape(len(pairs)).cpu().numpy()

    def _pair_lengths(self, pairs: list[tuple[str, str]]) -> NDArray[np.int64]:
        """Tokens of every pair before truncation; each distinct text is counted once."""
        texts = sorted({text for pair in pairs for text in pair})
        if not texts:
            return np.zeros(0, dtype=np.int64)
        encoded = self._model.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        tokens = {text: len(ids) for text, ids in zip(texts, encoded["input_ids"], strict=True)}
        special = self._special
        return np.array([tokens[q] + tokens[d] + special for q, d in pairs], dtype=np.int64)
