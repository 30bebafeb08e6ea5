"""The part of the index job that is about words: BM25 shards, of a new index or beside an old one.

Their scores hold statistics of the whole corpus, so words are counted first, shard by shard, and
scored when all counts are there.
"""

import secrets
from collections.abc import Sequence

import pyarrow as pa

from rerank_batch.config import Bm25Config
from rerank_batch.index.manifest import IndexFile, WordShard
from rerank_batch.pipeline.bm25_stages import BuildPostings, CountWords, forget_counts, sum_words
from rerank_batch.pipeline.index_stages import BuildTexts
from rerank_batch.pipeline.pools import LIGHT_CPUS, Pool
from rerank_batch.pipeline.resources import Cluster
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.ray_backend.execution import build_shards

SHARD_FIELDS = [("shard", pa.int64()), ("start", pa.int64()), ("stop", pa.int64())]
FILE_FIELDS = [("key", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string())]


def build_postings(
    settings: Bm25Config,
    texts: BuildTexts,
    bounds: Sequence[tuple[int, int]],
    build: str,
    resources: Cluster,
) -> tuple[WordShard, ...]:
    """Build the BM25 shards of documents ``bounds`` under ``build``; ``texts`` are of all."""
    # A name of its own: those that are there already may have readers.
    folder = f"{build}/bm25/{secrets.token_hex(4)}"
    size = max(1, min(int(resources.cpus) // 2, len(bounds)))
    pool = Pool(size, max(LIGHT_CPUS, resources.cpus / 2 / size))
    count = StageSpec(
        name="count-words",
        stage=CountWords,
        kwargs={"root": texts.root, "folder": folder, "texts": texts, "settings": settings},
        pool=pool,
        output=pa.schema([*SHARD_FIELDS, ("length", pa.int64())]),
    )
    length = sum(row["length"] for row in build_shards(bounds, count))
    sum_words(texts.root, folder, len(bounds))
    score = StageSpec(
        name="build-bm25",
        stage=BuildPostings,
        kwargs={
            "root": texts.root,
            "folder": folder,
            "documents": bounds[-1][1],
            "length": length,
            "settings": settings,
        },
        pool=pool,
        output=pa.schema([*SHARD_FIELDS, *FILE_FIELDS]),
    )
    shards = tuple(
        WordShard(
            start=row["start"],
            stop=row["stop"],
            postings=IndexFile(key=row["key"], bytes=row["bytes"], sha256=row["sha256"]),
        )
        for row in build_shards(bounds, score)
    )
    forget_counts(texts.root, folder)
    return shards
