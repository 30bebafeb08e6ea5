"""The command `benchmark cache`."""

from typing import Annotated

import typer

from ..command import command_console
from ..options import AsJson, Verbose

app = typer.Typer()


@app.command("cache", epilog="Example: rerank-batch benchmark cache --pairs 50000000")
def cache(
    pairs: Annotated[int, typer.Option(min=50, help="Pairs in the file.")] = 50_000_000,
    hits: Annotated[float, typer.Option(min=0, max=1, help="Share that is found.")] = 0.95,
    windows: Annotated[int, typer.Option(min=1, help="Windows of 256 queries to look up.")] = 200,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Look-ups in a file of cached scores that is mapped, not loaded: pairs per second, memory."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.benchmarks import score_cache as job

        job.cache(pairs, hits, windows, console)
