"""Build the index: read the corpus, encode it once in an actor pool, write shards and texts.

Over the index of an older state of the same corpus, only what changed is encoded: see
`rerank_batch.workflows.update_index`.
"""

import time

import numpy as np
import pyarrow as pa

from rerank_batch.config import Config, Ingredients, digest
from rerank_batch.config.node_cache import node_cache
from rerank_batch.data.corpus import Corpus, corpus_fingerprint, read_corpus
from rerank_batch.data.file_counts import file_counts
from rerank_batch.data.text_store import digests_of, shard_bounds
from rerank_batch.errors import IndexMismatch
from rerank_batch.index.configured import ENCODER_FAMILIES
from rerank_batch.index.fingerprint import BM25, index_fingerprint
from rerank_batch.index.generations import MANIFEST, new_build, read_manifest
from rerank_batch.index.manifest import FORMAT, IndexFile, Manifest, ShardEntry, WordShard
from rerank_batch.index.open import Index, verify_files
from rerank_batch.models.fingerprint import pin_model
from rerank_batch.models.location import parse_model
from rerank_batch.pipeline.index_stages import BuildShards, BuildTexts, read_vectors
from rerank_batch.ray_backend.cluster import cluster
from rerank_batch.remarks import NotKnown
from rerank_batch.reporter import Reporter
from rerank_batch.storage import open_root
from rerank_batch.workflows.build_postings import build_postings
from rerank_batch.workflows.index_steps import (
    IndexJob,
    build_files,
    encode,
    finish,
    publish_rows,
    summary_of,
)
from rerank_batch.workflows.index_summary import IndexSummary, rounded
from rerank_batch.workflows.peak_memory import PeakMemory
from rerank_batch.workflows.update_index import Update, plan_update, texts_of, update_index

RECALL_QUERIES = 200
RECALL_CUTOFF = 100

_CORPUS = "corpus"


def build_index(
    config: Config, reporter: Reporter, force: bool = False, dry_run: bool = False
) -> IndexSummary:
    """Build the index of a configuration, or bring the one that is there up to date.

    ``force`` encodes everything anew. ``dry_run`` writes nothing, and the summary is of what would
    be done.
    """
    began = time.perf_counter()
    encoder = parse_model(config.index.encoder, ENCODER_FAMILIES, "index.encoder")
    root = open_root(config.index.path)
    if not dry_run:
        root.check_writes()
    pin, _ = pin_model(encoder.location)
    made_of = index_fingerprint(config.index, corpus_fingerprint(config.corpus), pin.fingerprint)
    if config.index.bm25 is not None:
        from rerank_batch.retrieval.bm25 import check_words

        check_words(config.index.bm25)
    cache = node_cache(config.storage)
    before = root.read(MANIFEST)
    job = IndexJob(config, reporter, root, cache, encoder, pin, made_of, before, began, dry_run)
    current = NotKnown("--force asks for it") if force else _current(job)
    if isinstance(current, Index):
        differs = _differences(current, made_of)
        if not differs:
            reporter.note(f"the index at {root.uri} is up to date")
            return summary_of(job, current.manifest, {})
        if differs == [BM25]:
            reporter.note(f"the vectors at {root.uri} are up to date: BM25 alone is built")
            return summary_of(job, current.manifest, {}) if dry_run else _add_postings(job, current)

    corpus = read_corpus(config.corpus)
    digests = digests_of(corpus.documents)
    update = plan_update(job, current, corpus, digests) if isinstance(current, Index) else current
    if isinstance(update, Update):
        return update_index(job, update)
    if update is not None:
        reporter.note(f"the index at {root.uri} is built in full: {update.reason}")
    return _build(job, corpus, digests)


