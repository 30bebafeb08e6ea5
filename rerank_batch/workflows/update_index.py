"""Bring an index up to date with its corpus: encode what changed, reuse the rest.

A new generation of the index names the shards of the one before that stay, with the rows masked
whose documents are gone, and one new shard or a few (see `rerank_batch.index.changes`). Its search
finds what that of a full build of the new corpus finds, to the last bit of every score over Flat
shards and of BM25; only documents that are encoded now may differ in the last bits of their
vectors, since an encoder sees them in other company.
"""

import time
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rerank_batch.config import digest
from rerank_batch.data.corpus import Corpus
from rerank_batch.data.text_store import shard_bounds
from rerank_batch.index.changes import (
    Changes,
    Layout,
    compare,
    number_rows,
    plan_layout,
    vector_sources,
)
from rerank_batch.index.fingerprint import BM25
from rerank_batch.index.generations import new_build
from rerank_batch.index.manifest import UPDATED, Manifest, Numbering, ShardEntry, WordShard
from rerank_batch.index.open import Index
from rerank_batch.pipeline.index_stages import BuildTexts
from rerank_batch.pipeline.resources import Cluster
from rerank_batch.pipeline.update_stages import AssembleShards
from rerank_batch.ray_backend.cluster import cluster
from rerank_batch.remarks import NotKnown
from rerank_batch.schema import JsonObject
from rerank_batch.scoring.modes import Choice
from rerank_batch.workflows.build_postings import build_postings
from rerank_batch.workflows.index_steps import (
    IndexJob,
    build_files,
    encode,
    finish,
    publish_array,
    publish_rows,
    summary_of,
)
from rerank_batch.workflows.index_summary import IndexSummary
from rerank_batch.workflows.peak_memory import PeakMemory


@dataclass(frozen=True)
class Update:
    """An update of an index that is worth it: the index before, the corpus, its digests, and what
    is to be done."""

    current: Index
    corpus: Corpus
    digests: pa.Table
    changes: Changes
    layout: Layout

    def facts(self) -> JsonObject:
        """What it does, as fields of the summary."""
        changes = self.changes
        return {
            "changes": {
                "added": changes.added,
                "updated": changes.updated,
                "deleted": changes.deleted,
                "unchanged": changes.unchanged,
            },
            "encoded": len(changes.to_encode),
            "remarks": tuple(self.corpus.remarks),
            "shards_reused": len(self.layout.kept),
            "shards_written": len(self.layout.written),
        }


def plan_update(
    job: IndexJob, current: Index, corpus: Corpus, digests: pa.Table
) -> Update | NotKnown:
    """How the index that is there becomes one of the corpus, or why a full build is due."""
    from rerank_batch.retrieval.shards import keeps_vectors

    before = current.digests()
    if before is None:
        return NotKnown("a version that knew no updates built it")
    changes = compare(digests, before, current.numbers())
    documents = len(changes.rows)
    if changes.unchanged < documents / 2:
        return NotKnown(f"{len(changes.to_encode):,} of {documents:,} documents are new or changed")
    layout = plan_layout(
        changes,
        current.manifest.bounds,
        _usual(job, documents),
        job.config.index.compact_at,
        lambda shard: keeps_vectors(current.vector_files([shard])[0]),
    )
    return Update(current, corpus, digests, changes, layout)


def update_index(job: IndexJob, update: Update) -> IndexSummary:
    """Write the new generation; returns the summary."""
    config, current = job.config, update.current
    read_seconds = time.perf_counter() - job.began
    if job.dry_run:
        after = current.manifest.model_copy(
            update={"documents": len(update.changes.rows), "dropped": update.corpus.dropped}
        )
        seconds = {"read": read_seconds}
        count = len(update.layout.kept) + len(update.layout.written)
        return summary_of(job, after, seconds, **{**update.facts(), "shards": count})
    changes, before = update.changes, current.manifest
    build = new_build(digest(job.made_of))
    words = _words_that_stay(job, before, changes)
    needs_actors = update.layout.written or (words is None and config.index.bm25 is not None)
    none = nullcontext(Cluster(cpus=0, gpus=0))
    started = (
        cluster(config.compute, job.reporter.verbose, job.reporter.note) if needs_actors else none
    )
    encode_seconds = bm25_seconds = 0.0
    with PeakMemory() as memory, started as resources:
        choice = Choice.from_dict(before.encoder_mode)
        if len(changes.to_encode):
            choice, encode_seconds = _encode(job, update, build, resources, choice)
        shards = [*_kept(update), *_written(job, update, build, resources)]
        shards = _in_a_row(shards)
        manifest = before.model_copy(
            update={
                "format": UPDATED,
                "fingerprint": digest(job.made_of),
                "documents": len(changes.rows),
                "dropped": update.corpus.dropped,
                "encoder": str(job.encoder),
                "encoder_mode": choice.to_dict(),
                # What was measured is true of the shards it was measured on.
                "recall_at_100": before.recall_at_100 if changes.is_none else None,
                "recall_queries": before.recall_queries if changes.is_none else 0,
                "made_of": job.made_of,
                "builds": (build,),
                "shards": tuple(shards),
                "numbering": _numbering(job, update, build),
                "bm25": job.made_of.get(BM25),
                "words": words or (),
            }
        )
        if words is None and config.index.bm25 is not None:
            began = time.perf_counter()
            postings = build_postings(
                config.index.bm25,
                texts_of(job, manifest),
                shard_bounds(manifest.documents, config.index.shards),
                build,
                resources,
            )
            manifest = manifest.model_copy(update={"words": postings})
            bm25_seconds = time.perf_counter() - began
    seconds = {"read": read_seconds, "encode": encode_seconds, "bm25": bm25_seconds}
    return finish(job, manifest, seconds, memory, **update.facts())


