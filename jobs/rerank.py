"""The command `rerank`."""

import typer

from .command import command_console, config_from_options, start_from_options
from .options import (
    AsJson,
    ConfigFile,
    Date,
    DryRun,
    LogFormat,
    LogFormatOption,
    OrResume,
    Overrides,
    Resume,
    RunId,
    TakeOver,
    Verbose,
)

app = typer.Typer()


@app.command(epilog="Example: rerank-batch rerank configs/quickstart.yaml --dry-run")
def rerank(
    config: ConfigFile,
    overrides: Overrides = None,
    date: Date = None,
    run_id: RunId = None,
    resume: Resume = None,
    take_over: TakeOver = False,
    or_resume: OrResume = False,
    dry_run: DryRun = False,
    log_format: LogFormatOption = LogFormat.text,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Retrieve and rerank every query of the log, and publish the run as the job's latest."""
    with command_console(as_json, verbose, log_format) as console:
        from rerank_batch.workflows.dry_run import dry_run as check
        from rerank_batch.workflows.rerank import rerank as run

        from .tables import rerank as table

        loaded = config_from_options(config, overrides, date, resume or run_id)
        if dry_run:
            table.show_plan(check(loaded), console)
        else:
            start = start_from_options(run_id, resume, take_over, or_resume)
            table.show(run(loaded, console, start), console)
