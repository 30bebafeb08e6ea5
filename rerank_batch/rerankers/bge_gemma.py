"""BGE reranker v2-gemma: the score is the logit of "Yes" behind a question about the pair.

Ids as the model card makes them (https://huggingface.co/BAAI/bge-reranker-v2-gemma): the beginning
of text, ``A: query``, a line break, ``B: passage``, a line break and the question, each encoded by
itself. The query keeps three quarters of ``max_length`` tokens; everything in front of the second
line break keeps ``max_length``, 1024 by default.
"""

from pathlib import Path
from typing import Any

from rerank_batch.models.settings import model_settings
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.rerankers.decoders import DecoderScorer, ids_of, length_limit, load_tokenizer
from rerank_batch.scoring.decoder import Decoder, load_decoder
from rerank_batch.scoring.device import pick_device
from rerank_batch.scoring.modes import Mode
from rerank_batch.scoring.prompts import PromptTokenizer, Template

_MAX_LENGTH = 1024
_QUESTION = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the "
    "query by providing a prediction of either 'Yes' or 'No'."
)


class BgeGemmaScorer(DecoderScorer):
    """See the module."""

    @classmethod
    def _decoder(cls, folder: Path, options: ScorerOptions, mode: Mode) -> Decoder:
        yes = ids_of(load_tokenizer(folder), "Yes")[0]
        model = load_decoder(folder, "GemmaForCausalLM", mode.format)
        return Decoder(
            model.base_model, model.get_output_embeddings().weight[yes].clone(), pick_device()
        )

    @classmethod
    def _tokenizer(cls, folder: Path, options: ScorerOptions) -> PromptTokenizer:
        return bge_prompts(load_tokenizer(folder), folder, options)


def bge_prompts(tokenizer: Any, folder: Path, options: ScorerOptions) -> PromptTokenizer:
    """What makes the prompts of the BGE rerankers that are decoders."""
    before = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    line = ids_of(tokenizer, "\n")
    after = line + ids_of(tokenizer, _QUESTION)
    positions = model_settings(folder).get("max_position_embeddings")
    limit = length_limit(options.max_length or _MAX_LENGTH, positions, len(after))
    template = Template(
        before=before,
        query=("A: ", ""),
        between=line,
        document="B: ",
        after=after,
        query_room=limit * 3 // 4,
        room=limit - len(before),
    )
    return PromptTokenizer(tokenizer, template)
