"""The command `benchmark labels`."""

from typing import Annotated

import typer

from ..command import command_console
from ..options import AsJson, Verbose

app = typer.Typer()


@app.command("labels", epilog="Example: rerank-batch benchmark labels --queries 20000")
def labels(
    documents: Annotated[int, typer.Option(min=100, help="Documents to make up.")] = 200_000,
    queries: Annotated[int, typer.Option(min=20, help="Queries to make up.")] = 112_000,
    candidates: Annotated[int, typer.Option(min=1, help="Candidates of each.")] = 30,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Mining of a made-up run, a million label rows by default: rows per second, peak memory."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.benchmarks import label_runs as job

        job.labels(documents, queries, candidates, console)
