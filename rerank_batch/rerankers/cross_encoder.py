"""Cross-encoders: one transformer reads query and document together and gives one logit.

Loaded by sentence-transformers and fed by its own preprocessing, so that every checkpoint which
`CrossEncoder.predict` can score gives the same logits here; the batches are ours, sorted by token
count over the whole window and cut by a token budget.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder
from sentence_transformers.util import batch_to_device

from rerank_batch.errors import ModelError
from rerank_batch.rerankers.base import PairScores, ScorerOptions, split
from rerank_batch.scoring.device import first_pass, pick_device, pick_dtype
from rerank_batch.scoring.loading import loading
from rerank_batch.scoring.packing import TokenBudget


class CrossEncoderScorer:
    """Scores are raw logits: what `CrossEncoder.predict` gives with the identity activation."""

    def __init__(self, folder: Path, options: ScorerOptions) -> None:
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
        first_pass(lambda: self.score(["a"], [["b"]]), options.threads)

    @torch.inference_mode()
    def score(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> PairScores:
        """See `PairScorer.score`."""
        pairs = [(q, d) for q, listed in zip(queries, documents, strict=True) for d in listed]
        tokens = self._count_tokens({text for pair in pairs for text in pair})
        lengths = np.array([tokens[q] + tokens[d] + self._special for q, d in pairs], np.int64)
        pairs = self._shorten(pairs, tokens)
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

    def _count_tokens(self, texts: Iterable[str]) -> dict[str, int]:
        """Tokens of every text before truncation, without special ones."""
        listed = sorted(texts)
        ids = self._tokenize(listed)["input_ids"] if listed else []
        return {text: len(row) for text, row in zip(listed, ids, strict=True)}

    def _shorten(
        self, pairs: list[tuple[str, str]], tokens: Mapping[str, int]
    ) -> list[tuple[str, str]]:
        """The pairs with texts far beyond what the model reads cut well behind that.

        A tokenizer keeps what truncation cuts off, as pieces of the model's length, and for a pair
        every combination of the pieces of both: a long query and a document of a megabyte would
        take all memory. Truncation asks which of the two is longer, so the longer stays longer.
        """
        if not self._model.max_length or not self._model.tokenizer.is_fast:
            return pairs
        enough = _FAR * self._model.max_length
        if all(tokens[q] <= 2 * enough and tokens[d] <= 2 * enough for q, d in pairs):
            return pairs
        begin = cache(self._beginning)

        def shorten(query: str, document: str) -> tuple[str, str]:
            longer = tokens[query] - tokens[document]
            return (
                begin(query, 2 * enough if longer > 0 else enough),
                begin(document, 2 * enough if longer < 0 else enough),
            )

        return [shorten(*pair) for pair in pairs]

    def _beginning(self, text: str, tokens: int) -> str:
        """The text up to its first so many tokens, or all of it where they would change."""
        whole = self._tokenize([text], return_offsets_mapping=True)
        ids, offsets = whole["input_ids"][0], whole["offset_mapping"][0]
        if len(ids) <= tokens:
            return text
        short = text[: offsets[tokens - 1][1]]
        return short if self._tokenize([short])["input_ids"][0] == ids[:tokens] else text

    def _tokenize(self, texts: list[str], **options: bool) -> Any:
        return self._model.tokenizer(
            texts, add_special_tokens=False, return_attention_mask=False, verbose=False, **options
        )


_FAR = 4
