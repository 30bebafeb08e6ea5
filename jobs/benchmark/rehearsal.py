"""The command `benchmark rehearsal`."""

from pathlib import Path
from typing import Annotated

import typer

from rerank_batch.errors import ConfigError

from ..command import command_console, config_from_options
from ..options import AsJson, ConfigFile, Overrides, Verbose, expand_path

app = typer.Typer()


@app.command(
    "rehearsal", epilog="Example: rerank-batch benchmark rehearsal configs/quickstart.yaml"
)
def rehearsal(
    config: ConfigFile,
    overrides: Overrides = None,
    documents: Annotated[int, typer.Option(min=6_400, help="The largest size.")] = 1_000_000,
    queries: Annotated[int, typer.Option(min=640, help="Distinct ones a night.")] = 50_000,
    node_cpus: Annotated[int, typer.Option(min=1, help="CPUs of a node projected to.")] = 16,
    node_memory_gb: Annotated[float, typer.Option(min=1, help="Its memory.")] = 64.0,
    node_price: Annotated[float, typer.Option(min=0, help="Its price an hour.")] = 0.8,
    hours: Annotated[float, typer.Option(min=0.1, help="Hours that a night may have.")] = 6.0,
    documents_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="What your encoder does on such a node.")
    ] = None,
    pairs_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="What your reranker does on such a node.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--keep", metavar="FOLDER", callback=expand_path, help="What is measured, made once."
        ),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Nights of a million documents made of your own, and what larger ones would cost."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.benchmarks import rehearsal as job
        from rerank_batch.benchmarks.projection import Models, Nodes

        if (documents_per_second is None) != (pairs_per_second is None):
            raise ConfigError("give both --documents-per-second and --pairs-per-second, or neither")
        models = None
        if documents_per_second is not None and pairs_per_second is not None:
            models = Models(documents_per_second, pairs_per_second)
        nodes = Nodes(node_cpus, node_memory_gb, node_price, hours)
        asked = job.Asked(documents, queries, nodes, models)
        job.rehearsal(config_from_options(config, overrides), asked, folder, console)
