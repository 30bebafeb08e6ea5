"""The command `benchmark evaluation`."""

from pathlib import Path
from typing import Annotated

import typer

from ..command import command_console
from ..options import AsJson, Verbose, expand_path

app = typer.Typer()


@app.command("evaluation", epilog="Example: rerank-batch benchmark evaluation --queries 100000")
def evaluation(
    queries: Annotated[int, typer.Option(help="Queries of the run.")] = 1_000_000,
    candidates: Annotated[int, typer.Option(help="Candidates of each.")] = 100,
    peer_queries: Annotated[int, typer.Option(help="Queries that ir-measures gets.")] = 50_000,
    kept: Annotated[
        Path | None,
        typer.Option(
            "--keep", metavar="FOLDER", callback=expand_path, help="Make the rows there, once."
        ),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What evaluating a large made-up run takes, beside ir-measures in one process."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.benchmarks import evaluation as job

        job.evaluation(queries, candidates, min(peer_queries, queries), kept, console)
