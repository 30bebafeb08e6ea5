"""ColBERT checkpoints: token vectors through a trained projection, with markers in the texts.

Two kinds are found: those of colbert-ai (``HF_ColBERT`` in config.json, a ``linear.weight`` beside
the transformer's weights, settings in artifact.metadata;
https://github.com/stanford-futuredata/ColBERT) and those of PyLate (Dense modules in modules.json,
settings in config_sentence_transformers.json; https://github.com/lightonai/pylate). Both are read
by sentence-transformers. What they share:

- a marker stands behind the first token, another one for queries than for documents;
- a query is filled up to a fixed length with mask tokens, unless the checkpoint says not to. They
  read the query, nothing reads them unless it says so, and their vectors count in the score;
- a document's punctuation is read but its vectors are left out of the score, or those of the words
  that the checkpoint lists.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import MultiVectorEncoder

from rerank_batch.models.settings import json_file
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.scoring.decoder import TYPES
from rerank_batch.scoring.device import first_pass, pick_device
from rerank_batch.scoring.modes import Choice, Mode
from rerank_batch.scoring.packing import TokenBudget
from rerank_batch.scoring.runtimes.base import FloatArray, Unavailable
from rerank_batch.scoring.usable import check_finite, check_padding, check_positions
from rerank_batch.scoring.weights import Exempt, check_modules, weights_of

IntArray = NDArray[np.int64]

_UNREAD = (Exempt(r"^linear\.weight$", "the projection, which is read by a module of its own"),)
_PROBES = ("what is it?", "a few words", "word " * 700)


class ColbertEncoder:
    """Texts to unit token vectors, without those that do not count in the score."""

    def __init__(self, folder: Path, options: ScorerOptions, mode: Mode) -> None:
        with weights_of(folder, "a ColBERT model", unread=_UNREAD):
            self._model: Any = MultiVectorEncoder(
                str(folder),
                device=pick_device(),
                model_kwargs={"dtype": TYPES[mode.format], "use_safetensors": True},
            ).eval()
        check_modules(folder, self._model)
        reader = self._model[0]
        if options.max_length is not None:
            positions = getattr(reader.config, "max_position_embeddings", options.max_length)
            reader.document_length = min(options.max_length, positions)
        expansion = reader.query_expansion
        self._query_limit = expansion["length"] if expansion else reader.query_length
        self._document_limit = reader.document_length
        self._budget = TokenBudget(options.batch_tokens, self._model.device.type)
        check_padding(folder, self._model.tokenizer)
        for limit in (self._query_limit, self._document_limit):
            limit = limit or self._model.max_seq_length
            check_positions(folder, self._model.transformers_model, limit)
        first_pass(lambda: self._check(folder, mode), options.threads)

    def _check(self, folder: Path, mode: Mode) -> None:
        """Read plain text of every length once."""
        queries, _ = self.queries(_PROBES)
        encoded = list(queries)
        self.documents(_PROBES, lambda numbers, vectors: encoded.extend(vectors))
        for vectors in encoded:
            check_finite(folder, vectors, mode.format)

    @staticmethod
    def choose(folder: Path, options: ScorerOptions) -> Choice:
        """Float32 by torch: nothing else runs these models here.

        Raises:
            Unavailable: the options ask for another runtime.
        """
        if options.runtime not in ("auto", "torch"):
            raise Unavailable(
                f"{folder} is a ColBERT model, which runs by torch and not by {options.runtime}: "
                "set reranker.runtime: auto"
            )
        return Choice(Mode("torch", "fp32"), {})

    def queries(self, texts: Sequence[str]) -> tuple[list[FloatArray], NDArray[np.bool_]]:
        """Vectors [tokens, width] of each query, and which were cut."""
        encoded = [np.empty((0, 0), np.float32)] * len(texts)

        def keep(numbers: IntArray, vectors: Sequence[FloatArray]) -> None:
            for number, each in zip(numbers, vectors, strict=True):
                encoded[number] = each

        return encoded, self._encode(texts, "query", keep)

    def documents(
        self, texts: Sequence[str], take: Callable[[IntArray, Sequence[FloatArray]], None]
    ) -> NDArray[np.bool_]:
        """Hand ``take`` numbers of documents and their vectors; returns which were cut."""
        return self._encode(texts, "document", take)

    def _encode(
        self,
        texts: Sequence[str],
        task: str,
        take: Callable[[IntArray, Sequence[FloatArray]], None],
    ) -> NDArray[np.bool_]:
        if not texts:
            return np.zeros(0, np.bool_)
        limit = self._query_limit if task == "query" else self._document_limit
        limit = limit or self._model.max_seq_length
        prompt = self._model.prompts.get(task) or ""
        whole = self._model.tokenizer(
            [prompt + text for text in texts], return_attention_mask=False, verbose=False
        )["input_ids"]
        lengths = np.array([len(ids) for ids in whole], np.int64)
        same = task == "query" and self._model[0].query_expansion is not None

        def forward(which: IntArray) -> None:
            vectors = self._model.encode(
                [texts[number] for number in which],
                prompt=prompt,
                task=task,
                batch_size=len(which),
                convert_to_numpy=True,
                show_progress_bar=False,
            )
            take(which, vectors)

        self._budget.each(
            np.full(len(texts), limit) if same else np.minimum(lengths, limit), forward
        )
        cut: NDArray[np.bool_] = lengths > limit
        return cut


def is_colbert(folder: Path) -> bool:
    """Whether a folder holds a ColBERT model and no plain bi-encoder."""
    settings = json_file(folder / "config_sentence_transformers.json")
    return (
        "HF_ColBERT" in (json_file(folder / "config.json").get("architectures") or [])
        or settings.get("model_type") in ("ColBERT", "MultiVectorEncoder")
        or "query_prefix" in settings
    )
