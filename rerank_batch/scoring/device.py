"""Which device a model runs on, and its first pass there."""

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def pick_device() -> str:
    """CUDA where this process was given a GPU, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def first_pass(forward: Callable[[], T], threads: int) -> T:
    """Make a model's first pass with one thread, and leave torch with ``threads``.

    MKL chooses the kernels of its vector functions when they are first called. Where two threads
    make that call at once, one can get kernels of another accuracy: in about one process of a
    hundred half of the first batch had logits off by up to 3e-4, so that a resumed run differed.
    """
    torch.set_num_threads(1)
    try:
        return forward()
    finally:
        torch.set_num_threads(threads)
