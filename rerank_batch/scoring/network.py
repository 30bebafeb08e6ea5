"""The forward pass of the transformers that rerankers and bi-encoders are made of.

BERT, RoBERTa and XLM-R (norm after each part) and ModernBERT (norm before, rotary positions, local
attention) with the weights of a Hugging Face model and none of its control flow. Two things differ,
and neither changes a number: where only the first token of a text is read, the last layer computes
keys and values for all tokens and everything else for that one; and there is no padding: the texts
of a batch are of one length, or lie one behind the other. Knows no tokenizer and no device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rerank_batch.errors import ModelError

Read = Literal["first", "mean", "tokens"]
"""What is read of a text: its first token, the mean of its tokens, or every one of them."""


class UnknownShape(ModelError):
    """A model whose layers are not of a shape that is known here."""


class Rows(Protocol):
    """How the texts of a batch lie in its tensors."""

    @property
    def positions(self) -> Tensor:
        """Those of the tokens."""

    def first(self, hidden: Tensor) -> Tensor:
        """The first token of each text."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
        """Attention within each text, [..., heads, size].

        ``window``: how far a token sees to either side. Where it is None, everywhere, ``query`` may
        be of the first tokens only.
        """

    def mean(self, hidden: Tensor) -> Tensor:
        """The mean over the tokens of each text, [n, width]."""


@dataclass(frozen=True)
class Even:
    """Texts of one length side by side: tensors [n, length, …]."""

    positions: Tensor

    def first(self, hidden: Tensor) -> Tensor:
        """See `Rows.first`."""
        return hidden[:, :1]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
        """See `Rows.attend`."""
        seen = None
        if window is not None:
            place = torch.arange(key.shape[1], device=key.device)
            seen = (place[:, None] - place[None, :]).abs() <= window
        query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2)

    def mean(self, hidden: Tensor) -> Tensor:
        """See `Rows.mean`."""
        return hidden.mean(1)


@dataclass(frozen=True)
class Packed:
    """Texts one behind the other: tensors [tokens, …]; text i is ``starts[i]`` to ``[i + 1]``.

    ``starts`` int32 [n + 1]; ``longest`` is the number of tokens of the longest text.
    """

    positions: Tensor
    starts: Tensor
    longest: int

    def first(self, hidden: Tensor) -> Tensor:
        """See `Rows.first`."""
        return hidden[self.starts[:-1]]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
        """See `Rows.attend`."""
        whole = query.shape[0] == key.shape[0]
        if not query.is_cuda:
            return self._attend_one_by_one(query, key, value, window, whole)
        from torch.nn.attention.varlen import varlen_attn

        one_each = torch.arange(len(self.starts), dtype=torch.int32, device=query.device)
        found: Any = varlen_attn(
            query,
            key,
            value,
            self.starts if whole else one_each,
            self.starts,
            self.longest if whole else 1,
            self.longest,
            window_size=(-1, -1) if window is None else (window, window),
        )
        result: Tensor = found
        return result

    def _attend_one_by_one(
        self, query: Tensor, key: Tensor, value: Tensor, window: int | None, whole: bool
    ) -> Tensor:
        """The same where there is no kernel for it: what it has to give, in plain words."""
        bounds = self.starts.tolist()
        parts = []
        for number, (start, stop) in enumerate(pairwise(bounds)):
            asking = query[start:stop] if whole else query[number : number + 1]
            place = torch.arange(stop - start)
            near = (place[:, None] - place[None, :]).abs() <= (window or 0)
            found = F.scaled_dot_product_attention(
                asking.transpose(0, 1)[None],
                key[start:stop].transpose(0, 1)[None],
                value[start:stop].transpose(0, 1)[None],
                attn_mask=None if window is None else near,
            )
            parts.append(found[0].transpose(0, 1))
        return torch.cat(parts)

    def mean(self, hidden: Tensor) -> Tensor:
        """See `Rows.mean`."""
        lengths = self.starts.diff()
        owner = torch.repeat_interleave(torch.arange(len(lengths), device=hidden.device), lengths)
        sums = hidden.new_zeros(len(lengths), hidden.shape[-1]).index_add_(0, owner, hidden)
        return sums / lengths[:, None].to(hidden.dtype)


