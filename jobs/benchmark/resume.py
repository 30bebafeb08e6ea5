"""The command `benchmark resume`."""

from typing import Annotated

import typer

from ..command import command_console, config_from_options
from ..options import AsJson, ConfigFile, Overrides, Verbose

app = typer.Typer()


@app.command("resume", epilog="Example: rerank-batch benchmark resume configs/quickstart.yaml")
def resume(
    config: ConfigFile,
    overrides: Overrides = None,
    done: Annotated[float, typer.Option(help="Share of blocks done before.")] = 0.95,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What a resume costs: a whole run, then the same run with most of it done."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.benchmarks import overhead as job

        config_from_options(config, overrides)
        job.resume(config, overrides or [], done, console)
