"""The boxes of the pipeline: Arrow table in, Arrow table out, one row per query throughout.

A stage opens its models and files when it is constructed, inside the process that will run it. It
keeps the order and number of its rows. A query that cannot go on carries a reason in ``reject`` and
travels with empty lists, so that the end of the pipeline can account for it. Knows nothing of Ray.
"""

import io
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rerank_batch import ranking, schema, tally
from rerank_batch.data.corpus import TextStore
from rerank_batch.data.qrels import Qrels, merge_grades
from rerank_batch.errors import RerankBatchError, StorageError
from rerank_batch.index.index import Index
from rerank_batch.models.location import ModelName, ModelPin, pinned_model
from rerank_batch.pipeline.pools import Pool
from rerank_batch.progress import pairs as progress
from rerank_batch.rerankers.base import PairScorer, ScorerOptions
from rerank_batch.rerankers.cached import CachedScorer, CacheUse
from rerank_batch.rerankers.paid import PaidScorer, PaidUse
from rerank_batch.retrieval.fusion import Found, Fusion
from rerank_batch.retrieval.gate import Gate
from rerank_batch.retrieval.options import EncoderOptions
from rerank_batch.retrieval.running_lists import lists_of, merged, with_lists
from rerank_batch.retrieval.sources import SourceUse, open_source
from rerank_batch.scoring.modes import Choice
from rerank_batch.storage import NodeCache, Root, Wanted


class Stage(Protocol):
    """What every box is, once constructed."""

    def __call__(self, table: pa.Table) -> pa.Table:
        """The same rows with more columns."""


@dataclass(frozen=True)
class StageSpec:
    """A stage that is not running yet: its class, what to construct it with, and where.

    ``batch_size`` None hands over whole blocks. Ray insists on a number for GPU pools: the block
    size, which cuts only the last block, the one that takes the remainder, always the same way.
    ``actor`` names the actors that it shares with its neighbours, if it does; one that is ``alone``
    never may: it is there once for the whole job, or opens as much as a node can hold.
    """

    name: str
    stage: type
    kwargs: Mapping[str, Any]
    pool: Pool
    output: pa.Schema
    batch_size: int | None = None
    alone: bool = False
    actor: str | None = None


def choose_scorer_mode(model: ModelName, pin: ModelPin, options: ScorerOptions) -> Choice:
    """Measure here in which mode a reranker runs fastest."""
    from rerank_batch.rerankers import choose_mode

    return choose_mode(model, options, pin)


def choose_encoder_mode(encoder: ModelPin, options: EncoderOptions) -> Choice:
    """Measure here in which mode an encoder runs fastest."""
    from rerank_batch.retrieval.encoder import Encoder

    with pinned_model(encoder) as folder:
        return Encoder.choose(folder, options)


class EncodeQueries:
    """Adds the query's vector."""

    def __init__(self, encoder: ModelPin, options: EncoderOptions, threads: int = 1) -> None:
        from rerank_batch.retrieval.encoder import Encoder

        with pinned_model(encoder) as folder:
            self._encoder = Encoder(folder, replace(options, threads=threads))

    def __call__(self, table: pa.Table) -> pa.Table:
        """PLAN in, ENCODED out; SEARCHED in with vectors of another encoder, SEARCHED out."""
        vectors = self._encoder.encode_queries(table.column(schema.QUERY).to_pylist())
        finite = np.asarray(np.isfinite(vectors).all(axis=1))
        rejects = [None if ok else schema.NON_FINITE_VECTOR for ok in finite.tolist()]
        flat = pa.array(vectors.ravel(), pa.float32())
        offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
        if schema.REJECT in table.column_names:
            before = table.column(schema.REJECT).to_pylist()
            rejects = [first or now for first, now in zip(before, rejects, strict=True)]
            table = table.drop_columns([schema.VECTOR, schema.REJECT])
        return table.append_column(
            schema.VECTOR, pa.ListArray.from_arrays(pa.array(offsets), flat)
        ).append_column(schema.REJECT, pa.array(rejects, pa.string()))


