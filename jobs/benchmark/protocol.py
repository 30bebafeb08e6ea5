"""The command `benchmark protocol`."""

from typing import Annotated

import typer

from ..command import command_console
from ..options import AsJson, RootUri, Verbose

app = typer.Typer()


@app.command("protocol", epilog="Example: rerank-batch benchmark protocol /tmp/runs")
def protocol(
    root: RootUri,
    rows: Annotated[int, typer.Option(help="Result rows to write.")] = 20_000,
    block_rows: Annotated[int, typer.Option(help="Rows per block.")] = 500,
    candidates: Annotated[int, typer.Option(help="Candidates per row.")] = 50,
    rounds: Annotated[int, typer.Option(help="How often each is measured.")] = 5,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What exactly-once costs: the protocol against Ray Data's write_parquet of the same rows."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.benchmarks import protocol as job

        job.protocol(root, rows, block_rows, candidates, rounds, console)
