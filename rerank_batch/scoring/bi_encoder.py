"""A bi-encoder's files to an engine for single texts: what encoding and late interaction share."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from rerank_batch.scoring.device import pick_device
from rerank_batch.scoring.engine import TextEngine
from rerank_batch.scoring.modes import Graphs, Mode
from rerank_batch.scoring.networks.body import Read
from rerank_batch.scoring.networks.network import Network
from rerank_batch.scoring.packing import TokenBudget
from rerank_batch.scoring.runtimes.base import FloatArray
from rerank_batch.scoring.runtimes.open import open_runtime
from rerank_batch.scoring.tokens import TextTokenizer
from rerank_batch.scoring.weights import check_modules, weights_of


def load_bi_encoder(folder: Path, max_length: int | None) -> Any:
    """The sentence-transformers model of a folder, in float32.

    Raises:
        ModelError: the folder holds none, or not all of its weights.
    """
    with weights_of(folder, "a sentence-transformers bi-encoder"):
        model: Any = SentenceTransformer(
            str(folder),
            device=pick_device(),
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
        )
    check_modules(folder, model)
    if max_length is not None:
        model.max_seq_length = max_length
    return model.eval()


def text_engine(
    model: Any, read: Read, mode: Mode, threads: int, graphs: Graphs | None, budget: TokenBudget
) -> TextEngine:
    """The engine for a model's transformer, not yet checked against it.

    Raises:
        NotSpliceable, UnknownShape, Unavailable: the model or the mode is none that it knows.
    """
    network = Network(model.transformers_model, read)
    tokenizer = TextTokenizer(model.tokenizer, model.max_seq_length, network.position_of_padding)
    runtime = open_runtime(network, mode, model.device.type, threads, graphs)
    return TextEngine(tokenizer, runtime, budget)


def unit(vectors: FloatArray) -> FloatArray:
    """The vectors [n, width] at length 1; a vector of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: FloatArray = np.divide(vectors, lengths, out=vectors.copy(), where=lengths > 0)
    return result
