"""The workflows as plain calls, for programs and notebooks: what `import rerank_batch` offers.

Nothing is printed, no signal handler is taken, and the environment is left as it was. Every call
takes a `Reporter`, which is silent by default, and raises `RerankBatchError`.
"""

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rerank_batch.config import Config, load_section
from rerank_batch.config import load_config as read_config
from rerank_batch.data.collection import with_collection_paths
from rerank_batch.reporter import Reporter
from rerank_batch.runs.summary import RunSummary
from rerank_batch.schema import JsonObject
from rerank_batch.storage import use_endpoint
from rerank_batch.training.config import FinetuneConfig

if TYPE_CHECKING:
    from rerank_batch.training.result import FinetuneSummary
    from rerank_batch.workflows.evaluate import Evaluation
    from rerank_batch.workflows.index_summary import IndexSummary
    from rerank_batch.workflows.open_index import SearchableIndex


def load_config(
    file: str | Path, overrides: Sequence[str] = (), date: datetime.date | None = None
) -> Config:
    """Read a configuration; ``overrides`` are ``key=value`` as after --set.

    ``date`` is the day of ``{date}`` and ``{yesterday}``, by default today in UTC. A ``collection``
    is looked into, and its parts are filled in.

    Raises:
        ConfigError: the file or a value is wrong; the message names the key.
        InputError: the collection cannot be read.
    """
    config = read_config(Path(file), list(overrides), date)
    with _in_environment_of(config):
        return with_collection_paths(config)


def build_index(
    config: Config, reporter: Reporter | None = None, *, force: bool = False
) -> "IndexSummary":
    """Build the index of a configuration, or bring it up to date; see `workflows.build_index`."""
    from rerank_batch.workflows import build_index as workflow

    with _in_environment_of(config):
        return workflow.build_index(config, reporter or Reporter(), force)


def rerank(
    config: Config,
    reporter: Reporter | None = None,
    *,
    run_id: str | None = None,
    resume: bool = True,
    publish: bool = True,
) -> RunSummary:
    """Run the job and publish the run, unless one of its guards keeps it back.

    A ``run_id`` that is begun is gone on with, unless ``resume`` is False. ``published`` of the
    summary says whether readers get it, ``publication.guards`` why not.

    Raises:
        RerankBatchError: see `workflows.rerank`.
    """
    from rerank_batch.workflows.rerank import rerank as run
    from rerank_batch.workflows.start import Start

    start = Start(run_id, or_resume=resume and run_id is not None)
    with _in_environment_of(config):
        return run(config, reporter or Reporter(), start, publish=publish)


def evaluate(
    config: Config, run: str | None = "latest", reporter: Reporter | None = None
) -> "Evaluation":
    """Measure a finished run against the judgements; None runs the judged queries first.

    Raises:
        RerankBatchError: see `workflows.evaluate`.
    """
    from rerank_batch.workflows import evaluate as workflow

    with _in_environment_of(config):
        return workflow.evaluate(config, reporter or Reporter(), None, run)


def make_labels(
    config: Config, out: str | Path, run: str = "latest", reporter: Reporter | None = None
) -> JsonObject:
    """Mine a finished run for training rows and write a dataset to ``out``.

    Raises:
        RerankBatchError: see `workflows.make_labels`.
    """
    from rerank_batch.workflows import make_labels as workflow

    with _in_environment_of(config):
        return workflow.make_labels(config, reporter or Reporter(), str(out), run)


def finetune(
    config: FinetuneConfig, labels: str | Path, out: Path, reporter: Reporter | None = None
) -> "FinetuneSummary":
    """Train a cross-encoder on the labels that `make_labels` wrote, and measure what it gained.

    Raises:
        RerankBatchError: see `workflows.finetune`.
    """
    from rerank_batch.workflows import finetune as workflow

    return workflow.finetune(
        config, str(labels), out, workflow.TrainingWork(), reporter or Reporter()
    )


def load_finetune_config(file: str | Path, overrides: Sequence[str] = ()) -> FinetuneConfig:
    """Read the configuration of `finetune`; arguments and errors as of `load_config`."""
    return load_section(FinetuneConfig, Path(file), list(overrides))


def open_index(config: Config) -> "SearchableIndex":
    """Open the index of a configuration, to be searched in this process.

    Raises:
        RerankBatchError: see `workflows.open_index`.
    """
    from rerank_batch.workflows.open_index import SearchableIndex

    with _in_environment_of(config):
        return SearchableIndex(config)


@contextmanager
def _in_environment_of(config: Config) -> Iterator[None]:
    """Talk to the configured store, and leave the environment as it was, whatever Ray sets."""
    before = dict(os.environ)
    try:
        use_endpoint(config.storage.endpoint)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
