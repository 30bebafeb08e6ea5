"""The command `benchmark nightly`."""

from typing import Annotated

import typer

from ..command import command_console, config_from_options
from ..options import AsJson, ConfigFile, Overrides, Verbose

app = typer.Typer()


@app.command("nightly", epilog="Example: rerank-batch benchmark nightly configs/quickstart.yaml")
def nightly(
    config: ConfigFile,
    overrides: Overrides = None,
    new: Annotated[
        float, typer.Option(min=0, max=1, help="Share of pairs that were not scored before.")
    ] = 0.05,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What the score cache saves: a whole run, then the same one with most pairs known."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.benchmarks import overhead as job

        config_from_options(config, overrides)
        job.nightly(config, overrides or [], new, console)
