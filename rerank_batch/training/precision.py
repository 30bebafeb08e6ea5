"""In which numbers training computes: bf16 where this machine is faster in it."""

import time

import torch

from rerank_batch.errors import ConfigError
from rerank_batch.scoring.device import pick_device

_SHAPE = (480, 384, 1536)
"""Tokens, width and inner width of a feed-forward product of a small encoder."""

_SECONDS = 0.3
_FASTER = 1.15


def pick_precision(setting: str, threads: int) -> str:
    """fp32 or bf16: the ``setting`` itself, or for auto what a short measurement says.

    Raises:
        ConfigError: the setting is bf16 and the GPU has none.
    """
    cuda = pick_device() == "cuda"
    if cuda and setting != "fp32":
        if torch.cuda.is_bf16_supported():
            return "bf16"
        if setting == "bf16":
            raise ConfigError("precision: this GPU has no bf16")
        return "fp32"
    if setting != "auto":
        return setting
    torch.set_num_threads(threads)
    return "bf16" if _seconds("fp32") > _FASTER * _seconds("bf16") else "fp32"


def _seconds(precision: str) -> float:
    """The best time of one product there and back under autocast."""
    tokens, width, inner = _SHAPE
    left = torch.ones(tokens, width, requires_grad=True)
    right = torch.ones(width, inner, requires_grad=True)
    best, until = float("inf"), 0.0
    while not until or time.perf_counter() < until:
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            product = left @ right
        torch.autograd.backward(product.sum())
        if until:
            best = min(best, time.perf_counter() - began)
        # The first pass prepares kernels and is not counted.
        until = until or time.perf_counter() + _SECONDS
    return best
