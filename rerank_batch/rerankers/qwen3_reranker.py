"""Qwen3-Reranker: a chat model judges a document, the score is logit(yes) - logit(no).

The prompt and the tokens that are compared are those of the model card
(https://huggingface.co/Qwen/Qwen3-Reranker-0.6B): the system's words and the answer's beginning are
encoded by themselves, instruction, query and document as one text. That text is cut at its end so
that the whole prompt has at most ``max_length`` tokens, 8192 by default.
"""

from pathlib import Path
from typing import Any

from rerank_batch.errors import ModelError
from rerank_batch.models.settings import model_settings
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.rerankers.decoders import DecoderScorer, ids_of, length_limit, load_tokenizer
from rerank_batch.scoring.decoder import Decoder, load_decoder
from rerank_batch.scoring.device import pick_device
from rerank_batch.scoring.modes import Mode
from rerank_batch.scoring.prompts import PromptTokenizer, Template

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"

_MAX_LENGTH = 8192
_SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
_BEFORE = f"<|im_start|>system\n{_SYSTEM}<|im_end|>\n<|im_start|>user\n"
_AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


class Qwen3RerankerScorer(DecoderScorer):
    """``instruction`` is the task the model is told; `INSTRUCTION` by default."""

    instruction = INSTRUCTION

    @classmethod
    def _decoder(cls, folder: Path, options: ScorerOptions, mode: Mode) -> Decoder:
        tokenizer = load_tokenizer(folder)
        yes, no = (_token(tokenizer, word, folder) for word in ("yes", "no"))
        model = load_decoder(folder, "Qwen3ForCausalLM", mode.format)
        rows = model.get_output_embeddings().weight.float()
        return Decoder(model.base_model, rows[yes] - rows[no], pick_device())

    @classmethod
    def _tokenizer(cls, folder: Path, options: ScorerOptions) -> PromptTokenizer:
        tokenizer = load_tokenizer(folder)
        before, after = ids_of(tokenizer, _BEFORE), ids_of(tokenizer, _AFTER)
        positions = model_settings(folder).get("max_position_embeddings")
        limit = length_limit(options.max_length or _MAX_LENGTH, positions, 0)
        room = limit - len(before) - len(after)
        instruction = INSTRUCTION if options.instruction is None else options.instruction
        template = Template(
            before=before,
            query=(f"<Instruct>: {instruction}\n<Query>: ", "\n<Document>:"),
            between=(),
            # The space goes with the document's first word, as it does in one text.
            document=" ",
            after=after,
            query_room=room,
            room=room,
        )
        return PromptTokenizer(tokenizer, template, control=("<think>", "</think>"))


def _token(tokenizer: Any, word: str, folder: Path) -> int:
    number = tokenizer.get_vocab().get(word)
    if number is None:
        raise ModelError(f"{folder}: {word!r} is no token there, so this is no Qwen3-Reranker")
    return int(number)
