"""The command `lookup`."""

from typing import Annotated

import typer

from .command import command_console
from .options import AsJson, Verbose, expand_path

app = typer.Typer()


@app.command(epilog="Example: rerank-batch lookup serving.parquet 'how to sort'")
def lookup(
    where: Annotated[
        str,
        typer.Argument(
            metavar="FILE|ROOT",
            callback=expand_path,
            help="A serving export, or where the runs are.",
        ),
    ],
    query: Annotated[str, typer.Argument(help="The query, however it is typed.")],
    job_name: Annotated[
        str | None, typer.Option("--job", help="With ROOT, where there are several jobs.")
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="With ROOT: this run and not the latest.")
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What readers get for a query: its documents in the latest run, or in a serving export."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.workflows import lookup as job

        from .tables import lookup as table

        table.show(job.lookup(where, query, job_name, run), console)
