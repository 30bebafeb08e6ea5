"""The command `benchmark scaling`."""

from typing import Annotated

import typer

from ..command import command_console, config_from_options
from ..options import AsJson, ConfigFile, Overrides, Verbose

app = typer.Typer()


@app.command(
    "scaling", epilog="Example: rerank-batch benchmark scaling configs/quickstart.yaml --cpus 1"
)
def scaling(
    config: ConfigFile,
    overrides: Overrides = None,
    actors: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Scorers; may be repeated. By default 1 and 2."),
    ] = None,
    cpus: Annotated[int, typer.Option(min=1, help="Logical CPUs for each scorer.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 5,
    nodes: Annotated[
        bool,
        typer.Option("--nodes", help="Each scorer on a Ray node of its own, all here."),
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """The same work with one scorer and with more, in turn: how many times faster it is."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.benchmarks import scaling as job

        config_from_options(config, overrides)
        asked = job.Asked(tuple(actors or (1, 2)), cpus, rounds, nodes)
        job.scaling(config, overrides or [], asked, console)
