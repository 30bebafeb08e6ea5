"""What the processor of this machine can do, read from the system and not from the libraries."""

import os
from pathlib import Path


def flags() -> set[str]:
    """The processor's instruction sets as Linux names them; empty elsewhere.

    With ONEDNN_MAX_CPU_ISA, which holds libraries back, nothing is known.
    """
    file = Path("/proc/cpuinfo")
    if "ONEDNN_MAX_CPU_ISA" in os.environ or not file.is_file():
        return set()
    lines = file.read_text(encoding="utf-8").splitlines()
    line = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return set(line.partition(":")[2].split())


def openvino_formats() -> set[str]:
    """The formats that OpenVINO must be able to run here; it may be able to run others."""
    formats = {"fp32"}
    if {"avx512_vnni", "avx_vnni"} & flags():
        formats.add("int8")
    if {"avx512_bf16", "amx_bf16"} & flags():
        formats.add("bf16")
    return formats
