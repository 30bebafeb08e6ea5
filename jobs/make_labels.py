"""The command `make-labels`."""

from typing import Annotated

import typer

from .command import command_console, config_from_options, start_from_options
from .options import AsJson, ConfigFile, Overrides, Resume, RunId, TakeOver, Verbose, expand_path

app = typer.Typer()


@app.command(
    "make-labels",
    epilog="Example: rerank-batch make-labels configs/quickstart.yaml --out .labels "
    "--set 'labels.formats=[pairs, margin-mse]'",
)
def make_labels(
    config: ConfigFile,
    out: Annotated[
        str,
        typer.Option(
            "--out", callback=expand_path, help="A folder or s3:// prefix for the dataset."
        ),
    ],
    overrides: Overrides = None,
    run: Annotated[
        str,
        typer.Option(
            "--run",
            help="The finished run to mine: 'latest' is the job's newest, 'new' makes one first "
            "of the configuration's log, index and reranker.",
        ),
    ] = "latest",
    run_id: RunId = None,
    resume: Resume = None,
    take_over: TakeOver = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check every input, say what an LLM would cost, stop."),
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Mine a finished run for training rows: hard negatives, splits without leaks, a card."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.workflows import make_labels as job

        from .tables import make_labels as table

        if dry_run:
            table.show_plan(job.dry_run(config_from_options(config, overrides), out, run), console)
            return
        start = start_from_options(run_id, resume, take_over)
        table.show(
            job.make_labels(config_from_options(config, overrides), console, out, run, start),
            console,
        )
