"""What decoder rerankers share: a family says which network it loads and how its prompts are made.

Always the end of a text is cut that is too long, the document's first; ``truncation`` of the
options is for models that read pairs in other ways.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedTokenizerFast

from rerank_batch.errors import ModelError
from rerank_batch.rerankers.base import PairScores, ScorerOptions, split
from rerank_batch.scoring.decoder import Decoder, DecoderEngine
from rerank_batch.scoring.device import first_pass, pick_device
from rerank_batch.scoring.loading import loading
from rerank_batch.scoring.measure_modes import choose
from rerank_batch.scoring.modes import Choice, Mode, modes_for
from rerank_batch.scoring.packing import TokenBudget
from rerank_batch.scoring.prompts import PromptTokenizer
from rerank_batch.scoring.stored import default_of
from rerank_batch.scoring.usable import check_finite


class DecoderScorer(ABC):
    """Scores are raw logits, or the difference of two; see each family.

    ``instruction`` is what a family is told where the options do not say; None: it is told nothing.
    """

    instruction: ClassVar[str | None] = None

    def __init__(self, folder: Path, options: ScorerOptions) -> None:
        self.mode = options.mode or self.choose(folder, options).mode
        self._check_prompt(folder, options)
        self._engine = DecoderEngine(
            self._tokenizer(folder, options),
            self._decoder(folder, options, self.mode),
            TokenBudget(options.batch_tokens, pick_device()),
        )
        queries, documents = ["a", "what is it?"], [["b", "c"], ["a few words"]]
        found, _ = first_pass(lambda: self._engine.score(queries, documents), options.threads)
        check_finite(folder, found, self.mode.format)

    @classmethod
    def choose(cls, folder: Path, options: ScorerOptions) -> Choice:
        """Measure bfloat16 against float32 where the options allow it; torch runs either.

        Raises:
            Unavailable: the options ask for another runtime.
        """
        cls._check_prompt(folder, options)
        modes = [
            mode
            for mode in modes_for(options.precision, options.allow, options.runtime, pick_device())
            if mode.runtime == "torch" and mode.format != "int8"
        ]
        if len(modes) == 1:
            return Choice(modes[0], {})
        return choose(modes, lambda mode: cls._decoder(folder, options, mode))

    def score(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> PairScores:
        """See `PairScorer.score`."""
        flat, cut = self._engine.score(queries, documents)
        return PairScores(split(flat, documents), split(cut, documents))

    @classmethod
    def _check_prompt(cls, folder: Path, options: ScorerOptions) -> None:
        """A family's prompt is its own; one that is stored with the model is not left out unsaid.

        Raises:
            ModelError: the message says where it can be given.
        """
        stored = default_of(folder)
        listens = cls.instruction is not None
        is_given = listens and options.instruction is not None
        if stored and not is_given and stored != cls.instruction:
            give = "write it or another into reranker.instruction, or " if listens else ""
            raise ModelError(
                f"{folder} stores the prompt {stored!r}, which this family does not read: {give}"
                f"run the model as cross-encoder:{folder}, by sentence-transformers"
            )

    @classmethod
    @abstractmethod
    def _decoder(cls, folder: Path, options: ScorerOptions, mode: Mode) -> Decoder:
        """The network, with the head that gives the family's score."""

    @classmethod
    @abstractmethod
    def _tokenizer(cls, folder: Path, options: ScorerOptions) -> PromptTokenizer:
        """What makes the family's prompts."""


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder's tokenizer.json, as it is there, whatever code may lie beside it.

    Raises:
        ModelError: there is none.
    """
    with loading(folder, "a tokenizer"):
        return PreTrainedTokenizerFast.from_pretrained(folder)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """The ids of a fixed piece of a prompt, control tokens included."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def length_limit(max_length: int, positions: int | None, fixed: int) -> int:
    """``max_length``, or less where that and ``fixed`` tokens would be more than the positions."""
    return max_length if positions is None else min(max_length, positions - fixed)