class Network(nn.Module):
    """Embeddings, layers and what is read at the end; float32, bfloat16 or float16.

    Gives [n] where there is a head with one output, else [n, width], or for ``read="tokens"`` the
    vectors of all tokens in the layout of the batch.

    Raises:
        UnknownShape: the model is of another shape.
    """

    def __init__(
        self, base: Any, read: Read, head: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        kind = type(base).__name__
        if kind not in _BODIES:
            raise UnknownShape(f"{kind} is none of {', '.join(_BODIES)}")
        if getattr(base.config, "is_decoder", False):
            raise UnknownShape(f"{kind} is a decoder")
        body = _BODIES[kind](base)
        self.embed: Callable[[Tensor, Tensor, Tensor], Tensor] = body.embed
        self.layers = nn.ModuleList(body.layers)
        self.last_norm = body.last_norm
        self.head = head
        self.read = read
        self.position_of_padding = body.position_of_padding

    def forward(self, ids: Tensor, types: Tensor, positions: Tensor) -> Tensor:
        """Texts of one length: ids, type ids, positions int64 [n, length]."""
        return self._run(self.embed(ids, types, positions), Even(positions))

    def packed(
        self, ids: Tensor, types: Tensor, positions: Tensor, starts: Tensor, longest: int
    ) -> Tensor:
        """Texts of any length: int64 [tokens]; see `Packed`."""
        hidden = self.embed(ids[None], types[None], positions[None])[0]
        return self._run(hidden, Packed(positions, starts, longest))

    def _run(self, hidden: Tensor, rows: Rows) -> Tensor:
        for layer in self.layers[:-1]:
            hidden = layer(hidden, rows, False)
        *_, last = self.layers
        alone = self.read == "first" and last.window is None
        hidden = self.last_norm(last(hidden, rows, alone))
        if self.read == "tokens":
            return hidden
        if self.read == "mean":
            hidden = rows.mean(hidden)
        elif not alone:
            hidden = rows.first(hidden)
        hidden = hidden.reshape(-1, hidden.shape[-1])
        return hidden if self.head is None else self.head(hidden).reshape(-1)


def pair_network(model: Any) -> Network:
    """The network of a Hugging Face sequence classifier with one label.

    Raises:
        UnknownShape: the model is of another shape.
    """
    kind = type(model).__name__
    if kind not in _HEADS:
        raise UnknownShape(f"{kind} is none of {', '.join(_HEADS)}")
    read, head = _HEADS[kind](model)
    return Network(model.base_model, read, head)


@dataclass(frozen=True)
class _Body:
    embed: Callable[[Tensor, Tensor, Tensor], Tensor]
    layers: list[nn.Module]
    last_norm: nn.Module
    position_of_padding: int | None
    """RoBERTa counts positions from behind this number and gives it to padding tokens."""


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

    def forward(self, hidden: Tensor, rows: Rows, first: bool) -> Tensor:
        asking = rows.first(hidden) if first else hidden
        query, key, value = (
            part.unflatten(-1, (self.heads, -1))
            for part in (self.query(asking), self.key(hidden), self.value(hidden))
        )
        found = rows.attend(query, key, value, None).flatten(-2)
        middle = self.norm(self.out(found) + asking)
        result: Tensor = self.last_norm(self.down(self.activation(self.up(middle))) + middle)
        return result


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

    def forward(self, hidden: Tensor, rows: Rows, first: bool) -> Tensor:
        normed = self.norm(hidden)
        query, key, value = (
            part.unflatten(-1, (-1, self.size))
            for part in self.attention.Wqkv(normed).chunk(3, dim=-1)
        )
        angles = rows.positions[..., None].float() * self.frequencies
        angles = torch.cat([angles, angles], dim=-1)[..., None, :]
        cosine, sine = angles.cos(), angles.sin()
        query, key = (_turned(part, cosine, sine) for part in (query, key))
        if first:
            query, hidden = rows.first(query), rows.first(hidden)
        found = rows.attend(query, key, value, self.window).flatten(-2)
        hidden = hidden + self.attention.Wo(found)
        result: Tensor = hidden + self.feed(self.feed_norm(hidden))
        return result


def _turned(part: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary position embedding: Su et al., https://arxiv.org/abs/2104.09864, eq. 34."""
    left, right = part.float().chunk(2, dim=-1)
    return (part.float() * cosine + torch.cat([-right, left], dim=-1) * sine).to(part.dtype)


def _bert(base: Any) -> _Body:
    if getattr(base.config, "position_embedding_type", None) not in (None, "absolute"):
        raise UnknownShape("relative positions")
    return _Body(
        embed=_BertEmbeddings(base.embeddings),
        layers=[_BertLayer(layer) for layer in base.encoder.layer],
        last_norm=nn.Identity(),
        position_of_padding=getattr(base.embeddings, "padding_idx", None),
    )


def _modern_bert(base: Any) -> _Body:
    rotary = base.rotary_emb
    for kind in set(base.config.layer_types):
        if rotary.rope_type[kind] != "default" or getattr(rotary, f"{kind}_attention_scaling") != 1:
            raise UnknownShape("scaled rotary positions")
    return _Body(
        embed=_ModernBertEmbeddings(base.embeddings),
        layers=[
            _ModernBertLayer(layer, getattr(rotary, f"{layer.attention_type}_inv_freq"))
            for layer in base.layers
        ],
        last_norm=base.final_norm,
        position_of_padding=None,
    )


_BODIES: dict[str, Callable[[Any], _Body]] = {
    "BertModel": _bert,
    "RobertaModel": _bert,
    "XLMRobertaModel": _bert,
    "ModernBertModel": _modern_bert,
}


class _FirstTokenHead(nn.Module):
    """Heads of BERT and RoBERTa cut the first token out of a whole text themselves."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, first: Tensor) -> Tensor:
        logits: Tensor = self.parts(first[:, None])
        return logits


def _bert_head(model: Any) -> tuple[Read, nn.Module]:
    return "first", _FirstTokenHead(model.bert.pooler, model.classifier)


def _roberta_head(model: Any) -> tuple[Read, nn.Module]:
    return "first", _FirstTokenHead(model.classifier)


def _modern_bert_head(model: Any) -> tuple[Read, nn.Module]:
    read: Read = "mean" if model.config.classifier_pooling == "mean" else "first"
    return read, nn.Sequential(model.head, model.classifier)


_HEADS: dict[str, Callable[[Any], tuple[Read, nn.Module]]] = {
    "BertForSequenceClassification": _bert_head,
    "RobertaForSequenceClassification": _roberta_head,
    "XLMRobertaForSequenceClassification": _roberta_head,
    "ModernBertForSequenceClassification": _modern_bert_head,
}
