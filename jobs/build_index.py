"""The command `build-index`."""

from typing import Annotated

import typer

from .command import command_console, config_from_options
from .options import AsJson, ConfigFile, LogFormat, LogFormatOption, Overrides, Verbose

app = typer.Typer()


@app.command(
    epilog="Examples: rerank-batch build-index configs/quickstart.yaml; "
    "rerank-batch build-index configs/nightly.yaml --dry-run"
)
def build_index(
    config: ConfigFile,
    overrides: Overrides = None,
    force: Annotated[
        bool, typer.Option("--force", help="Build in full, even if it is up to date.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what changed and what would be done, stop.")
    ] = False,
    log_format: LogFormatOption = LogFormat.text,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Encode the corpus once and write FAISS shards and the text store; of a corpus that changed
    since, only what changed."""
    with command_console(as_json, verbose, log_format) as console:
        from rerank_batch.workflows import build_index as job

        from .tables import build_index as table

        table.show(
            job.build_index(config_from_options(config, overrides), console, force, dry_run),
            console,
        )
