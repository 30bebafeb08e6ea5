"""The command `sample`."""

from pathlib import Path
from typing import Annotated

import typer

from .command import command_console
from .options import AsJson, Verbose, expand_path

app = typer.Typer()


@app.command(epilog="Example: rerank-batch sample .sample")
def sample(
    out: Annotated[Path, typer.Argument(callback=expand_path, help="The folder to write.")],
    docs: Annotated[int, typer.Option(help="How many documents; 0 for all there are.")] = 1500,
    queries: Annotated[int, typer.Option(help="How many queries; 0 for all there are.")] = 400,
    seed: Annotated[int, typer.Option(help="Another seed gives another sample.")] = 0,
    test_share: Annotated[float, typer.Option(help="Share of queries kept for testing.")] = 0.5,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Write a real collection that needs no download: documentation of installed packages."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.workflows import sample as job

        from .tables import sample as table

        table.show(job.sample(out, docs, queries, seed, test_share), console)
