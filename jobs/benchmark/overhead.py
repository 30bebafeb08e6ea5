"""The command `benchmark overhead`."""

import typer

from ..command import command_console, config_from_options
from ..options import AsJson, ConfigFile, Overrides, Verbose

app = typer.Typer()


@app.command("overhead", epilog="Example: rerank-batch benchmark overhead configs/quickstart.yaml")
def overhead(
    config: ConfigFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What Ray, storage and the run protocol cost: the job beside its stages in a plain loop."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.benchmarks import overhead as job

        config_from_options(config, overrides)
        job.overhead(config, overrides or [], console)
