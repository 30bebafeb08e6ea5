"""BGE reranker v2-minicpm-layerwise: a score after any layer, and none above is computed.

The published checkpoint (https://huggingface.co/BAAI/bge-reranker-v2-minicpm-layerwise) comes with
code of its own, which is never run. What it computes is a Llama whose embeddings are multiplied by
``scale_emb`` and whose every residual branch is multiplied by ``scale_depth / sqrt(layers)``, where
``layers`` are all of the checkpoint's: both are folded into the weights. The hidden state after the
chosen layer goes through the model's final norm, whichever layer that is, and is multiplied with
that layer's head, a vector; the first head belongs to ``start_layer``. Heads of this kind
(``head_type`` simple) get the hidden state as it is, without MiniCPM's division by
``hidden_size / dim_model_base``, which is for heads over the vocabulary. The prompt is
`bge_gemma`'s.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from rerank_batch.errors import ModelError
from rerank_batch.models.settings import model_settings
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.rerankers.bge_gemma import bge_prompts
from rerank_batch.rerankers.decoders import DecoderScorer, load_tokenizer
from rerank_batch.scoring.decoder import TYPES, Decoder
from rerank_batch.scoring.device import pick_device
from rerank_batch.scoring.loading import loading
from rerank_batch.scoring.modes import Mode
from rerank_batch.scoring.prompts import PromptTokenizer
from rerank_batch.scoring.weights import Exempt, weights_of

_SHAPE = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "attention_bias",
    "rope_theta",
    "rope_scaling",
)


class BgeLayerwiseScorer(DecoderScorer):
    """``layer`` is the last one that is computed; by default the model's last.

    Raises:
        ModelError: there is no head at that layer.
    """

    @classmethod
    def _decoder(cls, folder: Path, options: ScorerOptions, mode: Mode) -> Decoder:
        settings = model_settings(folder)
        with loading(folder, "a layerwise MiniCPM"):
            _refuse_others(settings)
        layer, number = _layer(settings, options.layer)
        with weights_of(folder, "a layerwise MiniCPM", unread=_unread(settings, layer)):
            model: Any = LlamaModel.from_pretrained(
                folder,
                config=LlamaConfig(
                    **{key: settings[key] for key in _SHAPE if key in settings},
                    num_hidden_layers=layer,
                ),
                dtype=TYPES[mode.format],
                use_safetensors=True,
            )
        with loading(folder, "a layerwise MiniCPM"):
            _fold_scales(model, settings)
            head = _tensor(folder, f"lm_head.{number}.linear_head.weight", settings["hidden_size"])
        return Decoder(model, head[0], pick_device())

    @classmethod
    def _tokenizer(cls, folder: Path, options: ScorerOptions) -> PromptTokenizer:
        return bge_prompts(load_tokenizer(folder), folder, options)


def _refuse_others(settings: Mapping[str, Any]) -> None:
    if settings.get("architectures") != ["LayerWiseMiniCPMForCausalLM"]:
        raise ValueError(f"its config.json says {settings.get('architectures')}")
    if settings.get("head_type", "simple") != "simple" or not settings.get("head_multi", True):
        raise ValueError("its heads are not one vector for each layer")


def _layer(settings: Mapping[str, Any], requested: int | None) -> tuple[int, int]:
    """The layer to stop after, and which of the heads is its."""
    first, last = settings.get("start_layer", 8), settings["num_hidden_layers"]
    layer = last if requested is None else requested
    if not first <= layer <= last:
        raise ModelError(f"layer: {layer} has no head; choose one from {first} to {last}")
    return layer, layer - first


@torch.no_grad()
def _fold_scales(model: Any, settings: Mapping[str, Any]) -> None:
    model.embed_tokens.weight *= settings.get("scale_emb", 1)
    branch = settings.get("scale_depth", 1) / math.sqrt(settings["num_hidden_layers"])
    for layer in model.layers:
        for last in (layer.self_attn.o_proj, layer.mlp.down_proj):
            for weights in last.parameters():
                weights *= branch


def _unread(settings: Mapping[str, Any], layer: int) -> list[Exempt]:
    """Names of the layers above the one to stop after."""
    above = "|".join(str(number) for number in range(layer, settings["num_hidden_layers"]))
    names = rf"^(model\.)?layers\.({above})\."
    return [Exempt(names, "layers above the last that is computed")] if above else []


def _tensor(folder: Path, name: str, width: int) -> Tensor:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            if name in weights.keys():  # noqa: SIM118
                found: Tensor = weights.get_tensor(name)
                if found.shape != (1, width):
                    raise ModelError(
                        f"its weights do not fit: {name} has another shape "
                        f"({list(found.shape)} in the file, {[1, width]} by config.json)"
                    )
                return found
    raise ModelError(f"its weights do not fit: {name} is missing. The file is not whole")
