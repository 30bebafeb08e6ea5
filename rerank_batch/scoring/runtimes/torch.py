"""A network run by torch, on a GPU with nothing waited for in between."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rerank_batch.config import Format
from rerank_batch.scoring.networks.network import Network
from rerank_batch.scoring.runtimes.base import FloatArray, Unavailable
from rerank_batch.scoring.tokens import TokenBatch

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchRuntime:
    """Runs the network itself, in its own memory.

    ``packed`` is whether a batch may hold texts of many lengths, one behind the other. None means:
    where there is a kernel for it, which is on GPUs in bfloat16.
    """

    def __init__(
        self, network: Network, format: Format, device: str, packed: bool | None = None
    ) -> None:
        if format not in _TYPES:
            raise Unavailable(f"torch has no {format} here")
        self._network = network.to(device=device, dtype=_TYPES[format]).eval()
        self._device = torch.device(device)
        self._cuda = self._device.type == "cuda"
        self.ahead = 1
        self.even = not (self._cuda and format == "bf16" if packed is None else packed)

    @torch.inference_mode()
    def run(self, batch: TokenBatch) -> Tensor:
        """See `Runtime.run`: on a GPU the result is still being computed."""
        if not self.even:
            starts = np.zeros(len(batch.lengths) + 1, np.int32)
            np.cumsum(batch.lengths, out=starts[1:])
            return self._network.packed(
                self._there(batch.ids),
                self._there(batch.types),
                self._there(batch.positions),
                self._there(starts),
                int(batch.lengths.max()),
            )
        output: Tensor = self._network(*map(self._there, batch.even()))
        return output.flatten(0, 1) if self._network.read == "tokens" else output

    def fetch(self, pending: Sequence[Tensor]) -> list[FloatArray]:
        """See `Runtime.fetch`."""
        if not pending:
            return []
        whole = torch.cat(list(pending)).float().cpu().numpy()
        ends = np.cumsum([len(each) for each in pending])
        return list(np.split(whole, ends[:-1]))

    def _there(self, array: Any) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._cuda else tensor
