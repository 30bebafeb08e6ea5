"""What training on judgements of one's own gains: every judged query is tested by a model that was
trained on the others.

The judged queries of a finished run are dealt into folds. For each fold labels are made from the
judgements of all others, with this fold held out; a model is trained on them and reranks the
candidates of the fold's queries. All folds together are one paired comparison over all queries.

Of judgements that know everything filters have nothing to keep out. With ``positives`` training
knows only so many of a query's relevant documents, as a log does, and the others show how many of
them are taken for negatives, and what that costs.

Two trainings that differ in nothing but seeds, of labels and of training, differ by as much as a
filter may gain. With ``trainings`` there are so many, and a query's measure is the mean over them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.table import Table

from jobs.console import Console
from rerank_batch import ranking
from rerank_batch.config import Config, LabelFiltersConfig, QrelsConfig
from rerank_batch.errors import ConfigError
from rerank_batch.evaluation.measures import parse_measures, per_query
from rerank_batch.evaluation.significance import PairedTest, paired_tests
from rerank_batch.labels.candidates import CandidateReader
from rerank_batch.labels.rows import NEGATIVE
from rerank_batch.models.location import ModelName, model_folder
from rerank_batch.rerankers import load_scorer
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.scoring.modes import Mode
from rerank_batch.training.config import FinetuneConfig
from rerank_batch.training.model import has_head
from rerank_batch.workflows.finetune import TrainingWork, finetune, math_threads
from rerank_batch.workflows.label_inputs import LabelInputs, read_label_inputs
from rerank_batch.workflows.make_labels import make_labels

RETRIEVAL, START, TUNED, UNFILTERED = "retrieval", "start", "tuned", "tuned without filters"

_PLACES = {TUNED: "filtered", UNFILTERED: "unfiltered"}

_NO_FILTERS = LabelFiltersConfig(share=None, exact_duplicate=False, near_duplicate=None)

_Scores = dict[str, list[float]]
"""Query id -> scores of its candidates."""


@dataclass(frozen=True)
class _Query:
    """A judged query with the run's candidates for it, in the order of retrieval."""

    query_id: str
    ids: tuple[str, ...]
    text: str
    grades: dict[str, int]
    candidates: list[str]
    numbers: NDArray[np.int64]
    documents: list[str]


@dataclass(frozen=True)
class Asked:
    """How many folds, whether to train on labels without filters as well, how many relevant
    documents of a query training knows, the best graded ones (None: all), and how many models of a
    kind are trained for each fold."""

    folds: int
    unfiltered: bool
    positives: int | None
    trainings: int


@dataclass(frozen=True)
class _Bench:
    """What every fold shares."""

    config: Config
    tuning: FinetuneConfig
    run: str
    queries: Sequence[_Query]
    console: Console

    def seeded(self, training: int) -> "_Bench":
        """The same with the seeds of one training, the configured ones for the first."""
        labels = self.config.labels
        labels = labels.model_copy(update={"seed": labels.seed + training})
        return replace(
            self,
            config=self.config.model_copy(update={"labels": labels}),
            tuning=self.tuning.model_copy(update={"seed": self.tuning.seed + training}),
        )


@dataclass
class _Tested:
    """What all folds together say of one training: scores by query, and negatives in training, of
    which so many are relevant by the judgements that training did not know."""

    scores: _Scores = field(default_factory=dict)
    trained: list[int] = field(default_factory=list)
    negatives: int = 0
    false: int = 0


def folds(
    config: Config, tuning: FinetuneConfig, run: str, asked: Asked, folder: Path, console: Console
) -> None:
    """Train and test every fold, print means and gains.

    ``folder`` keeps models and scores: what is there already is not made again.

    Raises:
        ConfigError: there are fewer judged queries than folds.
    """
    inputs = read_label_inputs(config, run, console)
    queries = _queries(inputs)
    if len(queries) < asked.folds:
        raise ConfigError(f"{len(queries)} judged queries do not make {asked.folds} folds")
    trained_in = folder if asked.positives is None else folder / f"known-{asked.positives}"
    known = _knowing(config, queries, asked.positives, trained_in)
    bench = _Bench(known, tuning, inputs.source.run, queries, console)
    systems: dict[str, list[_Scores]] = {}
    if has_head(start := model_folder(tuning.location)):
        systems[START] = [_scores(bench, start, queries, folder / "start.json")]
    ways = {TUNED: known.labels.filters}
    if asked.unfiltered:
        ways[UNFILTERED] = _NO_FILTERS
    tested = {way: [_Tested() for _ in range(asked.trainings)] for way in ways}
    for number, fold in enumerate(_dealt(queries, asked.folds), start=1):
        console.note(f"fold {number} of {asked.folds}: {len(fold)} queries are tested")
        for training in range(asked.trainings):
            seeded = bench.seeded(training)
            for way, filters in ways.items():
                place = trained_in / f"fold-{number}" / _place(way, training)
                _fold(seeded, filters, fold, place, tested[way][training])
        _warn_of_few(tested[TUNED][-1].trained[-1], len(queries) - len(fold), known, console)
    systems |= {way: [each.scores for each in trainings] for way, trainings in tested.items()}
    _show({**_summary(config, queries, systems), "training": _training(tested)}, console)


