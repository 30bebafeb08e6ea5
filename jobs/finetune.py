"""The command `finetune`."""

from pathlib import Path
from typing import Annotated

import typer

from rerank_batch.config import load_section

from .command import command_console
from .options import AsJson, ConfigFile, Overrides, Verbose, expand_path

app = typer.Typer()


@app.command(
    epilog="Example: rerank-batch finetune configs/finetune.yaml --labels .labels --out models/mine"
)
def finetune(
    config: ConfigFile,
    labels: Annotated[
        str,
        typer.Option(
            "--labels", metavar="FOLDER", callback=expand_path, help="What make-labels wrote."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FOLDER", callback=expand_path, help="Where the model goes."),
    ],
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where training stopped.")] = False,
    max_minutes: Annotated[
        float | None,
        typer.Option("--max-minutes", min=0, help="Train no longer, and take the best until then."),
    ] = None,
    workers: Annotated[
        int,
        typer.Option("--workers", min=1, help="Share each step among workers of a Ray cluster."),
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every input, say what it would do, stop.")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Train a cross-encoder on labels and measure what that gained."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.training.config import FinetuneConfig
        from rerank_batch.workflows import finetune as job

        from .tables import finetune as table

        loaded = load_section(FinetuneConfig, config, overrides)
        work = job.TrainingWork(resume, max_minutes, workers)
        if dry_run:
            table.show_plan(job.dry_run(loaded, labels, work), console)
        else:
            table.show(job.finetune(loaded, labels, out, work, console), console)
