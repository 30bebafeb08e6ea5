"""How the texts of a batch lie in its tensors, and attention within each text.

There is no padding: the texts of a batch are of one length, or lie one behind the other.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class BatchLayout(Protocol):
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
        """See `BatchLayout.first`."""
        return hidden[:, :1]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
        """See `BatchLayout.attend`."""
        seen = None
        if window is not None:
            place = torch.arange(key.shape[1], device=key.device)
            seen = (place[:, None] - place[None, :]).abs() <= window
        query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2)

    def mean(self, hidden: Tensor) -> Tensor:
        """See `BatchLayout.mean`."""
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
        """See `BatchLayout.first`."""
        return hidden[self.starts[:-1]]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, window: int | None) -> Tensor:
        """See `BatchLayout.attend`."""
        whole = query.shape[0] == key.shape[0]
        if not query.is_cuda:
            return self._attend_one_by_one(query, key, value, window, whole)
        from torch.nn.attention.varlen import varlen_attn

        one_each = torch.arange(len(self.starts), dtype=torch.int32, device=query.device)
        attended: Any = varlen_attn(
            query,
            key,
            value,
            self.starts if whole else one_each,
            self.starts,
            self.longest if whole else 1,
            self.longest,
            window_size=(-1, -1) if window is None else (window, window),
        )
        result: Tensor = attended
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
            attended = F.scaled_dot_product_attention(
                asking.transpose(0, 1)[None],
                key[start:stop].transpose(0, 1)[None],
                value[start:stop].transpose(0, 1)[None],
                attn_mask=None if window is None else near,
            )
            parts.append(attended[0].transpose(0, 1))
        return torch.cat(parts)

    def mean(self, hidden: Tensor) -> Tensor:
        """See `BatchLayout.mean`."""
        lengths = self.starts.diff()
        owner = torch.repeat_interleave(torch.arange(len(lengths), device=hidden.device), lengths)
        sums = hidden.new_zeros(len(lengths), hidden.shape[-1]).index_add_(0, owner, hidden)
        return sums / lengths[:, None].to(hidden.dtype)
