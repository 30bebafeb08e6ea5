"""The forward pass of the transformers that rerankers and bi-encoders are made of.

The weights of a Hugging Face model with none of its control flow. Two things differ, and neither
changes a number: where only the first token of a text is read, the last layer computes keys and
values for all tokens and everything else for that one; and there is no padding, see `rows`. Knows
no tokenizer and no device.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from rerank_batch.scoring.networks.body import Read, UnknownShape
from rerank_batch.scoring.networks.layout import BatchLayout, Even, Packed
from rerank_batch.scoring.networks.registry import BODIES, HEADS


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
        if kind not in BODIES:
            raise UnknownShape(f"{kind} is none of {', '.join(BODIES)}")
        if getattr(base.config, "is_decoder", False):
            raise UnknownShape(f"{kind} is a decoder")
        body = BODIES[kind](base)
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

    def _run(self, hidden: Tensor, layout: BatchLayout) -> Tensor:
        for layer in self.layers[:-1]:
            hidden = layer(hidden, layout, False)
        *_, last = self.layers
        alone = self.read == "first" and last.window is None
        hidden = self.last_norm(last(hidden, layout, alone))
        if self.read == "tokens":
            return hidden
        if self.read == "mean":
            hidden = layout.mean(hidden)
        elif not alone:
            hidden = layout.first(hidden)
        hidden = hidden.reshape(-1, hidden.shape[-1])
        return hidden if self.head is None else self.head(hidden).reshape(-1)


def pair_network(model: Any) -> Network:
    """The network of a Hugging Face sequence classifier with one label.

    Raises:
        UnknownShape: the model is of another shape.
    """
    kind = type(model).__name__
    if kind not in HEADS:
        raise UnknownShape(f"{kind} is none of {', '.join(HEADS)}")
    read, head = HEADS[kind](model)
    return Network(model.base_model, read, head)