def texts_of(job: IndexJob, manifest: Manifest) -> BuildTexts:
    """The texts of a generation whose shards are there."""
    return BuildTexts(
        job.root,
        job.cache,
        tuple(shard.texts.wanted for shard in manifest.shards),
        manifest.bounds,
        None if manifest.numbering is None else manifest.numbering.rows.wanted,
    )


def _usual(job: IndexJob, documents: int) -> int:
    """Documents of a shard of a full build."""
    return -(-documents // min(job.config.index.shards, documents))


def _words_that_stay(
    job: IndexJob, before: Manifest, changes: Changes
) -> tuple[WordShard, ...] | None:
    """The BM25 shards that are right for the new corpus too: its statistics are in every score."""
    is_same = changes.is_none and before.bm25 == job.made_of.get(BM25)
    return before.word_shards() if is_same and before.bm25 is not None else None


def _encode(
    job: IndexJob, update: Update, build: str, resources: Cluster, before: Choice
) -> tuple[Choice, float]:
    changed = update.changes.to_encode
    bounds = [(0, len(changed))]
    documents = update.corpus.documents.take(pa.array(changed))
    files = publish_rows(job.root, f"{build}/encode", documents, bounds)
    wanted = tuple(file.wanted for file in files)
    texts = BuildTexts(job.root, job.cache, wanted, tuple(bounds))
    return encode(job, texts, build, resources, before)


def _kept(update: Update) -> list[ShardEntry]:
    # Their postings, if they had any, are of the corpus that was.
    return [
        update.current.manifest.shards[shard].model_copy(update={"postings": None})
        for shard in update.layout.kept
    ]


def _written(job: IndexJob, update: Update, build: str, resources: Cluster) -> list[ShardEntry]:
    layout, bounds = update.layout, update.layout.bounds
    if not layout.written:
        return []
    rows = pa.array(np.concatenate(layout.written))
    texts = publish_rows(job.root, f"{build}/texts", update.corpus.documents.take(rows), bounds)
    digests = publish_rows(job.root, f"{build}/digests", update.digests.take(rows), bounds)
    stage = {
        "index": update.current,
        "build": build,
        "kind": job.config.index.kind,
        "usual": _usual(job, len(update.changes.rows)),
        "sources": vector_sources(update.changes, layout),
    }
    files = build_files(bounds, AssembleShards, stage, resources)
    return [
        ShardEntry(start=start, stop=stop, vectors=vectors, texts=text, digests=digest_file)
        for (start, stop), vectors, text, digest_file in zip(
            bounds, files, texts, digests, strict=True
        )
    ]


def _in_a_row(shards: list[ShardEntry]) -> list[ShardEntry]:
    """The same with rows that follow each other."""
    placed, start = [], 0
    for shard in shards:
        stop = start + shard.stop - shard.start
        placed.append(shard.model_copy(update={"start": start, "stop": stop}))
        start = stop
    return placed


def _numbering(job: IndexJob, update: Update, build: str) -> Numbering | None:
    numbers, rows = number_rows(update.changes, update.layout, update.current.manifest.bounds)
    if np.array_equal(numbers, np.arange(len(rows))):
        return None
    return Numbering(
        numbers=publish_array(job.root, f"{build}/numbers.npy", numbers),
        rows=publish_array(job.root, f"{build}/rows.npy", rows),
    )
