"""The command `benchmark estimate`."""

from typing import Annotated

import typer

from .command import command_console, config_from_options
from .options import AsJson, ConfigFile, Overrides, Verbose

app = typer.Typer()


@app.command("estimate", epilog="Example: rerank-batch benchmark estimate configs/quickstart.yaml")
def estimate(
    config: ConfigFile,
    overrides: Overrides = None,
    queries: Annotated[int, typer.Option(min=8, help="Queries to try it with.")] = 128,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What the whole run would take: pairs, hours and money, from a sample of the real work."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.workflows import estimate as job

        from .tables import estimate as table

        table.show(job.estimate(config_from_options(config, overrides), queries, console), console)
