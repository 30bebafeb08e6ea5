"""The command `benchmark folds`."""

from pathlib import Path
from typing import Annotated

import typer

from rerank_batch.config import load_section

from ..command import command_console, config_from_options
from ..options import AsJson, ConfigFile, Overrides, Verbose, expand_path

app = typer.Typer()


@app.command(
    "folds",
    epilog="Example: rerank-batch benchmark folds configs/quickstart.yaml "
    "--finetune configs/finetune.yaml",
)
def folds(
    config: ConfigFile,
    tuning: Annotated[
        Path,
        typer.Option(
            "--finetune", metavar="FILE", callback=expand_path, help="How each model is trained."
        ),
    ],
    overrides: Overrides = None,
    run: Annotated[str, typer.Option(metavar="RUN_ID", help="Whose candidates.")] = "latest",
    count: Annotated[int, typer.Option("--folds", min=2, help="How many folds.")] = 5,
    unfiltered: Annotated[
        bool, typer.Option("--unfiltered", help="Train on labels without filters as well.")
    ] = False,
    positives: Annotated[
        int | None,
        typer.Option(min=1, help="Relevant documents of a query known to training. [default: all]"),
    ] = None,
    trainings: Annotated[
        int, typer.Option(min=1, help="Models of a kind for each fold, their measures averaged.")
    ] = 1,
    folder: Annotated[
        Path,
        typer.Option(
            "--keep", metavar="FOLDER", callback=expand_path, help="Models and scores, made once."
        ),
    ] = Path(".folds"),
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What training on your own judgements gains, on queries that the model has not seen."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.benchmarks import folds as job
        from rerank_batch.training.config import FinetuneConfig

        tuned = load_section(FinetuneConfig, tuning)
        asked = job.Asked(count, unfiltered, positives, trainings)
        job.folds(config_from_options(config, overrides), tuned, run, asked, folder, console)
