"""The command `benchmark encoding`."""

from typing import Annotated

import typer

from ..command import command_console, config_from_options
from ..options import AsJson, ConfigFile, Overrides, Verbose

app = typer.Typer()


@app.command("encoding", epilog="Example: rerank-batch benchmark encoding configs/quickstart.yaml")
def encoding(
    config: ConfigFile,
    overrides: Overrides = None,
    documents: Annotated[int, typer.Option(min=1, help="Documents of the corpus to encode.")] = 500,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of every system.")] = 2,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Encoding documents beside SentenceTransformer.encode: speed, and how equal vectors are."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.benchmarks import retrieval as job

        job.encoding(config_from_options(config, overrides), documents, rounds, threads, console)
