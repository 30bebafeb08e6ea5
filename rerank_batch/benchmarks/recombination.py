"""A collection of any size from a small one: its sentences and words dealt out anew, from a seed.

Texts keep the words, the lengths of sentences and the skew of real ones; what they say means
nothing, so the models that read them here are small ones with random weights, which do all the work
that is not the model's own. Every document and query is a pure function of the seed and its number.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_SENTENCES_EACH = (2, 7)
_CHUNK = 50_000
_DOCUMENTS, _QUERIES, _WEIGHTS = range(3)

_ENCODER_WIDTH, _SCORER_WIDTH = 128, 64
_MOST_WORDS = 30_000
_MOST_TOKENS = 128


@dataclass(frozen=True)
class Source:
    """What is dealt out: titles, sentences and queries of a collection, without doubles."""

    titles: list[str]
    sentences: list[str]
    queries: list[str]
    seed: int = 0

    @classmethod
    def of(
        cls, titles: Iterable[str], texts: Iterable[str], queries: Iterable[str], seed: int = 0
    ) -> "Source":
        """The source that these documents and queries make."""
        sentences = (part for text in texts for part in re.split(r"(?<=[.!?:])\s+|\n\n+", text))
        return cls(
            sorted(set(titles)),
            sorted({" ".join(part.split()) for part in sentences} - {""}),
            sorted(set(queries)),
            seed,
        )

    def documents(self, start: int, stop: int, edition: int = 0) -> pa.Table:
        """Documents ``start`` up to ``stop``, as columns doc_id, title and text.

        Another edition has other texts under the same ids.
        """
        chunks = [
            self._chunk(chunk, edition)
            for chunk in range(start // _CHUNK, (max(stop, 1) - 1) // _CHUNK + 1)
        ]
        first = start // _CHUNK * _CHUNK
        return pa.concat_tables(chunks).slice(start - first, stop - start).combine_chunks()

    def _chunk(self, chunk: int, edition: int) -> pa.Table:
        rng = np.random.default_rng([self.seed, _DOCUMENTS, edition, chunk])
        many = rng.integers(*_SENTENCES_EACH, _CHUNK)
        drawn = rng.integers(0, len(self.sentences), int(many.sum())).tolist()
        ends = np.cumsum(many).tolist()
        texts = [
            " ".join([self.sentences[number] for number in drawn[end - count : end]])
            for count, end in zip(many.tolist(), ends, strict=True)
        ]
        titles = [self.titles[n] for n in rng.integers(0, len(self.titles), _CHUNK).tolist()]
        ids = [f"d{number:09d}" for number in range(chunk * _CHUNK, (chunk + 1) * _CHUNK)]
        return pa.table({"doc_id": ids, "title": titles, "text": texts})

    def distinct_queries(self, count: int) -> list[str]:
        """So many queries that no plan merges, each the beginning of one and the end of another.

        They differ by more than case. The first of them are the same whatever ``count``.

        Raises:
            ValueError: there are not so many.
        """
        rng = np.random.default_rng([self.seed, _QUERIES])
        found: dict[str, str] = {}
        for _ in range(20):
            for one, other in rng.integers(0, len(self.queries), (2 * count + 100, 2)).tolist():
                head, tail = self.queries[one].split(), self.queries[other].split()
                query = " ".join([*head[: len(head) // 2 + 1], *tail[len(tail) // 2 :]])
                found.setdefault(query.lower(), query)
                if len(found) == count:
                    return list(found.values())
        raise ValueError(f"{len(self.queries)} queries make only {len(found)} others, not {count}")

    def vocabulary(self) -> list[str]:
        """The words of it all, the most frequent first."""
        texts = (*self.titles, *self.sentences, *self.queries)
        counted = Counter(word for text in texts for word in _words(text))
        ordered = sorted(counted, key=lambda word: (-counted[word], word))
        return ordered[:_MOST_WORDS]


def write_documents(tables: Iterator[pa.Table], file: Path) -> None:
    """Documents as one Parquet file, a table at a time."""
    first = next(tables)
    with pq.ParquetWriter(file, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def write_log(queries: Sequence[str], file: Path, seed: int = 0) -> int:
    """A query log in which queries come again as often as Zipf's law says; how many rows it has.

    A third of the rows are repetitions, which the plan merges into weights.
    """
    rng = np.random.default_rng([seed, _WEIGHTS])
    weights = 1 / np.arange(1, len(queries) + 1)
    again = rng.choice(len(queries), len(queries) // 2, p=weights / weights.sum())
    asked = rng.permutation(np.concatenate([np.arange(len(queries)), again]))
    ids = [f"r{number:09d}" for number in range(len(asked))]
    table = pa.table({"query_id": ids, "query": [queries[number] for number in asked.tolist()]})
    pq.write_table(table, file)
    return len(asked)


def write_models(words: Sequence[str], folder: Path) -> tuple[Path, Path]:
    """A bi-encoder and a cross-encoder of one narrow layer with random weights, which know these
    words; their folders."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertForSequenceClassification, BertModel, BertTokenizerFast

    from rerank_batch.scoring.loading import quiet

    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    vocabulary = {word: number for number, word in enumerate(known)}
    tokenizer = BertTokenizerFast(vocab=vocabulary, model_max_length=_MOST_TOKENS)
    torch.manual_seed(0)
    bert, encoder, scorer = (folder / name for name in ("bert", "encoder", "scorer"))
    with quiet():
        BertModel(_one_layer(_ENCODER_WIDTH, len(known))).save_pretrained(bert)
        tokenizer.save_pretrained(bert)
        transformer = Transformer(str(bert), max_seq_length=_MOST_TOKENS)
        pooled = [transformer, Pooling(_ENCODER_WIDTH)]
        SentenceTransformer(modules=pooled, device="cpu").save(str(encoder))
        narrow = _one_layer(_SCORER_WIDTH, len(known), num_labels=1)
        BertForSequenceClassification(narrow).save_pretrained(scorer)
        tokenizer.save_pretrained(scorer)
    return encoder, scorer


def _one_layer(width: int, words: int, **settings: Any) -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=words,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * width,
        initializer_range=0.5,
        **settings,
    )


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())
