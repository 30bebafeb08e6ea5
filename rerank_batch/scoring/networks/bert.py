"""BERT, RoBERTa and XLM-R: absolute positions, norm after each part."""

from typing import Any

from torch import Tensor, nn

from rerank_batch.scoring.networks.body import Body, Read, UnknownShape
from rerank_batch.scoring.networks.layout import BatchLayout


def body(base: Any) -> Body:
    """The body of a Hugging Face model.

    Raises:
        UnknownShape: its positions are relative.
    """
    if getattr(base.config, "position_embedding_type", None) not in (None, "absolute"):
        raise UnknownShape("relative positions")
    return Body(
        embed=_BertEmbeddings(base.embeddings),
        layers=[_BertLayer(layer) for layer in base.encoder.layer],
        last_norm=nn.Identity(),
        position_of_padding=getattr(base.embeddings, "padding_idx", None),
    )


def bert_head(model: Any) -> tuple[Read, nn.Module]:
    """What a BERT classifier reads, and its head."""
    return "first", _FirstTokenHead(model.bert.pooler, model.classifier)


def roberta_head(model: Any) -> tuple[Read, nn.Module]:
    """What a classifier of RoBERTa or XLM-R reads, and its head."""
    return "first", _FirstTokenHead(model.classifier)


class _BertEmbeddings(nn.Module):
    def __init__(self, embeddings: Any) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, ids: Tensor, types: Tensor, positions: Tensor) -> Tensor:
        hidden: Tensor = self.embeddings(
            input_ids=ids, token_type_ids=types, position_ids=positions
        )
        return hidden


class _BertLayer(nn.Module):
    """Attention, add and norm, feed forward, add and norm."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention = layer.attention.self
        self.heads = int(attention.num_attention_heads)
        self.query, self.key, self.value = attention.query, attention.key, attention.value
        self.out, self.norm = layer.attention.output.dense, layer.attention.output.LayerNorm
        self.up, self.activation = layer.intermediate.dense, layer.intermediate.intermediate_act_fn
        self.down, self.last_norm = layer.output.dense, layer.output.LayerNorm
        self.window = None

    def forward(self, hidden: Tensor, layout: BatchLayout, first: bool) -> Tensor:
        asking = layout.first(hidden) if first else hidden
        query, key, value = (
            part.unflatten(-1, (self.heads, -1))
            for part in (self.query(asking), self.key(hidden), self.value(hidden))
        )
        attended = layout.attend(query, key, value, None).flatten(-2)
        middle = self.norm(self.out(attended) + asking)
        result: Tensor = self.last_norm(self.down(self.activation(self.up(middle))) + middle)
        return result


class _FirstTokenHead(nn.Module):
    """Heads of BERT and RoBERTa cut the first token out of a whole text themselves."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, first: Tensor) -> Tensor:
        logits: Tensor = self.parts(first[:, None])
        return logits