class _Sources:
    """Open sources: what each finds in this index, or in this part of one."""

    def __init__(self, index: Index, uses: Sequence[SourceUse], threads: int) -> None:
        self._opened = [(open_source(use, index, threads), use) for use in uses]

    def find(
        self, asked: pa.Table, known: Sequence[Sequence[Found]] | None = None
    ) -> list[tuple[Found, ...]]:
        """Of every row a list from each source.

        ``known`` is what other parts of the index gave to the sources that read shards, in order.
        """
        lists, place = [], 0
        for source, use in self._opened:
            found = source.find(asked, use.depth)
            if known is not None and use.reads_shards:
                before = [listed[place] for listed in known]
                found = [merged(a, b, use.depth) for a, b in zip(before, found, strict=True)]
                place += 1
            lists.append(found)
        return list(zip(*lists, strict=True))


class SearchGroup:
    """Adds what one group of shards holds, where the index is more than a node may hold.

    ``index`` is that part of it. Of every source there is one list: a new one, or with ``goes_on``
    the one that the group before made, which takes in what is found here.
    """

    def __init__(
        self, index: Index, sources: tuple[SourceUse, ...], goes_on: bool, threads: int = 1
    ) -> None:
        self._sources = _Sources(index, sources, threads)
        self._count = len(sources)
        self._goes_on = goes_on

    def __call__(self, table: pa.Table) -> pa.Table:
        """PLAN, ENCODED or SEARCHED in, SEARCHED out."""
        table = schema.with_vector(table)
        alive = schema.alive_rows(table)
        lists = lists_of(table)
        new = [Found(ranking.NO_DOCUMENTS, np.empty(0, np.float32))] * self._count
        found = {}
        if len(alive):
            known = [lists[row][-self._count :] for row in alive] if self._goes_on else None
            listed = self._sources.find(table.take(pa.array(alive)), known)
            found = dict(zip(alive.tolist(), listed, strict=True))
        for row, before in enumerate(lists):
            if not self._goes_on:
                lists[row] = [*before, *found.get(row, new)]
            elif row in found:
                lists[row] = [*before[: -self._count], *found[row]]
        return with_lists(table, lists)


class SearchShards:
    """Adds the best documents and their scores, merged over all shards of the index.

    Of several sources the lists are fused. With a gate, queries are flagged that need no reranker.
    Where ``index`` is the last group of its shards, the groups before it have left their lists.
    """

    def __init__(
        self,
        index: Index,
        depth: int,
        sources: tuple[SourceUse, ...],
        fusion: Fusion | None = None,
        gate: Gate | None = None,
        threads: int = 1,
    ) -> None:
        self._depth = depth
        self._gate = gate
        self._fusion = fusion
        self._sources = _Sources(index, sources, threads)

    def __call__(self, table: pa.Table) -> pa.Table:
        """ENCODED in, PLAN where no source reads vectors, SEARCHED after other groups of the
        index; RETRIEVED out."""
        if schema.REJECT not in table.column_names:
            table = table.append_column(schema.REJECT_FIELD, pa.nulls(table.num_rows, pa.string()))
        alive = schema.alive_rows(table)
        documents: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * table.num_rows
        scores: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * table.num_rows
        flags = table.column(schema.FLAGS).to_pylist()
        if len(alive):
            known = None
            if schema.RETRIEVALS in table.column_names:
                lists = lists_of(table)
                known = [lists[row] for row in alive]
            each = self._sources.find(table.take(pa.array(alive)), known)
            for row, found in zip(alive, each, strict=True):
                best = self._fusion.fuse(found, self._depth) if self._fusion else found[0]
                documents[row], scores[row] = best.documents, best.scores
                if len(best.documents) < self._depth:
                    flags[row] = [*flags[row], schema.FEW_CANDIDATES]
                if self._gate is not None and self._gate.is_sure(scores[row]):
                    flags[row] = [*flags[row], schema.GATED]
        gone = (schema.VECTOR, schema.RETRIEVALS)
        kept = table.select([name for name in table.column_names if name not in gone])
        kept = schema.replace_column(kept, schema.FLAGS, pa.array(flags, pa.list_(pa.string())))
        return kept.append_column(
            schema.DOCUMENTS, pa.array(documents, pa.list_(pa.int64()))
        ).append_column(schema.RETRIEVAL_SCORES, pa.array(scores, pa.list_(pa.float32())))


