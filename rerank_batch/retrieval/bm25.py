"""BM25 shards: counted, written, mapped into memory and searched. The only module with bm25s.

A shard is one Arrow file with a row for every word of its documents, in the order of the words'
bytes: the documents that hold it, numbered from the first of the shard, and what the word adds to
the score of each. These scores hold the statistics of the whole corpus (how many documents hold a
word, how long documents are, how many there are), and they are summed in the order of the query's
words, so that a document scores the same to the last bit however many shards there are.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rerank_batch import ranking
from rerank_batch.config import Bm25Config
from rerank_batch.errors import ConfigError, IndexMismatch
from rerank_batch.retrieval.hits import Hits

COUNTS = pa.schema(
    [
        ("word", pa.large_string()),
        ("documents", pa.large_list(pa.int32())),
        ("counts", pa.large_list(pa.int32())),
    ]
)
"""How often every word stands in which documents of a shard, words in order."""

FREQUENCIES = pa.schema([("word", pa.large_string()), ("documents", pa.int64())])
"""In how many documents a word stands, words in order."""

POSTINGS = pa.schema(
    [
        ("word", pa.large_string()),
        ("documents", pa.large_list(pa.int32())),
        ("scores", pa.large_list(pa.float32())),
    ]
)
"""A shard: what every word adds to the scores of the documents that hold it, words in order."""

_CHUNK = 4096


class Words:
    """Texts to words, of queries and documents alike.

    Raises:
        ConfigError: PyStemmer is not there, or does not know the language.
    """

    def __init__(self, settings: Bm25Config) -> None:
        self._lowercase = settings.lowercase
        self._stopwords: Any = settings.stopwords
        if settings.stopwords == "none":
            self._stopwords = []
        self._stemmer = None if settings.stemmer is None else _stemmer(settings.stemmer)

    def of(self, texts: Sequence[str]) -> tuple[list[list[int]], list[str]]:
        """Of every text its words in order, as numbers, and the words that the numbers mean."""
        tokenized: Any = bm25s.tokenize(
            list(texts),
            lower=self._lowercase,
            stopwords=self._stopwords,
            stemmer=self._stemmer,
            show_progress=False,
        )
        return tokenized.ids, sorted(tokenized.vocab, key=tokenized.vocab.__getitem__)


def check_words(settings: Bm25Config) -> None:
    """Refuse settings that cannot be used here; see `Words`."""
    Words(settings)


def count_words(texts: Iterable[Sequence[str]], settings: Bm25Config) -> tuple[pa.Table, int]:
    """`COUNTS` of the documents of a shard, given in batches, and how many words they have."""
    words = Words(settings)
    number_of: dict[str, int] = {}
    numbers, documents, counts = [_NO_NUMBERS], [_NO_NUMBERS], [_NO_NUMBERS]
    first = length = 0
    for batch in texts:
        for start in range(0, len(batch), _CHUNK):
            ids, vocabulary = words.of(batch[start : start + _CHUNK])
            known = np.array(
                [number_of.setdefault(word, len(number_of)) for word in vocabulary], np.int64
            )
            lengths = np.array([len(each) for each in ids], np.int64)
            flat = np.fromiter(chain.from_iterable(ids), np.int64, int(lengths.sum()))
            rows = np.repeat(np.arange(len(ids)), lengths)
            pairs, times = np.unique(known[flat] * len(ids) + rows, return_counts=True)
            numbers.append(pairs // len(ids))
            documents.append(first + pairs % len(ids))
            counts.append(times)
            first += len(ids)
            length += len(flat)
    vocabulary = sorted(number_of)
    place = np.empty(len(vocabulary), np.int64)
    place[[number_of[word] for word in vocabulary]] = np.arange(len(vocabulary))
    word_of = place[np.concatenate(numbers)]
    # Batches follow each other, so a stable sort by the word leaves documents in order.
    order = np.argsort(word_of, kind="stable")
    ends = np.cumsum(np.bincount(word_of, minlength=len(vocabulary)))
    offsets = pa.array(np.concatenate([[0], ends]), pa.int64())
    lists = [
        pa.LargeListArray.from_arrays(
            offsets, pa.array(np.concatenate(parts)[order].astype(np.int32))
        )
        for parts in (documents, counts)
    ]
    table = pa.table([pa.array(vocabulary, pa.large_string()), *lists], schema=COUNTS)
    return table, length


def frequencies(counts: pa.Table) -> pa.Table:
    """`FREQUENCIES` of the words of one shard, from its `COUNTS`."""
    holding = pc.list_value_length(counts.column("documents")).cast(pa.int64())
    return pa.table([counts.column("word"), holding], schema=FREQUENCIES)


def add_frequencies(parts: Sequence[pa.Table]) -> pa.Table:
    """`FREQUENCIES` of the whole corpus from those of its shards."""
    together = pa.concat_tables(parts).group_by("word").aggregate([("documents", "sum")])
    ordered = together.sort_by("word").combine_chunks()
    return pa.table(
        [ordered.column("word"), ordered.column("documents_sum")], schema=FREQUENCIES
    ).combine_chunks()


@dataclass(frozen=True)
class Statistics:
    """What scores need to know of the whole corpus: its documents, their words in all, and how
    many of the documents hold each word."""

    documents: int
    length: int
    frequencies: pa.Table


def build_postings(counts: pa.Table, statistics: Statistics, settings: Bm25Config) -> pa.Table:
    """`POSTINGS` from the `COUNTS` of a shard, by Lucene's formula (see `config.Bm25Config`).

    In the order of operations, and to the last bit, what bm25s computes of the whole corpus.
    """
    documents, times = (_flat(counts, name) for name in ("documents", "counts"))
    offsets = _offsets(counts, "documents")
    lengths = np.bincount(documents, weights=times) if len(documents) else np.zeros(0)
    places = pc.index_in(
        counts.column("word").combine_chunks(),
        value_set=statistics.frequencies.column("word").combine_chunks(),
    )
    holding = statistics.frequencies.column("documents").take(places).to_numpy()
    distinct, which = np.unique(holding, return_inverse=True)
    n = statistics.documents
    weights = np.array(
        [math.log(1 + (n - df + 0.5) / (df + 0.5)) for df in distinct.tolist()], np.float32
    )[which]
    mean = statistics.length / n if statistics.length else 1.0
    k1, b = settings.k1, settings.b
    saturated = times / (k1 * ((1 - b) + b * lengths[documents] / mean) + times)
    scores = np.repeat(weights, np.diff(offsets)) * saturated
    lists = pa.LargeListArray.from_arrays(
        pa.array(offsets, pa.int64()), pa.array(scores.astype(np.float32))
    )
    return pa.table([counts.column("word"), counts.column("documents"), lists], schema=POSTINGS)


def write_table(table: pa.Table, file: Path) -> None:
    """A table as one uncompressed Arrow batch, to be mapped into memory."""
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())


class Bm25Shard:
    """The BM25 scores of documents ``start`` up to ``stop``, over a memory map.

    No document of ``excluded`` comes back, by its number in the whole corpus.

    Raises:
        IndexMismatch: the file is no such shard.
    """

    def __init__(self, file: Path, start: int, stop: int, excluded: Sequence[int] = ()) -> None:
        try:
            table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        except (pa.ArrowException, OSError) as error:
            raise IndexMismatch(f"{file} is no readable BM25 shard: {error}") from None
        if table.schema != POSTINGS:
            raise IndexMismatch(f"{file} is no BM25 shard of this version; build it again")
        self._start = start
        inside = [number - start for number in excluded if start <= number < stop]
        self._excluded = np.array(inside, np.int64)
        self._words = table.column("word")
        self._model = bm25s.BM25(method="lucene", backend="numpy")
        self._model.nonoccurrence_array = None
        self._model.scores = {
            "data": _flat(table, "scores"),
            "indices": _flat(table, "documents"),
            "indptr": _offsets(table, "documents"),
            "num_docs": stop - start,
        }

    def search(self, queries: Sequence[Sequence[str]], k: int) -> Hits:
        """The shard's best ``k`` documents that hold a word of the query, numbered as in the whole
        corpus; a query is its words in order."""
        k = min(k, self._model.scores["num_docs"])
        scores = np.full((len(queries), k), -np.inf, np.float32)
        documents = np.full((len(queries), k), ranking.PAD, np.int64)
        places = {word: self._place(word) for words in queries for word in words}
        for row, words in enumerate(queries):
            known = [place for word in words if (place := places[word]) is not None]
            if not known:
                continue
            summed: NDArray[np.float32] = self._model.get_scores_from_ids(known)
            summed[self._excluded] = 0
            rows = np.flatnonzero(summed)
            if len(rows) > k:
                least = np.partition(summed[rows], len(rows) - k)[len(rows) - k]
                rows = rows[summed[rows] >= least]
            rows = rows[ranking.order(summed[rows], rows)][:k]
            scores[row, : len(rows)] = summed[rows]
            documents[row, : len(rows)] = rows + self._start
        return Hits(scores, documents)

    def _place(self, word: str) -> int | None:
        place = bisect_left(range(len(self._words)), word, key=lambda n: self._words[n].as_py())
        is_known = place < len(self._words) and self._words[place].as_py() == word
        return place if is_known else None


class Bm25Search:
    """The BM25 shards of an index, or of a part of one, which may have none."""

    def __init__(self, shards: Sequence[Bm25Shard], settings: Bm25Config) -> None:
        self._shards = shards
        self._words = Words(settings)

    def search(self, texts: Sequence[str], k: int) -> Hits:
        """The best ``k`` over all shards under the total order, for the texts of queries."""
        if not self._shards:
            return Hits(np.empty((len(texts), 0), np.float32), np.empty((len(texts), 0), np.int64))
        ids, vocabulary = self._words.of(texts)
        queries = [[vocabulary[number] for number in each] for each in ids]
        hits = [shard.search(queries, k) for shard in self._shards]
        return Hits(*ranking.merge([(hit.scores, hit.documents) for hit in hits], k))


def _stemmer(language: str) -> Any:
    try:
        import Stemmer
    except ImportError:
        raise ConfigError(
            "index.bm25.stemmer needs PyStemmer: pip install 'rerank-batch[stemmer]'"
        ) from None
    known = Stemmer.algorithms()
    if language not in known:
        raise ConfigError(
            f"index.bm25.stemmer: Snowball has no {language!r}; it has {', '.join(known)}"
        )
    return Stemmer.Stemmer(language)


def _flat(table: pa.Table, name: str) -> NDArray[Any]:
    """The values of all lists of a column, one after the other, without a copy."""
    values: NDArray[Any] = _array(table, name).flatten().to_numpy(zero_copy_only=False)
    return values


def _offsets(table: pa.Table, name: str) -> NDArray[np.int64]:
    offsets: NDArray[np.int64] = _array(table, name).offsets.to_numpy()
    return offsets if len(offsets) else np.zeros(1, np.int64)


def _array(table: pa.Table, name: str) -> Any:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


_NO_NUMBERS = np.zeros(0, np.int64)
