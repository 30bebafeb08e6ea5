"""The command `benchmark retrieval`."""

from typing import Annotated

import typer

from ..command import command_console
from ..options import AsJson, Verbose

app = typer.Typer()


@app.command(
    "retrieval", epilog="Example: rerank-batch benchmark retrieval --kind Flat --kind HNSW"
)
def retrieval(
    documents: Annotated[int, typer.Option(min=1000, help="Vectors to search.")] = 100_000,
    dimension: Annotated[int, typer.Option(min=1, help="Numbers in a vector.")] = 384,
    queries: Annotated[int, typer.Option(min=1, help="Queries in a call.")] = 512,
    k: Annotated[int, typer.Option(min=1, help="Documents to find for each.")] = 50,
    kind: Annotated[
        list[str] | None, typer.Option(help="Flat, HNSW, IVF or a factory string; may be repeated.")
    ] = None,
    shards: Annotated[int, typer.Option(min=1, help="Shards of each kind.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of every system.")] = 2,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Search over shards beside plain FAISS over one index: queries per second and recall."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.benchmarks import retrieval as job

        job.retrieval(documents, dimension, queries, k, kind, shards, rounds, threads, console)
