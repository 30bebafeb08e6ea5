"""The model that is trained: where it starts, which of its weights learn, how it is saved.

A checkpoint holds the weights that learn and nothing else; the rest is in the start model, which
is kept beside it as an ordinary cross-encoder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder

from rerank_batch.errors import ConfigError, ModelError
from rerank_batch.models.settings import model_settings
from rerank_batch.scoring.loading import quiet
from rerank_batch.scoring.weights import check_modules, weights_of
from rerank_batch.training.config import FinetuneConfig, LoraConfig

_HEAD = "ForSequenceClassification"


def write_start(source: Path, config: FinetuneConfig, out: Path) -> None:
    """Write the start model as a cross-encoder with one logit that reads ``max_length`` tokens.

    What has no such head gets a fresh one, drawn by ``config.seed``: training fits it. All else has
    to be in the files.

    Raises:
        ModelError: the model is a decoder, or does not load, or its weights do not fit.
    """
    architectures = model_settings(source).get("architectures") or [""]
    if architectures[0].endswith("ForCausalLM"):
        raise ModelError(f"{source} is a decoder ({architectures[0]}); finetune trains encoders")
    fresh = not has_head(source)
    with weights_of(source, "a cross-encoder to start from", fresh_head=fresh):
        torch.manual_seed(config.seed)
        model: Any = CrossEncoder(
            str(source),
            num_labels=1,
            max_length=config.max_length,
            device="cpu",
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
        )
    check_modules(source, model)
    positions = getattr(model.model.config, "max_position_embeddings", config.max_length)
    if config.max_length > positions:
        raise ConfigError(
            f"max_length: {config.max_length}, and {source} reads {positions} tokens at most"
        )
    save(model, out)


def has_head(source: Path) -> bool:
    """Whether the model is a cross-encoder already, or gets a fresh head."""
    architectures = model_settings(source).get("architectures") or [""]
    return str(architectures[0]).endswith(_HEAD)


def load_start(folder: Path, config: FinetuneConfig) -> tuple[Any, Any]:
    """The start model in memory, ready to learn, and its LoRA tuner (None without one)."""
    with weights_of(folder, "the start model"):
        model: Any = CrossEncoder(
            str(folder),
            device="cpu",
            model_kwargs={"dtype": torch.float32, "use_safetensors": True},
        )
    if config.dropout is not None:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = config.dropout
    tuner = None if config.lora is None else _add_lora(model.model, config.lora, config.seed)
    if config.freeze_embeddings:
        for name, parameter in model.model.base_model.named_parameters():
            if name.startswith("embeddings."):
                parameter.requires_grad_(False)
    return model, tuner


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    """The weights that learn, by name."""
    return {
        name: parameter.detach()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def save_trained(model: Any, file: Path) -> None:
    """Write the weights that learn; whole or not at all."""
    weights = {name: tensor.cpu().contiguous() for name, tensor in trained_weights(model).items()}
    partial = file.with_suffix(".partial")
    save_file(weights, partial)
    partial.replace(file)


def load_trained(model: Any, file: Path) -> None:
    """Put weights that `save_trained` wrote back.

    Raises:
        ModelError: they are not those of this model.
    """
    saved: Mapping[str, torch.Tensor] = load_file(file)
    here = trained_weights(model)
    if saved.keys() != here.keys():
        raise ModelError(f"{file} holds weights of another model")
    with torch.no_grad():
        for name, tensor in here.items():
            tensor.copy_(saved[name])


def write_tuned(start: Path, weights: Path, config: FinetuneConfig, out: Path) -> None:
    """Write the start model with trained weights in it as an ordinary cross-encoder."""
    model, tuner = load_start(start, config)
    load_trained(model, weights)
    if tuner is not None:
        tuner.merge_and_unload()
    save(model, out)


def save(model: Any, out: Path) -> None:
    """Write safetensors, tokenizer and settings, without a card."""
    with quiet():
        model.save_pretrained(str(out), create_model_card=False)


def _add_lora(network: Any, config: LoraConfig, seed: int) -> Any:
    """Adapters in every linear layer below the head; the head learns in full."""
    try:
        from peft import LoraConfig as PeftConfig
        from peft.tuners.lora import LoraModel
    except ImportError:
        raise ConfigError(
            "lora needs peft; install it with: pip install 'rerank-batch[train]'"
        ) from None
    encoder = network.base_model
    prefix = f"{network.base_model_prefix}."
    targets = [
        prefix + name
        for name, module in encoder.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    torch.manual_seed(seed)
    settings = PeftConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets,
    )
    tuner = LoraModel(network, settings, "default")
    for name, parameter in network.named_parameters():
        if not name.startswith(prefix):
            parameter.requires_grad_(True)
    return tuner
