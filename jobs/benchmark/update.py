"""The command `benchmark update`."""

from typing import Annotated

import typer

from ..command import command_console, config_from_options
from ..options import AsJson, ConfigFile, Overrides, Verbose

app = typer.Typer()


@app.command("update", epilog="Example: rerank-batch benchmark update configs/quickstart.yaml")
def update(
    config: ConfigFile,
    overrides: Overrides = None,
    documents: Annotated[int, typer.Option(min=100, help="Documents to make up.")] = 40_000,
    share: Annotated[float, typer.Option(min=0, max=0.3, help="Share of them to change.")] = 0.01,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """An update of the index after a part of the corpus changed, beside a full build."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.benchmarks import update as job

        job.update(config_from_options(config, overrides), documents, share, console)
