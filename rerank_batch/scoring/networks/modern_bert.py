"""ModernBERT: rotary positions, local attention, norm before each part."""

from typing import Any

import torch
from torch import Tensor, nn

from rerank_batch.scoring.networks.body import Body, Read, UnknownShape
from rerank_batch.scoring.networks.layout import BatchLayout


def body(base: Any) -> Body:
    """The body of a Hugging Face model.

    Raises:
        UnknownShape: its rotary positions are scaled.
    """
    rotary = base.rotary_emb
    for kind in set(base.config.layer_types):
        if rotary.rope_type[kind] != "default" or getattr(rotary, f"{kind}_attention_scaling") != 1:
            raise UnknownShape("scaled rotary positions")
    return Body(
        embed=_ModernBertEmbeddings(base.embeddings),
        layers=[
            _ModernBertLayer(layer, getattr(rotary, f"{layer.attention_type}_inv_freq"))
            for layer in base.layers
        ],
        last_norm=base.final_norm,
        position_of_padding=None,
    )


def head(model: Any) -> tuple[Read, nn.Module]:
    """What a classifier reads, and its head."""
    read: Read = "mean" if model.config.classifier_pooling == "mean" else "first"
    return read, nn.Sequential(model.head, model.classifier)


class _ModernBertEmbeddings(nn.Module):
    def __init__(self, embeddings: Any) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, ids: Tensor, types: Tensor, positions: Tensor) -> Tensor:
        hidden: Tensor = self.embeddings(input_ids=ids)
        return hidden


class _ModernBertLayer(nn.Module):
    """Norm, attention, add; norm, gated feed forward, add."""

    def __init__(self, layer: Any, frequencies: Tensor) -> None:
        super().__init__()
        self.norm, self.attention = layer.attn_norm, layer.attn
        self.feed_norm, self.feed = layer.mlp_norm, layer.mlp
        self.size = int(layer.attn.head_dim)
        # Transformers counts the token itself, which an inclusive distance does not.
        wide = layer.attn.sliding_window
        self.window = None if wide is None else int(wide) - 1
        self.frequencies = nn.Buffer(frequencies.detach().clone(), persistent=False)

    def forward(self, hidden: Tensor, layout: BatchLayout, first: bool) -> Tensor:
        normed = self.norm(hidden)
        query, key, value = (
            part.unflatten(-1, (-1, self.size))
            for part in self.attention.Wqkv(normed).chunk(3, dim=-1)
        )
        angles = layout.positions[..., None].float() * self.frequencies
        angles = torch.cat([angles, angles], dim=-1)[..., None, :]
        cosine, sine = angles.cos(), angles.sin()
        query, key = (_turned(part, cosine, sine) for part in (query, key))
        if first:
            query, hidden = layout.first(query), layout.first(hidden)
        attended = layout.attend(query, key, value, self.window).flatten(-2)
        hidden = hidden + self.attention.Wo(attended)
        result: Tensor = hidden + self.feed(self.feed_norm(hidden))
        return result


def _turned(part: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary position embedding: Su et al., https://arxiv.org/abs/2104.09864, eq. 34."""
    left, right = part.float().chunk(2, dim=-1)
    return (part.float() * cosine + torch.cat([-right, left], dim=-1) * sine).to(part.dtype)
