"""Whether a model that loads can be used, found out before the first query.

What does not fit is one `ModelError`, which names what to change. Knows no family.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rerank_batch import tally
from rerank_batch.config import Format
from rerank_batch.errors import ModelError, RerankBatchError
from rerank_batch.scoring.packing import is_out_of_memory

logger = logging.getLogger(__name__)

_POSITION_TABLES = ("position_embeddings", "position_embedding", "embed_positions", "wpe")
_LONGEST_CAUSE = 300


@contextmanager
def using(folder: Path, section: str = "reranker") -> Iterator[None]:
    """Turn whatever a model's first passes raise into `ModelError`, with the setting to change.

    The libraries share no base class, so any exception counts; it stays chained as the cause. What
    is no fault of the model passes: our own errors, a full disk, too little memory.
    """
    try:
        yield
    except (RerankBatchError, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        cause = f"{type(error).__name__}: {error}".strip()
        first = cause.splitlines()[0][:_LONGEST_CAUSE]
        raise ModelError(
            f"{folder} loads, but its first pass over plain text fails: {first}."
            f"{_hint(cause, section)}"
        ) from error


def check_padding(folder: Path, tokenizer: Any) -> None:
    """Refuse a tokenizer without a padding token: texts of different lengths make a batch."""
    if not hasattr(tokenizer, "pad_token"):
        raise ModelError(
            f"{folder} reads texts by {type(tokenizer).__name__}, not by a tokenizer of "
            "transformers: take a model that is a transformer"
        )
    check_words(folder, tokenizer)
    if tokenizer.pad_token is None:
        raise ModelError(f"{folder} has no padding token:{_PAD}")


def check_words(folder: Path, tokenizer: Any) -> None:
    """Refuse a tokenizer that was made without its files: transformers makes one of special tokens.

    Every text is then a row of unknown tokens, or of single letters where only merges are missing.
    """
    fetch = "fetch the tokenizer's files again, tokenizer.json first"
    if len(tokenizer) <= len(tokenizer.added_tokens_decoder):
        raise ModelError(
            f"{folder} has no words in its tokenizer, which would make one text of all: {fetch}"
        )
    names = {file.name for file in folder.iterdir()}
    if "vocab.json" in names and not names & {"tokenizer.json", "merges.txt"}:
        raise ModelError(f"{folder} has vocab.json without merges.txt: {fetch}")


def check_positions(
    folder: Path, transformer: Any, length: int | None, section: str = "reranker"
) -> None:
    """Refuse a ``length`` in tokens that is more than the model has positions for."""
    positions = None if transformer is None else _positions(transformer)
    if positions is None or (length is not None and length <= positions):
        return
    requested = f"{length:,} tokens" if length is not None and length < 1 << 30 else "texts uncut"
    raise ModelError(
        f"{folder} reads at most {positions} tokens, and is to be given {requested}: "
        f"set {section}.max_length: {positions}"
    )


def check_room(
    folder: Path, tokenizer: Any, prompt: str, room: int | None, section: str = "reranker"
) -> None:
    """Refuse a stored prompt of more than ``room`` tokens, which leaves none for the text."""
    if not prompt or room is None:
        return
    tokens = len(tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"])
    if tokens >= room:
        raise ModelError(
            f"{folder} stores a prompt of {tokens} tokens, which leaves no room for the text "
            f"behind it: set {section}.max_length to more than it is, or shorten the prompt in "
            "config_sentence_transformers.json"
        )


def check_finite(
    folder: Path, values: NDArray[Any], format: Format, section: str = "reranker"
) -> None:
    """Refuse a model that gives NaN or infinity for plain text."""
    if np.isfinite(values).all():
        return
    advice = (
        "its weights are damaged, or made for other code"
        if format == "fp32"
        else f"set {section}.precision: fp32"
    )
    raise ModelError(f"{folder} gives NaN or infinity for plain text in {format}: {advice}")


def note(text: str) -> None:
    """Say of a model what its user should know: in the worker's log and in the run's summary."""
    logger.warning("%s", text)
    tally.count(text)


def _positions(transformer: Any) -> int | None:
    """How many tokens the model's table of positions holds; None where it has no such table."""
    for name, module in transformer.named_modules():
        if name.rpartition(".")[2] not in _POSITION_TABLES or not isinstance(module, nn.Embedding):
            continue
        if type(module) is nn.Embedding:
            # RoBERTa counts from behind the number of its padding token.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - first
        # Tables of a class of their own, as BART's, have rows that no token gets.
        return getattr(transformer.config, "max_position_embeddings", None)
    return None


def _hint(cause: str, section: str) -> str:
    if re.search(r"pad(ding)?[ _]token", cause, re.IGNORECASE):
        return f" If it lacks one,{_PAD}"
    if re.search(r"out of (bounds|range)|must match|size mismatch", cause, re.IGNORECASE):
        return (
            " A text of its maximal length may be more than it has positions for: set "
            f"{section}.max_length to what it reads. Or its tokenizer is another model's, with "
            "more tokens than there are embeddings: fetch all files again"
        )
    return " Run it by its own code on two texts, or take another model"


_PAD = (
    " give it one, pad_token in tokenizer_config.json and pad_token_id in config.json (its end of "
    "text will do)"
)
