"""Late interaction: every query token looks for its best match among the document's tokens.

The score is the mean over the query's tokens, without the special ones, of the maximum cosine with
any token of the document: MaxSim (Khattab and Zaharia, "ColBERT", SIGIR 2020,
https://doi.org/10.1145/3397271.3401075) with a mean in place of the sum, so that scores of short
and long queries share a scale. It needs a bi-encoder and no training.

Each distinct document of a window is encoded once, whatever the number of queries that have it as
a candidate, and its token vectors are dropped as soon as those queries are scored: memory does not
grow with the window.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device

from rerank_batch.rerankers.base import PairScores, ScorerOptions, split
from rerank_batch.scoring.device import first_pass, pick_device, pick_dtype
from rerank_batch.scoring.loading import loading
from rerank_batch.scoring.packing import TokenBudget


class LateInteractionScorer:
    """Scores are mean maximum cosines, within -1 and 1; a pair without tokens scores 0."""

    def __init__(self, folder: Path, options: ScorerOptions) -> None:
        self._device = pick_device()
        self._budget = TokenBudget(options.batch_tokens)
        dtype = pick_dtype(options.precision, self._device)
        with loading(folder, "a bi-encoder"):
            model: Any = SentenceTransformer(
                str(folder),
                device=self._device,
                model_kwargs={"dtype": dtype, "use_safetensors": True},
            )
        if options.max_length is not None:
            model.max_seq_length = options.max_length
        self._max_length = model.max_seq_length or np.iinfo(np.int64).max
        self._transformer = model[0].eval()
        self._tokenizer = model.tokenizer
        marks = (self._tokenizer.cls_token_id, self._tokenizer.sep_token_id)
        self._marks = torch.tensor([mark for mark in marks if mark is not None])
        first_pass(lambda: self.score(["a"], [["b"]]), options.threads)

    @torch.inference_mode()
    def score(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> PairScores:
        """See `PairScorer.score`."""
        pairs = [(i, d) for i, listed in enumerate(documents) for d in listed]
        texts, which = np.unique(np.array([d for _, d in pairs], dtype=object), return_inverse=True)
        query_of = np.array([i for i, _ in pairs], dtype=np.int64)
        query_tokens, query_cut = self._query_tokens(queries)
        lengths = self._lengths(list(texts))
        flat = np.zeros(len(pairs), dtype=np.float32)
        by_text = np.argsort(which, kind="stable")
        ends = np.searchsorted(which[by_text], np.arange(len(texts) + 1))

        def forward(batch: NDArray[np.int64]) -> None:
            tokens, mask = self._embed([texts[position] for position in batch])
            for row, position in enumerate(batch):
                mine = by_text[ends[position] : ends[position + 1]]
                asked = [query_tokens[query] for query in query_of[mine]]
                flat[mine] = _mean_max_cosine(asked, tokens[row][mask[row]])

        self._budget.each(np.minimum(lengths, self._max_length), forward)
        cut = split(lengths[which] > self._max_length, documents) if len(pairs) else []
        truncated = [
            bool(query_cut[i] or (i < len(cut) and np.any(cut[i]))) for i in range(len(queries))
        ]
        return PairScores(split(flat, documents), truncated)

    def _query_tokens(self, queries: Sequence[str]) -> tuple[list[torch.Tensor], NDArray[np.bool_]]:
        """Per query its unit token vectors [tokens, dimension] without the special tokens."""
        lengths = self._lengths(list(queries))
        found: list[torch.Tensor] = [torch.empty(0)] * len(queries)

        def forward(batch: NDArray[np.int64]) -> None:
            tokens, mask = self._embed([queries[i] for i in batch], special=False)
            for row, position in enumerate(batch):
                found[position] = tokens[row][mask[row]]

        self._budget.each(np.minimum(lengths, self._max_length), forward)
        return found, lengths > self._max_length

    def _embed(
        self, texts: Sequence[str], special: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit token vectors float32 [n, t, dimension] and which of them count, bool [n, t]."""
        features = self._transformer.preprocess(list(texts))
        features = batch_to_device(features, torch.device(self._device))
        vectors = self._transformer(features)["token_embeddings"].float()
        mask = features["attention_mask"].bool()
        if not special:
            mask &= ~torch.isin(features["input_ids"], self._marks.to(mask.device))
        return torch.nn.functional.normalize(vectors, dim=-1), mask

    def _lengths(self, texts: list[str]) -> NDArray[np.int64]:
        if not texts:
            return np.zeros(0, dtype=np.int64)
        encoded = self._tokenizer(texts, return_attention_mask=False, verbose=False)
        return np.array([len(ids) for ids in encoded["input_ids"]], dtype=np.int64)


def _mean_max_cosine(queries: list[torch.Tensor], document: torch.Tensor) -> NDArray[np.float32]:
    """Scores of several queries' token vectors against one document's, float32 [queries]."""
    sizes = torch.tensor([len(query) for query in queries], device=document.device)
    if not len(document) or not int(sizes.sum()):
        return np.zeros(len(queries), dtype=np.float32)
    best = (torch.cat(queries) @ document.T).amax(dim=1)
    owner = torch.repeat_interleave(torch.arange(len(queries), device=document.device), sizes)
    sums = torch.zeros(len(queries), device=document.device).index_add_(0, owner, best)
    return (sums / sizes.clamp(min=1)).cpu().numpy()