def _place(way: str, training: int) -> str:
    return _PLACES[way] + (f"-{training + 1}" if training else "")


def _knowing(
    config: Config, queries: Sequence[_Query], positives: int | None, folder: Path
) -> Config:
    """The configuration whose labels know only so many relevant documents of a query."""
    if positives is None:
        return config
    rows = [
        {"query_id": query_id, "doc_id": doc_id, "relevance": grade}
        for query in queries
        for query_id in query.ids
        for doc_id, grade in _best(query.grades, positives)
    ]
    known = folder / "known.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), known)
    qrels = QrelsConfig(path=str(known))
    return config.model_copy(update={"labels": config.labels.model_copy(update={"qrels": qrels})})


def _best(grades: Mapping[str, int], count: int) -> list[tuple[str, int]]:
    """The best graded documents; among equals the hashes of their ids decide."""
    order = sorted(
        grades, key=lambda each: (-grades[each], hashlib.blake2b(each.encode()).digest())
    )
    return [(doc_id, grades[doc_id]) for doc_id in order[:count]]


def _warn_of_few(trained: int, others: int, config: Config, console: Console) -> None:
    if config.labels.split.shared == "together" and trained < others / 2:
        console.note(
            f"of {others} queries of the other folds {trained} are trained on: those that share a "
            "relevant document with this fold are kept out. labels.split.shared=drop trains on "
            "them and leaves those documents out"
        )


def _queries(inputs: LabelInputs) -> list[_Query]:
    texts, reader = inputs.index.texts(), CandidateReader(inputs.mining.source)
    rows = inputs.plan.queries.to_pylist()
    found = reader.of([row["query_id"] for row in rows])
    queries = []
    for row, candidates in zip(rows, found, strict=True):
        numbers = texts.numbers(candidates.doc_ids)
        queries.append(
            _Query(
                row["query_id"],
                tuple(row["query_ids"]),
                row["query"],
                {each["doc_id"]: int(each["grade"]) for each in row["judged"]},
                candidates.doc_ids,
                numbers,
                texts.contents(numbers),
            )
        )
    return queries


def _dealt(queries: Sequence[_Query], count: int) -> list[list[_Query]]:
    """Folds of nearly equal size, by the hashes of query ids."""
    order = sorted(queries, key=lambda q: hashlib.blake2b(q.query_id.encode()).digest())
    return [order[number::count] for number in range(count)]


def _fold(
    bench: _Bench,
    filters: LabelFiltersConfig,
    fold: Sequence[_Query],
    place: Path,
    tested: _Tested,
) -> None:
    """Labels without the fold, a model trained on them, its scores for the fold."""
    labels, model, scores = place / "labels", place / "model", place / "scores.json"
    if not scores.is_file():
        place.mkdir(parents=True, exist_ok=True)
        config = _without(bench.config, filters, fold, place)
        make_labels(config, bench.console, str(labels), bench.run)
        if not model.exists():
            finetune(bench.tuning, str(labels), model, TrainingWork(), bench.console)
    tested.scores |= _scores(bench, model, fold, scores)
    grades = {query.query_id: query.grades for query in bench.queries}
    rows = pq.read_table(
        labels / "rows" / "train.parquet", columns=["query_id", "doc_id", "role"]
    ).to_pylist()
    negatives = [row for row in rows if row["role"] == NEGATIVE]
    tested.trained.append(len({row["query_id"] for row in rows}))
    tested.negatives += len(negatives)
    tested.false += sum(grades[row["query_id"]].get(row["doc_id"], 0) > 0 for row in negatives)


def _without(
    config: Config, filters: LabelFiltersConfig, fold: Sequence[_Query], place: Path
) -> Config:
    """The configuration that keeps the fold, and what is near to it, out of training."""
    rows = [
        {"query_id": query_id, "doc_id": doc_id, "relevance": grade}
        for query in fold
        for query_id in query.ids
        for doc_id, grade in query.grades.items()
    ]
    held_out = place / "held-out.parquet"
    pq.write_table(pa.Table.from_pylist(rows), held_out)
    split = config.labels.split.model_copy(
        update={"test": 0.0, "held_out": QrelsConfig(path=str(held_out))}
    )
    labels = config.labels.model_copy(update={"split": split, "filters": filters})
    return config.model_copy(update={"labels": labels})