def _build(job: IndexJob, corpus: Corpus, digests: pa.Table) -> IndexSummary:
    """Encode and write every document."""
    config, root, made_of = job.config, job.root, job.made_of
    documents = corpus.documents.num_rows
    bounds = shard_bounds(documents, config.index.shards)
    read_seconds = time.perf_counter() - job.began
    if job.dry_run:
        return _would_build(job, corpus, len(bounds), read_seconds)
    build = new_build(digest(made_of))
    texts = publish_rows(root, f"{build}/texts", corpus.documents, bounds)
    kept = publish_rows(root, f"{build}/digests", digests, bounds)
    dropped, remarks = corpus.dropped, tuple(corpus.remarks)
    del corpus, digests
    opened = BuildTexts(root, job.cache, tuple(file.wanted for file in texts), tuple(bounds))
    with (
        PeakMemory() as memory,
        cluster(config.compute, job.reporter.verbose, job.reporter.note) as resources,
    ):
        choice, encode_seconds = encode(job, opened, build, resources)
        stage = {"root": root, "build": build, "kind": config.index.kind}
        shards = build_files(bounds, BuildShards, stage, resources)
        bm25_began = time.perf_counter()
        words: tuple[WordShard, ...] = ()
        if config.index.bm25 is not None:
            words = build_postings(config.index.bm25, opened, bounds, build, resources)
        bm25_seconds = time.perf_counter() - bm25_began

    dimension = int(read_vectors(root, build, 0, 1).shape[1])
    recall, queries = _recall(job, build, bounds, shards)
    manifest = Manifest(
        format=FORMAT,
        fingerprint=digest(made_of),
        kind=config.index.kind,
        metric="inner product of unit vectors (cosine)",
        dimension=dimension,
        documents=documents,
        dropped=dropped,
        encoder=str(job.encoder),
        encoder_mode=choice.to_dict(),
        recall_at_100=recall,
        recall_queries=queries,
        made_of=made_of,
        builds=(build,),
        shards=tuple(
            ShardEntry(start=start, stop=stop, vectors=vectors, texts=text, digests=known)
            for (start, stop), vectors, text, known in zip(bounds, shards, texts, kept, strict=True)
        ),
        bm25=made_of.get(BM25),
        words=words,
    )
    seconds = {"read": read_seconds, "encode": encode_seconds, "bm25": bm25_seconds}
    return finish(job, manifest, seconds, memory, encoded=documents, remarks=remarks)


def _would_build(job: IndexJob, corpus: Corpus, shards: int, read_seconds: float) -> IndexSummary:
    documents = corpus.documents.num_rows
    return IndexSummary(
        index=job.root.uri,
        dry_run=True,
        fingerprint=digest(job.made_of),
        kind=job.config.index.kind,
        bm25=job.made_of.get(BM25),
        shards=shards,
        documents=documents,
        dropped=corpus.dropped,
        recall_at_100=None,
        files_read=file_counts(job.config, "corpus"),
        remarks=tuple(corpus.remarks),
        seconds=rounded({"read": read_seconds}),
        encoded=documents,
    )


def _add_postings(job: IndexJob, current: Index) -> IndexSummary:
    """Build BM25 shards beside the vectors that are there; returns the summary."""
    config, manifest = job.config, current.manifest
    if config.index.bm25 is None:
        raise ValueError("no BM25 is configured")
    bounds = shard_bounds(manifest.documents, config.index.shards)
    texts = texts_of(job, manifest)
    with (
        PeakMemory() as memory,
        cluster(config.compute, job.reporter.verbose, job.reporter.note) as resources,
    ):
        words = build_postings(config.index.bm25, texts, bounds, manifest.builds[0], resources)
    manifest = manifest.model_copy(
        update={
            "fingerprint": digest(job.made_of),
            "made_of": job.made_of,
            "bm25": job.made_of[BM25],
            "words": words,
        }
    )
    return finish(job, manifest, {}, memory, encoded=0)


def _current(job: IndexJob) -> Index | NotKnown | None:
    """The index as it is if it can be used, else why not; None where there is none."""
    try:
        index = Index(job.root, read_manifest(job.root), job.cache)
    except IndexMismatch as error:
        return None if job.before is None else NotKnown(str(error))
    other = [name for name in _differences(index, job.made_of) if name not in (_CORPUS, BM25)]
    if other:
        return NotKnown(f"it was built with another {', '.join(other)}")
    try:
        verify_files(index)
    except IndexMismatch as error:
        return NotKnown(str(error))
    return index


def _differences(index: Index, made_of: Ingredients) -> list[str]:
    """What the index is made of otherwise than it should be."""
    before = index.manifest.made_of
    return [name for name, part in made_of.items() if before.get(name) != part]


def _recall(
    job: IndexJob, build: str, bounds: list[tuple[int, int]], shards: list[IndexFile]
) -> tuple[float | None, int]:
    """Recall of an approximate index with sampled documents as queries; exact kinds need none."""
    config = job.config.index
    if config.kind == "Flat":
        return None, 0
    from rerank_batch.retrieval.approximate import SearchOptions
    from rerank_batch.retrieval.shards import measure_recall, open_shard

    options = SearchOptions(config.nprobe, config.ef_search)
    files = job.cache.fetch(job.root, [file.wanted for file in shards])
    opened = [
        open_shard(file, start, options) for file, (start, _) in zip(files, bounds, strict=True)
    ]
    stored = read_vectors(job.root, build, 0, bounds[-1][1])
    rng = np.random.default_rng(0)
    queries = stored[rng.choice(len(stored), size=min(RECALL_QUERIES, len(stored)), replace=False)]
    return measure_recall(opened, stored, queries, RECALL_CUTOFF), len(queries)
