"""Which device and number format a model runs with."""

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