def _scores(bench: _Bench, model: Path, queries: Sequence[_Query], file: Path) -> _Scores:
    """What the model gives every candidate, from the file if it is there."""
    if not file.is_file():
        bench.console.note(f"scoring {sum(len(query.candidates) for query in queries):,} pairs")
        threads = math_threads()
        options = ScorerOptions(
            max_length=bench.tuning.max_length, mode=Mode("torch", "fp32"), threads=threads
        )
        scorer = load_scorer(ModelName("cross-encoder", str(model)), options)
        found = scorer.score([q.text for q in queries], [q.documents for q in queries]).values
        listed = {q.query_id: each.tolist() for q, each in zip(queries, found, strict=True)}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(listed), encoding="utf-8")
    read: _Scores = json.loads(file.read_text(encoding="utf-8"))
    return read


def _summary(
    config: Config, queries: Sequence[_Query], systems: Mapping[str, Sequence[_Scores]]
) -> dict[str, Any]:
    names = list(config.evaluation.measures)
    rankings = {RETRIEVAL: [{query.query_id: query.candidates for query in queries}]}
    for system, trainings in systems.items():
        rankings[system] = [
            {q.query_id: _reranked(q, scores[q.query_id]) for q in queries} for scores in trainings
        ]
    values = {system: _measured(names, queries, each) for system, each in rankings.items()}
    gains: dict[tuple[str, str, str], PairedTest] = {}
    for question in _questions(list(systems)):
        family = {
            (system, over, name): [
                values[system][query.query_id][name] - values[over][query.query_id][name]
                for query in queries
            ]
            for system, over in question
            for name in names
        }
        gains |= paired_tests(family)
    means = {
        system: {name: float(np.mean([found[query][name] for query in found])) for name in names}
        for system, found in values.items()
    }
    return {"queries": len(queries), "means": means, "gains": gains}


def _measured(
    names: Sequence[str], queries: Sequence[_Query], rankings: Sequence[Mapping[str, list[str]]]
) -> dict[str, dict[str, float]]:
    """Query id -> its measures, each the mean over rankings."""
    measures = parse_measures(names)
    qrels = {query.query_id: query.grades for query in queries}
    found = [per_query(measures, names, qrels, each) for each in rankings]
    return {
        query: {name: float(np.mean([each[query][name] for each in found])) for name in names}
        for query in qrels
    }


def _training(tested: Mapping[str, Sequence[_Tested]]) -> dict[str, dict[str, int]]:
    """Of each way to train the queries of the smallest fold's training, the negatives of all folds
    and trainings, and how many of them are relevant."""
    return {
        way: {
            "queries": min(min(each.trained) for each in trainings),
            "negatives": sum(each.negatives for each in trainings),
            "relevant": sum(each.false for each in trainings),
        }
        for way, trainings in tested.items()
    }


def _reranked(query: _Query, scores: Sequence[float]) -> list[str]:
    best = ranking.order(np.array(scores, dtype=np.float32), query.numbers)
    return [query.candidates[position] for position in best]


def _questions(systems: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Which system is compared with which to answer what: whether training pays, whether filters
    do."""
    training = [(TUNED, RETRIEVAL)]
    if START in systems:
        training += [(TUNED, START), (START, RETRIEVAL)]
    return [training, [(TUNED, UNFILTERED)]] if UNFILTERED in systems else [training]


def _show(summary: dict[str, Any], console: Console) -> None:
    gains: dict[tuple[str, str, str], PairedTest] = summary["gains"]
    title = f"{summary['queries']:,} queries, each tested by a model that has not seen it"
    means = Table(title=title, title_justify="left", pad_edge=False)
    names = list(next(iter(summary["means"].values())))
    means.add_column("system")
    for name in names:
        means.add_column(name, justify="right")
    for system, found in summary["means"].items():
        means.add_row(system, *(f"{found[name]:.4f}" for name in names))
    table = Table(title="Gains", title_justify="left", pad_edge=False)
    for column in ("system", "over", "measure"):
        table.add_column(column)
    for column in ("gain", "95 % interval", "p", "result"):
        table.add_column(column, justify="right")
    for (system, over, name), gain in gains.items():
        interval = gain.interval
        table.add_row(
            system,
            over,
            name,
            f"{gain.difference:+.4f}",
            "–" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}",
            f"{gain.corrected_p_value:.3f}",
            gain.outcome,
        )
    listed = [
        {"system": system, "over": over, "measure": name, **asdict(gain), "outcome": gain.outcome}
        for (system, over, name), gain in gains.items()
    ]
    console.result({**summary, "gains": listed}, means, table, _negatives(summary["training"]))


def _negatives(training: Mapping[str, Mapping[str, int]]) -> Table:
    table = Table(title="Trained on", title_justify="left", pad_edge=False)
    table.add_column("system")
    for column in ("queries, at least", "negatives, all told", "of them relevant"):
        table.add_column(column, justify="right")
    for way, each in training.items():
        share = each["relevant"] / max(each["negatives"], 1)
        table.add_row(
            way,
            f"{each['queries']:,}",
            f"{each['negatives']:,}",
            f"{each['relevant']:,} ({share:.1%})",
        )
    return table
