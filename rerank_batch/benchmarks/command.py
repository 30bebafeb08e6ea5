"""How a measurement runs a command in a process of its own."""

import sys
from importlib.util import find_spec


def command_line(*arguments: str) -> list[str]:
    """`rerank-batch ARGUMENTS`, installed or from a checkout."""
    package = "rerank_batch.commands" if find_spec("rerank_batch.commands") else "jobs"
    return [sys.executable, "-m", package, *arguments]