@dataclass(frozen=True)
class ScorerUse:
    """One model of the cascade: its number there from 1, and how many candidates it reads.

    ``pin`` holds every worker to the weights that the run began with; None for a service.
    ``cache`` are scores of earlier runs; ``paid`` keeps what a service was paid for.
    """

    number: int
    model: ModelName
    pin: ModelPin | None
    options: ScorerOptions
    depth: int | None = None
    cache: CacheUse | None = None
    paid: PaidUse | None = None


class Rerank:
    """Adds the raw scores of one model or of several in a row, each reading the best of what the
    one before it made."""

    def __init__(self, scorers: tuple[ScorerUse, ...], index: Index, threads: int = 1) -> None:
        self._texts = index.texts()
        self._uses = scorers
        self._scorers = [open_scorer(use, threads) for use in scorers]

    def __call__(self, table: pa.Table) -> pa.Table:
        """RETRIEVED or RERANKED in, RERANKED out."""
        documents = schema.lists_in(table, schema.DOCUMENTS, np.int64)
        scores = schema.stage_scores(table)
        rejects = table.column(schema.REJECT).to_pylist()
        flags = [set(each) for each in table.column(schema.FLAGS).to_pylist()]
        queries = table.column(schema.QUERY).to_pylist()
        for use, scorer in zip(self._uses, self._scorers, strict=True):
            chosen = [
                ranking.NO_DOCUMENTS
                if rejects[row] is not None or schema.GATED in flags[row]
                else ranking.cascade_order(scores[row], listed)[: use.depth]
                for row, listed in enumerate(documents)
            ]
            read = [d[c] for d, c in zip(documents, chosen, strict=True)]
            texts = contents_of(self._texts, read)
            skipped = [
                d[: use.depth] for d, f in zip(documents, flags, strict=True) if schema.GATED in f
            ]
            tally.add(skipped_of(use.number), float(sum(map(len, skipped))))
            tally.add(pairs_of(use.number), float(sum(map(len, chosen))))
            began = time.perf_counter()
            with progress.reading(use.number, sum(map(len, chosen))):
                scored = scorer.score(queries, texts)
            tally.add(seconds_of(use.number), time.perf_counter() - began)
            for row, places in enumerate(chosen):
                values = np.full(len(documents[row]), np.nan, dtype=np.float32)
                if row in scored.fell_back:
                    flags[row].add(schema.FELL_BACK)
                elif not np.isfinite(scored.values[row]).all():
                    rejects[row] = schema.NON_FINITE_SCORE
                else:
                    values[places] = scored.values[row]
                if scored.truncated[row].any():
                    flags[row].add(schema.TRUNCATED)
                scores[row] = np.vstack([scores[row], values])
        table = schema.replace_column(table, schema.REJECT, pa.array(rejects, pa.string()))
        ordered = [sorted(each) for each in flags]
        table = schema.replace_column(table, schema.FLAGS, pa.array(ordered, pa.list_(pa.string())))
        return schema.with_stage_scores(table, scores)


def contents_of(texts: TextStore, documents: Sequence[NDArray[np.int64]]) -> list[list[str]]:
    """The texts of the documents of every query; each distinct one is read once."""
    distinct, which = np.unique(
        np.concatenate([*documents, ranking.NO_DOCUMENTS]), return_inverse=True
    )
    found = texts.contents(distinct)
    ends = np.cumsum([len(listed) for listed in documents])
    parts = np.split(which, ends[:-1]) if documents else []
    return [[found[i] for i in part] for part in parts]


def pairs_of(stage: int) -> str:
    """The name of a sum of the run: how many pairs a stage of the cascade got to read."""
    return f"pairs.{stage}"


def skipped_of(stage: int) -> str:
    """The name of a sum of the run: how many pairs the gate kept from a stage of the cascade."""
    return f"skipped.{stage}"


def seconds_of(stage: int) -> str:
    """The name of a sum of the run: how long a stage of the cascade took."""
    return f"seconds.{stage}"


def open_scorer(use: ScorerUse, threads: int) -> PairScorer:
    """The model, with the memory of what it was paid for and of what was scored before."""
    from rerank_batch.rerankers import family_of, load_scorer, open_service

    options = replace(use.options, threads=threads)
    scorer: PairScorer
    if family_of(use.model).service:
        if use.paid is None:
            raise RerankBatchError(f"{use.model} has nowhere to keep what it pays for")
        scorer = PaidScorer(open_service(use.model, options), use.paid)
    else:
        scorer = load_scorer(use.model, options, use.pin)
    return scorer if use.cache is None else CachedScorer(scorer, use.cache)


