"""The bi-encoder: texts to unit vectors. Knows sentence-transformers, not FAISS and not Ray."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from rerank_batch.scoring.device import first_pass, pick_device
from rerank_batch.scoring.loading import loading
from rerank_batch.scoring.packing import TokenBudget


class Encoder:
    """Encodes queries and documents with their own prompts, where the model defines any.

    Vectors are float32 of length 1, so that the inner product is the cosine.
    """

    def __init__(self, folder: Path, max_length: int | None = None, threads: int = 1) -> None:
        device = pick_device()
        with loading(folder, "a sentence-transformers model"):
            self._model = SentenceTransformer(
                str(folder), device=device, model_kwargs={"use_safetensors": True}
            )
        if max_length is not None:
            self._model.max_seq_length = max_length
        self._dimension = _dimension(self._model)
        self._budget = TokenBudget(_BATCH_TOKENS)
        first_pass(lambda: self.encode_documents(["a"]), threads)

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries, float32 [n, dimension]."""
        return self._encode(texts, self._model.encode_query)

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents, float32 [n, dimension]."""
        return self._encode(texts, self._model.encode_document)

    def _encode(
        self, texts: Sequence[str], encode: Callable[..., NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Encode in our micro-batches: by token count, where sentence-transformers sorts by
        characters and cuts every 32 texts."""
        vectors = np.empty((len(texts), self._dimension), dtype=np.float32)

        def forward(positions: NDArray[np.int64]) -> None:
            batch = [texts[position] for position in positions]
            vectors[positions] = encode(batch, batch_size=len(batch), show_progress_bar=False)

        self._budget.each(self._lengths(texts), forward)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.divide(vectors, lengths, out=vectors, where=lengths > 0)
        return vectors

    def _lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        if not texts:
            return np.zeros(0, dtype=np.int64)
        ids = self._model.tokenizer(list(texts), return_attention_mask=False, verbose=False)
        lengths = np.array([len(row) for row in ids["input_ids"]], dtype=np.int64)
        return np.minimum(lengths, self._model.max_seq_length or _BATCH_TOKENS)


_BATCH_TOKENS = 2048


def _dimension(model: Any) -> int:
    """Size of a vector; sentence-transformers renamed the method in version 6."""
    newer = getattr(model, "get_embedding_dimension", None)
    return int(newer() if newer else model.get_sentence_embedding_dimension())
