"""Decoders that rerank: one number from the hidden state of a prompt's last token.

What the prompts of a query share is computed once, where it has more than one document. Prompts are
padded on the right and read at their last real token: under a causal mask no token sees what stands
behind it, so that the numbers are those of left padding and no positions have to be shifted. Of the
vocabulary only the tokens that a family compares are ever multiplied with.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.cache_utils import Cache, DynamicLayer

from rerank_batch.config import Format
from rerank_batch.progress import pairs as progress
from rerank_batch.scoring.packing import TokenBudget
from rerank_batch.scoring.prompts import PromptTokenizer, TokenPrompt
from rerank_batch.scoring.runtimes.base import FloatArray
from rerank_batch.scoring.tokens import TokenBatch
from rerank_batch.scoring.weights import weights_of

IntArray = NDArray[np.int64]

TYPES: dict[Format, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Decoder:
    """A transformer without its head.

    ``head`` [width] is what the last token's hidden state is multiplied with: a row of the head's
    weights, or the difference of two. That product is computed in float32.
    """

    even, ahead = True, 1

    def __init__(self, transformer: Any, head: Tensor, device: str) -> None:
        self._transformer = transformer.to(device).eval()
        self._head = head.detach().float().to(device)
        self._device = device

    @torch.inference_mode()
    def read(self, prefix: IntArray) -> Cache:
        """The beginning of a prompt, to be given to `score` any number of times."""
        kept = Cache(layer_class_to_replicate=DynamicLayer)
        self._transformer(input_ids=self._there(prefix[None]), past_key_values=kept, use_cache=True)
        return Cache(layers=[_SharedPrefix(layer.keys, layer.values) for layer in kept.layers])

    @torch.inference_mode()
    def score(self, rows: Sequence[IntArray], prefix: Cache | None = None) -> Tensor:
        """Float32 [n] of prompts that go on behind ``prefix``; on a GPU still being computed."""
        lengths = np.array([len(row) for row in rows])
        ids = np.zeros((len(rows), lengths.max()), np.int64)
        for padded, row in zip(ids, rows, strict=True):
            padded[: len(row)] = row
        start = prefix.get_seq_length() if prefix is not None else 0
        hidden = self._transformer(
            input_ids=self._there(ids),
            position_ids=torch.arange(start, start + ids.shape[1], device=self._device)[None],
            past_key_values=prefix,
            use_cache=prefix is not None,
        ).last_hidden_state
        last = hidden[torch.arange(len(rows), device=self._device), self._there(lengths - 1)]
        scores: Tensor = last.float() @ self._head
        return scores

    def run(self, batch: TokenBatch) -> Tensor:
        """See `Runtime.run`: whole prompts of one length, for measuring."""
        return self.score(list(batch.even()[0]))

    def fetch(self, pending: Sequence[Tensor]) -> list[FloatArray]:
        """See `Runtime.fetch`."""
        return [each.cpu().numpy() for each in pending]

    def _there(self, array: IntArray) -> Tensor:
        return torch.from_numpy(array).to(self._device)


class _SharedPrefix(DynamicLayer):
    """Keys and values of one prefix [1, heads, tokens, width] for every row of any batch.

    Keeps nothing of the rows: their keys and values live as long as the layer is computed.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """The prefix in front of each row."""
        rows = (len(key_states), -1, -1, -1)
        return (
            torch.cat([self.keys.expand(rows), key_states], dim=-2),
            torch.cat([self.values.expand(rows), value_states], dim=-2),
        )


class DecoderEngine:
    """Scores pairs by their prompts, the longest first, cut into batches by a token budget.

    The tokens of a shared prefix count for each of its documents: attention reads them for each.
    """

    def __init__(self, tokenizer: PromptTokenizer, decoder: Decoder, budget: TokenBudget) -> None:
        self.tokenizer = tokenizer
        self.decoder = decoder
        self.budget = budget

    def score(
        self, queries: Sequence[str], documents: Sequence[Sequence[str]]
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Scores of all pairs, query by query, and whether each pair was cut."""
        prompts = self.tokenizer.prompts(queries, documents)
        sizes = [len(prompt.bodies) for prompt in prompts]
        starts = np.cumsum([0, *sizes])
        counts = _concatenate(
            (np.bincount(p.which, minlength=len(p.bodies)) for p in prompts), np.int64
        )
        places: list[IntArray] = []
        pending: list[Tensor] = []

        def done(at: IntArray, values: Tensor) -> None:
            places.append(at)
            pending.append(values)
            progress.scored(int(counts[at].sum()))

        alone = np.flatnonzero(np.array(sizes, np.int64) == 1)
        whole = [self._tails(prompts[i], prompts[i].prefix)[0] for i in alone]
        self._run(whole, starts[alone], None, done)
        for prompt, start, size in zip(prompts, starts, sizes, strict=False):
            if size > 1:
                at = start + np.arange(size)
                self._run(self._tails(prompt), at, prompt.prefix, done)
        scores = np.empty(starts[-1], np.float32)
        for place, values in zip(places, self.decoder.fetch(pending), strict=True):
            scores[place] = values
        order = _concatenate(
            (start + prompt.which for prompt, start in zip(prompts, starts, strict=False)), np.int64
        )
        cut = _concatenate((prompt.truncated for prompt in prompts), np.bool_)
        return scores[order], cut[order]

    def _tails(self, prompt: TokenPrompt, prefix: IntArray | None = None) -> list[IntArray]:
        """What follows on the prefix for each document; whole prompts where it is given."""
        first = [] if prefix is None else [prefix]
        return [np.concatenate([*first, body, self.tokenizer.after]) for body in prompt.bodies]

    def _run(
        self,
        rows: Sequence[IntArray],
        at: IntArray,
        prefix: IntArray | None,
        done: Callable[[IntArray, Tensor], None],
    ) -> None:
        """Score the rows behind a prefix and hand over where of ``at`` they have their scores."""
        shared = None if prefix is None else self.decoder.read(prefix)
        length = 0 if prefix is None else len(prefix)

        def forward(which: IntArray) -> None:
            done(at[which], self.decoder.score([rows[i] for i in which], shared))

        self.budget.each([length + len(row) for row in rows], forward)


def load_decoder(folder: Path, architecture: str, format: Format) -> Any:
    """The decoder of a folder with its head, as transformers loads it.

    Raises:
        ModelError: the folder holds another model, or not all of its weights.
    """
    with weights_of(folder, f"a {architecture}"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if config.architectures != [architecture]:
            raise ValueError(f"its config.json says {config.architectures}")
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=TYPES[format],
            trust_remote_code=False,
            use_safetensors=True,
        )
    return model


def _concatenate(parts: Iterable[NDArray[Any]], kind: Any) -> NDArray[Any]:
    return np.concatenate([np.empty(0, kind), *parts])
