"""mxbai-rerank v2: a Qwen2 chat model judges a document, the score is logit(1) - logit(0).

Prompt, cuts and tokens are those of the package mxbai-rerank 0.1.6
(https://github.com/mixedbread-ai/mxbai-rerank; the model card,
https://huggingface.co/mixedbread-ai/mxbai-rerank-base-v2, points there). Each piece is encoded by
itself. The query keeps three quarters of ``max_length`` tokens, query and document keep
``max_length`` together, 8192 by default; the words around them are not counted.
"""

from pathlib import Path

from rerank_batch.models.settings import model_settings
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.rerankers.decoders import DecoderScorer, ids_of, length_limit, load_tokenizer
from rerank_batch.scoring.decoder import Decoder, load_decoder
from rerank_batch.scoring.device import pick_device
from rerank_batch.scoring.modes import Mode
from rerank_batch.scoring.prompts import PromptTokenizer, Template

_MAX_LENGTH = 8192
_BEFORE = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    "<|im_end|>\n<|im_start|>user\n"
)
_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For "
    "each query-document pair, carefully analyze the semantic relationship between them, then "
    "provide your binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
)
_AFTER = "<|im_end|>\n<|im_start|>assistant\n"


class MxbaiV2Scorer(DecoderScorer):
    """``instruction`` stands in front of the query; by default there is none."""

    instruction = ""

    @classmethod
    def _decoder(cls, folder: Path, options: ScorerOptions, mode: Mode) -> Decoder:
        tokenizer = load_tokenizer(folder)
        model = load_decoder(folder, "Qwen2ForCausalLM", mode.format)
        rows = model.get_output_embeddings().weight.float()
        one, zero = (ids_of(tokenizer, digit)[0] for digit in "10")
        return Decoder(model.base_model, rows[one] - rows[zero], pick_device())

    @classmethod
    def _tokenizer(cls, folder: Path, options: ScorerOptions) -> PromptTokenizer:
        tokenizer = load_tokenizer(folder)
        before, line, task, end = (
            ids_of(tokenizer, text) for text in (_BEFORE, "\n", _TASK, _AFTER)
        )
        after = line + task + end
        positions = model_settings(folder).get("max_position_embeddings")
        limit = length_limit(options.max_length or _MAX_LENGTH, positions, len(before) + len(after))
        first_line = f"instruction: {options.instruction}\n" if options.instruction else ""
        template = Template(
            before=before,
            query=(f"{first_line}query: ", ""),
            between=line,
            document="document: ",
            after=after,
            query_room=limit * 3 // 4,
            room=limit,
        )
        return PromptTokenizer(tokenizer, template)
