"""What a network is made of before it is run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from rerank_batch.errors import ModelError

Read = Literal["first", "mean", "tokens"]
"""What is read of a text: its first token, the mean of its tokens, or every one of them."""


class UnknownShape(ModelError):
    """A model whose layers are not of a shape that is known here."""


@dataclass(frozen=True)
class Body:
    """Embeddings, layers and the norm behind the last."""

    embed: Callable[[Tensor, Tensor, Tensor], Tensor]
    layers: list[nn.Module]
    last_norm: nn.Module
    position_of_padding: int | None
    """RoBERTa counts positions from behind this number and gives it to padding tokens."""
