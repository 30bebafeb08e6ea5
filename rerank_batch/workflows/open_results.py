"""A finished run for its readers: exactly the files that latest.json and final.json name.

The list is read once, when the run is opened, so a newer run that lands meanwhile changes nothing.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.dataset as ds

from rerank_batch import schema
from rerank_batch.errors import RunConflict
from rerank_batch.runs import Run, latest_run
from rerank_batch.schema import JsonObject
from rerank_batch.storage import open_dataset, open_root

if TYPE_CHECKING:  # every worker imports this package: what only a reader needs waits for one
    import polars
    import ray.data


@dataclass(frozen=True)
class Results:
    """The result files of one run, in the order of their queries; see `schema.results`.

    ``final`` is the run's final.json: totals, metrics, fingerprint.
    """

    run: Run
    files: list[str]
    final: JsonObject

    @property
    def run_id(self) -> str:
        """Which run it is."""
        return self.run.run_id

    def arrow(self) -> ds.Dataset:
        """As a pyarrow dataset."""
        return open_dataset(self.files) if self.files else ds.dataset(self._none())

    def polars(self) -> "polars.LazyFrame":
        """As a polars LazyFrame."""
        import polars

        return polars.scan_pyarrow_dataset(self.arrow())

    def ray(self) -> "ray.data.Dataset":
        """As a Ray Dataset."""
        from rerank_batch.ray_backend.datasources import as_dataset, read_parquet

        return read_parquet(self.files) if self.files else as_dataset(self._none())

    def rejects(self) -> pa.Table:
        """What the run dropped and why: `schema.REJECTS`."""
        return self.run.rejects()

    def _none(self) -> pa.Table:
        """The result of a run that rejected every query: no file, and still a table."""
        spec = self.run.spec
        if spec.systems:
            return schema.comparison(spec.measures, tuple(spec.systems)).empty_table()
        return schema.results(spec.measures, len(spec.cascade) or 1).empty_table()


def open_results(root: str, job: str, run_id: str | None = None) -> Results:
    """The newest finished run of a job under ``root`` (a folder or s3://), or a run by its id.

    Reading ``data/*.parquet`` instead would also catch files of unfinished and abandoned blocks.

    Raises:
        RunConflict: the job has no finished run, or the run is not complete or of another job.
        StorageError: the root cannot be read.
    """
    place = open_root(root)
    run = latest_run(place, job) if run_id is None else Run.open(place, run_id)
    if run.spec.job != job:
        raise RunConflict(f"run {run.run_id} is of the job {run.spec.job!r}, not of {job!r}")
    return Results(run, run.results_paths(), run.finished())
