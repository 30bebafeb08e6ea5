"""The command `benchmark scoring`."""

from typing import Annotated

import typer

from rerank_batch.config import Lossy

from ..command import command_console
from ..options import AsJson, LossyFormat, Verbose

app = typer.Typer()


@app.command(
    "scoring", epilog="Example: rerank-batch benchmark scoring --size minilm-l6 --mix passages"
)
def scoring(
    size: Annotated[
        list[str] | None,
        typer.Option(help="minilm-l6, base or large; may be repeated. By default the first two."),
    ] = None,
    mix: Annotated[
        list[str] | None,
        typer.Option(help="short, passages or long-tail; may be repeated. By default all."),
    ] = None,
    pairs: Annotated[int, typer.Option(help="Pairs to score in each round.")] = 640,
    rounds: Annotated[int, typer.Option(help="How often each is measured.")] = 5,
    threads: Annotated[int, typer.Option(help="CPU threads of every system.")] = 2,
    allow: Annotated[
        list[LossyFormat] | None,
        typer.Option(help="Formats that lose digits to measure as well: bf16, int8."),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """The scoring engine beside sentence-transformers: same pairs, weights, lengths and threads."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.benchmarks import scoring as job

        lossy: tuple[Lossy, ...] = tuple(each.value for each in allow or LossyFormat)
        job.scoring(size, mix, pairs, rounds, threads, lossy, console)