class AssembleResults:
    """Turns document numbers and scores into the result rows, with measures where there are
    judgements."""

    def __init__(
        self,
        index: Index,
        top_k: int,
        measures: tuple[str, ...],
        qrels: Qrels | None,
        stages: int = 1,
        threads: int = 1,
    ) -> None:
        from rerank_batch.evaluation.measures import parse_measures

        self._texts = index.texts()
        self._top_k = top_k
        self._stages = stages
        self._names = measures
        self._measures = parse_measures(measures)
        self._qrels = qrels or {}

    def __call__(self, table: pa.Table) -> pa.Table:
        """RERANKED, or RETRIEVED without a reranker, in; ``schema.results`` and ``reject`` out."""
        documents = schema.lists_in(table, schema.DOCUMENTS, np.int64)
        scores = schema.stage_scores(table)
        distinct, which = np.unique(
            np.concatenate([*documents, ranking.NO_DOCUMENTS]), return_inverse=True
        )
        names = np.array(self._texts.ids(distinct), dtype=object)
        ends = np.cumsum([len(listed) for listed in documents])
        ids = [names[part].tolist() for part in np.split(which, ends[:-1])]
        rejected = [reason is not None for reason in table.column(schema.REJECT).to_pylist()]
        results, candidates, orders = [], [], []
        for row in range(table.num_rows):
            if rejected[row]:
                ids[row], documents[row], scores[row] = [], documents[row][:0], scores[row][:, :0]
            best = ranking.cascade_order(scores[row], documents[row])
            orders.append(best)
            results.append(self._results(ids[row], scores[row], best))
            candidates.append(self._candidates(ids[row], scores[row], best))
        output = schema.results(self._names, self._stages)
        metrics = self._metrics(table, ids, orders)
        table = table.select([*schema.PLAN.names, schema.REJECT])
        for name, column in (
            ("results", results),
            ("candidates", candidates),
            ("metrics", metrics),
        ):
            table = table.append_column(name, pa.array(column, output.field(name).type))
        return table

    def _results(
        self, ids: list[str], scores: ranking.Scores, best: NDArray[np.int64]
    ) -> list[dict[str, Any]]:
        last = ranking.deepest(scores)
        return [
            {
                "doc_id": ids[position],
                "rank": rank,
                "score": float(last[position]),
                "retrieval_rank": int(position) + 1,
                "retrieval_score": float(scores[0, position]),
            }
            for rank, position in enumerate(best[: self._top_k], start=1)
        ]

    def _candidates(
        self, ids: list[str], scores: ranking.Scores, best: NDArray[np.int64]
    ) -> list[dict[str, Any]]:
        ranks = np.empty(len(best), dtype=np.int64)
        ranks[best] = np.arange(1, len(best) + 1)
        read = np.atleast_1d(~np.isnan(scores[1:]).all(axis=0))
        last = ranking.deepest(scores)
        rows: list[dict[str, Any]] = []
        for position, doc_id in enumerate(ids):
            row: dict[str, Any] = {
                "doc_id": doc_id,
                "retrieval_score": float(scores[0, position]),
                "rank": int(ranks[position]),
                "score": float(last[position]) if read[position] else None,
            }
            if self._stages > 1:
                row["stage_scores"] = schema.nullable(scores[1:, position])
            rows.append(row)
        return rows

    def _metrics(
        self, table: pa.Table, ids: list[list[str]], orders: list[NDArray[np.int64]]
    ) -> list[dict[str, Any] | None]:
        from rerank_batch.evaluation.measures import per_query

        names = table.column("query_id").to_pylist()
        grades = {
            name: merged
            for name, aliases in zip(names, table.column("query_ids").to_pylist(), strict=True)
            if (merged := merge_grades(self._qrels, aliases)) is not None
        }
        rankings = {
            "retrieval": dict(zip(names, ids, strict=True)),
            "reranked": {
                name: [listed[position] for position in best]
                for name, listed, best in zip(names, ids, orders, strict=True)
            },
        }
        values = {
            system: per_query(self._measures, self._names, grades, rankings[system])
            for system in schema.SYSTEMS
        }
        return [
            {system: values[system][name] for system in schema.SYSTEMS} if name in grades else None
            for name in names
        ]


