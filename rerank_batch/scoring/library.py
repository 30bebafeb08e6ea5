"""Pairs to logits by sentence-transformers' own code, for models that the engine does not know.

The batches are ours, sorted by token count over the whole window and cut by a token budget.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers.util import batch_to_device

from rerank_batch.progress import pairs as progress
from rerank_batch.scoring.packing import TokenBudget


class Library:
    """Scores windows of pairs with a `sentence_transformers.CrossEncoder` as it is."""

    def __init__(self, model: Any, budget: TokenBudget) -> None:
        self._model = model
        self.budget = budget
        self._special = model.tokenizer.num_special_tokens_to_add(pair=True)

    @torch.inference_mode()
    def score(
        self, queries: Sequence[str], documents: Sequence[Sequence[str]]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Logits of all pairs, query by query, and whether each pair was cut."""
        pairs = [(q, d) for q, listed in zip(queries, documents, strict=True) for d in listed]
        tokens = self._count_tokens({text for pair in pairs for text in pair})
        lengths = np.array([tokens[q] + tokens[d] + self._special for q, d in pairs], np.int64)
        pairs = self._shorten(pairs, tokens)
        longest = self._model.max_seq_length or np.iinfo(np.int64).max
        flat = np.empty(len(pairs), dtype=np.float32)

        def forward(positions: NDArray[np.int64]) -> None:
            flat[positions] = self._logits([pairs[position] for position in positions])
            progress.scored(len(positions))

        self.budget.each(np.minimum(lengths, longest), forward)
        return flat, lengths > longest

    def _logits(self, pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        features = batch_to_device(self._model.preprocess(pairs), self._model.device)
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
        if not self._model.max_seq_length or not self._model.tokenizer.is_fast:
            return pairs
        enough = _FAR * self._model.max_seq_length
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
