"""The command `benchmark formats`."""

from typing import Annotated

import typer

from rerank_batch.config import Lossy

from ..command import command_console, config_from_options
from ..options import AsJson, ConfigFile, LossyFormat, Overrides, Verbose

app = typer.Typer()


@app.command("formats", epilog="Example: rerank-batch benchmark formats configs/quickstart.yaml")
def formats(
    config: ConfigFile,
    overrides: Overrides = None,
    allow: Annotated[
        list[LossyFormat] | None,
        typer.Option(help="bf16 or int8; may be repeated. By default both."),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What formats that lose digits do to the measures and lists of the judged queries."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.benchmarks import overhead as job

        config_from_options(config, overrides)
        lossy: tuple[Lossy, ...] = tuple(each.value for each in allow or LossyFormat)
        job.formats(config, overrides or [], lossy, console)
