"""The commands `benchmark …`: each measures a part beside what one would use otherwise."""

import typer

from .. import estimate
from ..options import EPILOG
from . import (
    ablation,
    cache,
    done,
    encoding,
    evaluation,
    folds,
    formats,
    labels,
    nightly,
    overhead,
    protocol,
    rehearsal,
    resume,
    retrieval,
    scaling,
    scoring,
    update,
)

app = typer.Typer(
    name="benchmark",
    help="Measure what things cost on this machine.",
    no_args_is_help=True,
    epilog=EPILOG,
)
for measurement in (
    scoring,
    ablation,
    protocol,
    evaluation,
    resume,
    nightly,
    overhead,
    formats,
    retrieval,
    encoding,
    estimate,
    scaling,
    cache,
    labels,
    update,
    folds,
    rehearsal,
    done,
):
    app.add_typer(measurement.app)
