#!/bin/sh
# Install the pinned torch: the CPU build on a Linux machine without an NVIDIA GPU, else the
# registry's own build. Usage: install_torch.sh PYTHON CONSTRAINTS
set -eu
python=$1
version=$(sed -n 's/^torch==//p' "$2")

if [ "$(uname -s)" != Linux ] || command -v nvidia-smi >/dev/null 2>&1; then
    exec "$python" -m pip install --quiet "torch==$version"
fi
# A CPU wheel that pip's own configuration offers comes first, then PyTorch's index of CPU wheels.
"$python" -m pip install --quiet "torch==$version+cpu" 2>/dev/null ||
    "$python" -m pip install --quiet "torch==$version" \
        --index-url https://download.pytorch.org/whl/cpu
