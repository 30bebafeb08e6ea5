"""What a full build of the index and an update share: texts out, vectors in, the summary."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rerank_batch.config import Config, Ingredients
from rerank_batch.data.corpus import corpus_remarks
from rerank_batch.data.file_counts import file_counts
from rerank_batch.data.text_store import write_texts
from rerank_batch.errors import RunConflict, StorageError
from rerank_batch.index.generations import publish_manifest
from rerank_batch.index.manifest import IndexFile, Manifest
from rerank_batch.models.fingerprint import ModelPin
from rerank_batch.models.location import ModelName
from rerank_batch.pipeline.index_stages import BuildTexts, EncodeDocuments
from rerank_batch.pipeline.pools import LIGHT_CPUS, Pool, plan_encoding
from rerank_batch.pipeline.resources import Cluster
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.ray_backend.execution import build_shards, encode_documents
from rerank_batch.reporter import Reporter
from rerank_batch.retrieval.options import EncoderOptions
from rerank_batch.runs import Run, block_bounds, list_runs
from rerank_batch.scoring.graphs import graphs
from rerank_batch.scoring.modes import Choice
from rerank_batch.storage import NodeCache, Root, open_root
from rerank_batch.workflows.build_postings import FILE_FIELDS, SHARD_FIELDS
from rerank_batch.workflows.index_summary import IndexSummary, rounded
from rerank_batch.workflows.modes import encoder_mode
from rerank_batch.workflows.peak_memory import PeakMemory

BLOCK_DOCUMENTS = 256

VECTORS = pa.schema([("document", pa.int64()), ("vector", pa.list_(pa.float32()))])
SHARDS = pa.schema([*SHARD_FIELDS, *FILE_FIELDS])

Bounds = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class IndexJob:
    """An index job: what the index is to be made of (`index_fingerprint`), and where it lies.

    ``pin`` is the encoder's. ``before`` is the manifest as it was when the job began, at a time of
    `time.perf_counter`.
    """

    config: Config
    reporter: Reporter
    root: Root
    cache: NodeCache
    encoder: ModelName
    pin: ModelPin
    made_of: Ingredients
    before: bytes | None
    began: float
    dry_run: bool


def publish_rows(root: Root, folder: str, rows: pa.Table, bounds: Bounds) -> list[IndexFile]:
    """Write documents, or their digests, under ``folder``, a file for each of ``bounds``."""
    with tempfile.TemporaryDirectory() as local:
        return [
            _publish(root, f"{folder}/{file.name}", file)
            for file in write_texts(rows, bounds, Path(local))
        ]


def publish_array(root: Root, key: str, array: Any) -> IndexFile:
    """Write an array as .npy."""
    with tempfile.TemporaryDirectory() as local:
        file = Path(local) / "array.npy"
        np.save(file, array, allow_pickle=False)
        return _publish(root, key, file)


def encode(
    job: IndexJob,
    texts: BuildTexts,
    build: str,
    resources: Cluster,
    before: Choice | None = None,
) -> tuple[Choice, float]:
    """Encode all of ``texts`` and keep the vectors with the build.

    Returns the mode, which is that of ``before`` where other vectors are there already, and how
    many seconds it took.
    """
    config, fingerprint = job.config, job.made_of["encoder"]
    pool = plan_encoding(config.compute, resources.cpus, resources.gpus)
    options = EncoderOptions(
        max_length=config.index.max_length,
        precision=config.index.precision,
        runtime=config.index.runtime,
        threads=pool.threads,
        graphs=graphs(config.storage, fingerprint),
    )
    if before is None or config.index.runtime not in ("auto", before.mode.runtime):
        before = encoder_mode(job.root, job.pin, options, pool, job.reporter)
    began = time.perf_counter()
    spec = StageSpec(
        name="encode",
        stage=EncodeDocuments,
        kwargs={
            "encoder": job.pin,
            "options": replace(options, mode=before.mode),
            "texts": texts,
        },
        pool=pool,
        output=VECTORS,
        batch_size=BLOCK_DOCUMENTS,
    )
    documents, encoded = texts.bounds[-1][1], 0
    with job.reporter.progress("encoded documents", documents, lambda: encoded):
        for some in encode_documents(
            block_bounds(documents, BLOCK_DOCUMENTS), spec, job.root, build
        ):
            encoded += some
    return before, time.perf_counter() - began


def build_files(
    bounds: Bounds, stage: type, kwargs: Mapping[str, Any], resources: Cluster
) -> list[IndexFile]:
    """Build shards in one actor; the file of each."""
    pool = Pool(1, max(LIGHT_CPUS, resources.cpus / 2), threads=max(1, int(resources.cpus)))
    spec = StageSpec(name="build", stage=stage, kwargs=kwargs, pool=pool, output=SHARDS)
    return [
        IndexFile(key=row["key"], bytes=row["bytes"], sha256=row["sha256"])
        for row in build_shards(bounds, spec)
    ]


def generations_of_runs(job: IndexJob) -> Callable[[], set[str] | None]:
    """Reads the generations of the index that unfinished runs of the configuration's root began on:
    they stay until those runs are finished or aborted. None where the runs cannot be read."""

    def in_use() -> set[str] | None:
        runs = open_root(job.config.root)
        generations = set()
        try:
            for run_id in list_runs(runs):
                with suppress(RunConflict):  # of another version, which names none
                    run = Run.open(runs, run_id)
                    if run.final() is None:
                        generations.add(run.spec.generations.get(job.root.uri, ""))
        except StorageError as error:
            job.reporter.note(f"old files of the index stay, since runs may need them: {error}")
            return None
        return generations - {""}

    return in_use


def finish(
    job: IndexJob,
    manifest: Manifest,
    seconds: Mapping[str, float],
    memory: PeakMemory,
    **facts: Any,
) -> IndexSummary:
    """Publish what was built and return the summary; the total comes to ``seconds`` here."""
    manifest = publish_manifest(job.root, manifest, job.before, generations_of_runs(job))
    return summary_of(
        job,
        manifest,
        {**seconds, "total": time.perf_counter() - job.began},
        built=True,
        peak_memory_gb=round(memory.bytes / 2**30, 2),
        **facts,
    )


def summary_of(
    job: IndexJob, manifest: Manifest, seconds: Mapping[str, float], **facts: Any
) -> IndexSummary:
    """The summary of the job, when there is an index; ``facts`` are further fields of it."""
    summary = IndexSummary(
        index=job.root.uri,
        dry_run=job.dry_run,
        fingerprint=manifest.fingerprint,
        generation=manifest.generation,
        kind=manifest.kind,
        bm25=manifest.bm25,
        shards=len(manifest.shards),
        documents=manifest.documents,
        dimension=manifest.dimension,
        dropped=manifest.dropped,
        recall_at_100=manifest.recall_at_100,
        files_read=file_counts(job.config, "corpus"),
        seconds=rounded(seconds),
    )
    if "remarks" not in facts:
        facts["remarks"] = tuple(corpus_remarks(job.config.corpus))
    return replace(summary, **facts)


def _publish(root: Root, key: str, file: Path) -> IndexFile:
    stored = root.publish(key, file)
    file.unlink()
    return IndexFile(key=key, bytes=stored.bytes, sha256=stored.sha256)
