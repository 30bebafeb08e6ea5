"""The bi-encoder: texts to unit vectors. Knows sentence-transformers, not FAISS and not Ray."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from rerank_batch.errors import ModelError
from rerank_batch.scoring.device import pick_device

FAMILIES = ("sentence-transformers",)


class Encoder:
    """Encodes queries and documents with their own prompts, where the model defines any.

    Vectors are float32 of length 1, so that the inner product is the cosine.
    """

    def __init__(self, folder: Path, max_length: int | None = None, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        device = pick_device()
        try:
            self._model = SentenceTransformer(
                str(folder), device=device, model_kwargs={"use_safetensors": True}
            )
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            raise ModelError(f"{folder} does not load as a sentence-transformers model: {error}") \
                from error
        if max_length is not None:
            self._model.max_seq_length = max_length

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of queries, float32 [n, dimension]."""
        return self._unit(self._model.encode_query(list(texts), **_QUIET))

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of documents, float32 [n, dimension]."""
        return self._unit(self._model.encode_document(list(texts), **_QUIET))

    def _unit(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        vectors = np.asarray(vectors, dtype=np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, lengths, out=vectors, where=lengths > 0)


_QUIET = {"batch_size": 32, "show_progress_bar": False, "convert_to_numpy": True}
