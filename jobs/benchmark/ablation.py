"""The command `benchmark ablation`."""

from typing import Annotated

import typer

from ..command import command_console
from ..options import AsJson, Verbose

app = typer.Typer()


@app.command("ablation", epilog="Example: rerank-batch benchmark ablation --mix long-tail")
def ablation(
    size: Annotated[str, typer.Option(help="minilm-l6, base or large.")] = "minilm-l6",
    mix: Annotated[str, typer.Option(help="short, passages or long-tail.")] = "passages",
    pairs: Annotated[int, typer.Option(min=1, help="Pairs to score in each round.")] = 1000,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of every system.")] = 2,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What each technique of the scoring engine is worth: all of them, and all but one."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.benchmarks import scoring as job

        job.ablation(size, mix, pairs, rounds, threads, console)
