"""The commands `runs …`: look at runs and look after them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .command import command_console
from .options import EPILOG, AsJson, RootUri, RunName, Verbose, expand_path

app = typer.Typer(
    name="runs",
    help="List, show, export, verify, publish, abort and clean up runs.",
    no_args_is_help=True,
    epilog=EPILOG,
)


class ExportFormat(StrEnum):
    """Forms a run can be exported in."""

    trec = "trec"
    jsonl = "jsonl"
    pairs = "pairs"
    serving = "serving"
    dynamodb = "dynamodb"
    redis = "redis"


@app.command("list", epilog="Example: rerank-batch runs list .runs")
def runs_list(root: RootUri, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Every run under a root, oldest first."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.workflows import runs as job

        from .tables import runs as table

        table.show_list(root, job.list_runs(root), console)


@app.command("show", epilog="Example: rerank-batch runs show .runs RUN_ID")
def runs_show(
    root: RootUri,
    run_id: RunName,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """What a run is made of and what came out."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.workflows import runs as job

        from .tables import runs as table

        table.show_run(job.describe_run(root, run_id), console)


@app.command(
    "export", epilog="Example: rerank-batch runs export .runs RUN_ID --format trec --out run.trec"
)
def runs_export(
    root: RootUri,
    run_id: RunName,
    out: Annotated[Path, typer.Option("--out", callback=expand_path, help="The file to write.")],
    format: Annotated[ExportFormat, typer.Option("--format")] = ExportFormat.trec,
    system: Annotated[
        str, typer.Option("--system", help="retrieval, reranked, or a system of a comparison.")
    ] = "reranked",
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Write a run's rankings as a TREC run, jsonl, or one Parquet row per query and document; or
    for serving, a row for each query key: sorted Parquet for `lookup`, lines for DynamoDB or Redis.
    """
    with command_console(as_json, verbose) as console:
        from rerank_batch.workflows import runs as job

        from .tables import runs as table

        table.show_export(job.export_run(root, run_id, format.value, system, out), console)


@app.command("verify", epilog="Example: rerank-batch runs verify .runs RUN_ID")
def runs_verify(
    root: RootUri, run_id: RunName, as_json: AsJson = False, verbose: Verbose = False
) -> None:
    """Read a finished run again: every sha256, every count, every planned query exactly once."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.workflows import runs as job

        from .tables import runs as table

        verified = job.verify_run(root, run_id, console)
        table.show_verification(verified, console)
        verified.raise_if_damaged()


@app.command("publish", epilog="Example: rerank-batch runs publish .runs RUN_ID --force")
def runs_publish(
    root: RootUri,
    run_id: RunName,
    force: Annotated[
        bool, typer.Option("--force", help="Though it failed a guard; who did it is kept.")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Make a complete run the latest of its job, unless a newer one is."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.workflows import runs as job

        from .tables import runs as table

        table.show_publication(job.publish_run(root, run_id, force), console)


@app.command("abort", epilog="Example: rerank-batch runs abort .runs RUN_ID")
def runs_abort(
    root: RootUri, run_id: RunName, as_json: AsJson = False, verbose: Verbose = False
) -> None:
    """Give an unfinished run up for good; its driver, if it still works, stops."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.workflows import runs as job

        from .tables import runs as table

        table.show_abort(root, run_id, job.abort_run(root, run_id), console)


@app.command("gc", epilog="Example: rerank-batch runs gc .runs --keep 7 --delete")
def runs_gc(
    root: RootUri,
    job_name: Annotated[str | None, typer.Option("--job", help="Only runs of this job.")] = None,
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="Give up complete runs as well, all but the newest KEEP per job."),
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; otherwise show.")] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show, or remove, what no reader will ask for; never touches the latest run of a job."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.workflows import runs as job

        from .tables import runs as table

        garbage = job.collect_garbage(root, job_name, keep, delete)
        table.show_garbage(root, garbage, delete, console)
