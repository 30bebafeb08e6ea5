"""Pairs to logits by sentence-transformers' own code, for models that the engine does not know.

The batches are ours, sorted by token count over the whole window and cut by a token budget; all
else is as in `CrossEncoder.predict`: the stored prompt goes before the query, or into the chat of a
model that reads one, and the stored processing arguments say what is cut.
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
from rerank_batch.scoring.stored import default_prompt


class Library:
    """Scores windows of pairs with a `sentence_transformers.CrossEncoder` as it is."""

    def __init__(self, model: Any, budget: TokenBudget) -> None:
        self._model = model
        self.budget = budget
        self._prompt = default_prompt(model)
        self._special = model.tokenizer.num_special_tokens_to_add(pair=True)
        self._reads_chats = _reads_chats(model)
        self._longest = reads_at_most(model)

    @torch.inference_mode()
    def score(
        self, queries: Sequence[str], documents: Sequence[Sequence[str]]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Logits of all pairs, query by query, and whether each pair was cut."""
        pairs = [(q, d) for q, listed in zip(queries, documents, strict=True) for d in listed]
        prompted = [(self._prompt + q, d) for q, d in pairs]
        tokens = self._count_tokens({text for pair in prompted for text in pair})
        lengths = self._lengths(pairs, [tokens[q] + tokens[d] for q, d in prompted])
        pairs = self._shorten(pairs, tokens)
        longest = self._longest if self._longest is not None else np.iinfo(np.int64).max
        flat = np.empty(len(pairs), dtype=np.float32)

        def forward(positions: NDArray[np.int64]) -> None:
            flat[positions] = self._logits([pairs[position] for position in positions])
            progress.scored(len(positions))

        self.budget.each(np.minimum(lengths, longest), forward)
        return flat, lengths > longest

    def _logits(self, pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        features = self._model.preprocess(pairs, prompt=self._prompt or None)
        scores: torch.Tensor = self._model(batch_to_device(features, self._model.device))["scores"]
        return scores.float().reshape(len(pairs)).cpu().numpy()

    def _lengths(self, pairs: list[tuple[str, str]], texts: list[int]) -> NDArray[np.int64]:
        """Tokens of every pair before truncation, from those of prompt, query and document."""
        if not self._reads_chats:
            return np.array([tokens + self._special for tokens in texts], np.int64)
        # What a template puts around the texts may depend on them.
        uncut = {part: {"truncation": False} for part in ("text", "chat_template")}
        rows = (
            self._model.preprocess([pair], prompt=self._prompt or None, processing_kwargs=uncut)
            for pair in pairs
        )
        return np.array([int(row["attention_mask"].sum()) for row in rows], np.int64)

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
        Where the beginning of a text may be what is cut off, all of it stays.
        """
        tokenizer = self._model.tokenizer
        if self._longest is None or not tokenizer.is_fast or tokenizer.truncation_side != "right":
            return pairs
        enough = _FAR * self._longest
        prompt = self._prompt
        if all(tokens[prompt + q] <= 2 * enough and tokens[d] <= 2 * enough for q, d in pairs):
            return pairs
        begin = cache(self._beginning)

        def shorten(query: str, document: str) -> tuple[str, str]:
            longer = tokens[prompt + query] - tokens[document]
            short = begin(prompt + query, 2 * enough if longer > 0 else enough)
            return (
                short[len(prompt) :] if short.startswith(prompt) else query,
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


def reads_at_most(model: Any) -> int | None:
    """How many tokens of a pair a model is given; None where it is given all of them.

    The arguments stored with it go before what its tokenizer says.
    """
    stored = getattr(model[0], "processing_kwargs", None) or {}
    # Of two that say the same, sentence-transformers takes the latter.
    order = ("common", "text", "chat_template") if _reads_chats(model) else ("text", "common")
    given = {key: value for part in order for key, value in (stored.get(part) or {}).items()}
    if given.get("truncation", True) in (False, "do_not_truncate"):
        return None
    return given.get("max_length") or model.max_seq_length or None


def set_most(model: Any, max_length: int) -> None:
    """Let ``max_length`` go before what is stored with the model."""
    stored = getattr(model[0], "processing_kwargs", None) or {}
    for part in stored.values():
        if "max_length" in part:
            part["max_length"] = max_length


def _reads_chats(model: Any) -> bool:
    return "message" in getattr(model[0], "modality_config", {})


_FAR = 4
