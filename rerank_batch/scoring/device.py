"""Which device, number format and threads a model runs with."""

from collections.abc import Callable

import torch

from rerank_batch.config import Precision


def pick_device() -> str:
    """CUDA where this process was given a GPU, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def pick_dtype(precision: Precision, device: str) -> torch.dtype:
    """float32 on CPUs and bfloat16 on GPUs unless the configuration names one."""
    if precision == "auto":
        return torch.bfloat16 if device == "cuda" else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def first_pass(forward: Callable[[], object], threads: int) -> None:
    """Make a model's first pass with one thread, and leave torch with ``threads``.

    MKL chooses the kernels of its vector functions when they are first called. Where two threads
    make that call at once, one can get kernels of another accuracy: in about one process of a
    hundred half of the first batch had logits off by up to 3e-4, so that a resumed run differed.
    """
    torch.set_num_threads(1)
    forward()
    torch.set_num_threads(threads)
