"""The command `benchmark done`."""

from typing import Annotated

import typer

from ..command import command_console
from ..options import AsJson, Verbose

app = typer.Typer()


@app.command("done", epilog="Example: rerank-batch benchmark done --rows 10000000")
def done(
    rows: Annotated[int, typer.Option(help="Planned queries.")] = 10_000_000,
    block_rows: Annotated[int, typer.Option(help="Queries per block.")] = 256,
    share: Annotated[float, typer.Option(help="Share that is done.")] = 0.95,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """The done-bitmap of a large run: its memory, and the time to find what is left to do."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.benchmarks import protocol as job

        job.done(rows, block_rows, share, console)