@dataclass(frozen=True)
class BuildTexts:
    """The text store of an index that is being built: its files and which rows they hold; ``rows``
    is the file of the documents' rows, after an update."""

    root: Root
    cache: NodeCache
    files: tuple[Wanted, ...]
    bounds: tuple[tuple[int, int], ...]
    rows: Wanted | None = None

    def open(self) -> TextStore:
        """The store, from local files."""
        rows = None
        if self.rows is not None:
            rows = np.load(self.cache.fetch(self.root, [self.rows])[0], mmap_mode="r")
        return TextStore(self.cache.fetch(self.root, self.files), self.bounds, rows)


class EncodeDocuments:
    """The index job's heavy stage: document numbers in, their vectors beside them out."""

    def __init__(
        self,
        encoder: ModelPin,
        options: EncoderOptions,
        texts: BuildTexts,
        threads: int = 1,
    ) -> None:
        from rerank_batch.retrieval.encoder import Encoder

        with pinned_model(encoder) as folder:
            self._encoder = Encoder(folder, replace(options, threads=threads))
        self._texts = texts.open()

    def __call__(self, table: pa.Table) -> pa.Table:
        """``document`` int64 in, ``vector`` added; a vector that is not finite is an error."""
        documents = table.column("document").to_numpy()
        vectors = self._encoder.encode_documents(self._texts.contents(documents))
        if not np.isfinite(vectors).all():
            from rerank_batch.errors import ModelError

            bad = documents[~np.isfinite(vectors).all(axis=1)][:5]
            raise ModelError(
                f"the encoder gave vectors that are not finite for {self._texts.ids(bad)}"
            )
        flat = pa.array(vectors.ravel(), pa.float32())
        offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
        return table.append_column(schema.VECTOR, pa.ListArray.from_arrays(pa.array(offsets), flat))


class BuildShards:
    """The index job's last stage: one row per shard, its vectors read back, its file published."""

    def __init__(self, root: Root, build: str, kind: str, threads: int = 1) -> None:
        from rerank_batch.retrieval.flat import set_threads

        set_threads(threads)
        self._root, self._build, self._kind = root, build, kind

    def __call__(self, table: pa.Table) -> pa.Table:
        """``shard``, ``start``, ``stop`` in; ``key``, ``bytes``, ``sha256`` of its file added."""
        from rerank_batch.retrieval.flat import build_shard

        stored = []
        for row in table.to_pylist():
            key = f"{self._build}/shards/{row['shard']:05d}.faiss"
            vectors = read_vectors(self._root, self._build, row["start"], row["stop"])
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "shard.faiss"
                build_shard(vectors, self._kind, file)
                stored.append((key, self._root.publish(key, file)))
        return (
            table.append_column("key", pa.array([key for key, _ in stored], pa.string()))
            .append_column("bytes", pa.array([each.bytes for _, each in stored], pa.int64()))
            .append_column("sha256", pa.array([each.sha256 for _, each in stored], pa.string()))
        )


def write_vectors(root: Root, build: str, table: pa.Table) -> None:
    """Keep one block of document vectors as ``<first document>.npy``, float32 [n, dimension]."""
    documents = table.column("document").to_numpy()
    flat = table.column(schema.VECTOR).combine_chunks().flatten().to_numpy(zero_copy_only=False)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.npy"
        np.save(file, flat.reshape(len(documents), -1), allow_pickle=False)
        root.publish(f"{build}/vectors/{documents[0]:012d}.npy", file)


def read_vectors(root: Root, build: str, start: int, stop: int) -> NDArray[np.float32]:
    """Vectors of documents ``start`` up to ``stop``, float32 [n, dimension]."""
    keys = list(root.sizes(f"{build}/vectors/"))
    firsts = np.array([int(Path(key).stem) for key in keys])
    parts = []
    for number in range(np.searchsorted(firsts, start, side="right") - 1, len(keys)):
        first = int(firsts[number])
        if first >= stop:
            break
        raw = root.read(keys[number])
        if raw is None:
            raise StorageError(f"{keys[number]} is gone from {root.uri}")
        part = np.load(io.BytesIO(raw), allow_pickle=False)
        parts.append(part[max(0, start - first) : stop - first])
    return np.ascontiguousarray(np.concatenate(parts), dtype=np.float32)
