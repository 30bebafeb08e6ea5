"""The manifest of an index: what files there are, and which documents they hold.

    <index.path>/manifest.json            what is below, with sha256 of every file; written last
    <index.path>/<build>/shards/*.faiss   vectors, one file per shard
    <index.path>/<build>/texts/*.arrow    ids and texts of the same documents
    <index.path>/<build>/bm25/*/*.arrow   their words, with ``index.bm25``
    <index.path>/<build>/digests/*.arrow  ids and digests of the same documents
    <index.path>/<build>/numbers.npy      after an update: of every row the number of its document
    <index.path>/<build>/rows.npy         after an update: of every document its row
    <index.path>/generations/*.json       every manifest that may still have readers, by its name

Documents are numbered in the order of their ids, whatever shard they are in, and a row whose
document is gone has the number -1: that is the mask of what was deleted.
"""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from rerank_batch.config import Ingredients
from rerank_batch.schema import JsonObject
from rerank_batch.storage import Wanted

FORMAT = 3

UPDATED = 4
"""The format of what an update made: readers of `FORMAT` alone know no rows that are gone."""


class IndexFile(BaseModel):
    """A file of an index: its key under the index, bytes, sha256."""

    model_config = ConfigDict(frozen=True)

    key: str
    bytes: int
    sha256: str

    @property
    def wanted(self) -> Wanted:
        """The same, as the node cache asks for it."""
        return Wanted(self.key, self.bytes, self.sha256)


class ShardEntry(BaseModel):
    """One shard: rows ``start`` up to ``stop``, and its files; ``postings`` are for BM25.

    ``digests`` are not there in an index of a version that knew no updates.
    """

    model_config = ConfigDict(frozen=True)

    start: int
    stop: int
    vectors: IndexFile
    texts: IndexFile
    postings: IndexFile | None = None
    digests: IndexFile | None = None


class WordShard(BaseModel):
    """BM25 postings of documents ``start`` up to ``stop``."""

    model_config = ConfigDict(frozen=True)

    start: int
    stop: int
    postings: IndexFile


class Numbering(BaseModel):
    """Which row holds which document after an update.

    ``numbers`` is int64 [rows], -1 where the document is gone; ``rows`` is int64 [documents].
    """

    model_config = ConfigDict(frozen=True)

    numbers: IndexFile
    rows: IndexFile


class Manifest(BaseModel):
    """Everything a reader needs to trust and open an index.

    Without a ``numbering`` row n holds document n, and the postings are those of the shards. An
    update cuts words another way than vectors: then the postings are ``words``.
    """

    model_config = ConfigDict(frozen=True)

    format: int
    fingerprint: str
    kind: str
    metric: str
    dimension: int
    documents: int
    dropped: dict[str, int]
    encoder: str
    encoder_mode: JsonObject
    recall_at_100: float | None
    recall_queries: int
    made_of: Ingredients
    builds: tuple[str, ...]
    shards: tuple[ShardEntry, ...]
    bm25: JsonObject | None = None
    generation: str = ""
    numbering: Numbering | None = None
    words: tuple[WordShard, ...] | None = None

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """Rows of every shard, half open."""
        return tuple((shard.start, shard.stop) for shard in self.shards)

    def word_shards(self) -> tuple[WordShard, ...]:
        """The BM25 shards that are there."""
        if self.words is not None:
            return self.words
        return tuple(
            WordShard(start=shard.start, stop=shard.stop, postings=shard.postings)
            for shard in self.shards
            if shard.postings is not None
        )

    def part(self, start: int, stop: int) -> "Manifest":
        """The shards ``start`` up to ``stop`` with their rows, and the BM25 shards that go with
        them: each with one shard, spread over all evenly where there are not as many.

        Only what is searched: documents and their texts are those of the whole.
        """
        update: JsonObject = {"shards": self.shards[start:stop]}
        if self.words is not None:
            update["words"] = tuple(
                words
                for number, words in enumerate(self.words)
                if start <= number * len(self.shards) // len(self.words) < stop
            )
        return self.model_copy(update=update)

    def files_of_all_parts(self) -> Iterable[IndexFile]:
        """Those that a node reads whichever shards it searches: texts, and what numbers rows."""
        yield from (shard.texts for shard in self.shards)
        if self.numbering is not None:
            yield from (self.numbering.numbers, self.numbering.rows)

    def files(self) -> Iterable[IndexFile]:
        """Every file that it names."""
        for shard in self.shards:
            yield from (shard.vectors, shard.texts)
            if shard.digests is not None:
                yield shard.digests
        yield from (words.postings for words in self.word_shards())
        if self.numbering is not None:
            yield from (self.numbering.numbers, self.numbering.rows)
