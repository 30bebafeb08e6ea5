"""Several systems in one pass: each gets what it would have alone, and no pair is read twice."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rerank_batch import schema, tally
from rerank_batch.comparison.assemble import AssembleSystems
from rerank_batch.comparison.stages import Reads, ScoreSystems, System, read_by
from rerank_batch.data.text_store import TextStore, shard_bounds, write_texts
from rerank_batch.models.location import ModelName
from rerank_batch.pipeline.assemble import AssembleResults
from rerank_batch.rerankers.base import PairScores, ScorerOptions
from rerank_batch.rerankers.cascade import pairs_of
from rerank_batch.rerankers.stages import Rerank, ScorerUse
from rerank_batch.retrieval.gate import Gate
from rerank_batch.schema import GATED

DOCUMENTS = 30
QUERIES = 9
COLUMNS = ("doc_id", "title", "text")
MEASURES = ("nDCG@5", "RR")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Any:
    table = pa.table({name: [f"{name[0]}{n:02d}" for n in range(DOCUMENTS)] for name in COLUMNS})
    table = table.cast(pa.schema([(name, pa.large_string()) for name in COLUMNS]))
    bounds = shard_bounds(DOCUMENTS, 3)
    store = TextStore(write_texts(table, bounds, tmp_path_factory.mktemp("texts")), bounds)
    return SimpleNamespace(texts=lambda: store)


class Model:
    """Scores that depend on the pair alone, or for a listwise one on the whole list; it counts what
    it was asked, and may have no answer for one of the queries."""

    def __init__(self, seed: int, listwise: bool = False, fails: str | None = None) -> None:
        self.seed, self.listwise, self.fails = seed, listwise, fails
        self.asked: Counter[Any] = Counter()

    def score(self, queries, documents):
        values = []
        for query, listed in zip(queries, documents, strict=True):
            whole = tuple(listed) if self.listwise else ()
            self.asked.update((query, text, whole) for text in listed)
            scores = [hash((self.seed, query, text, whole)) % 1000 / 10 for text in listed]
            values.append(np.array(scores, np.float32))
        fell_back = frozenset(
            n for n, query in enumerate(queries) if query == self.fails and documents[n]
        )
        cut = [np.array([text.endswith("7") for text in listed], bool) for listed in documents]
        return PairScores(values, cut, fell_back)


def use(number: int, depth: int | None = None) -> ScorerUse:
    return ScorerUse(number, ModelName("cross-encoder", str(number)), None, ScorerOptions(), depth)


def opened(monkeypatch: pytest.MonkeyPatch, models: dict[int, Model]) -> None:
    monkeypatch.setattr(
        "rerank_batch.rerankers.registry.load_scorer", lambda name, *_: models[int(name.location)]
    )


def searched(retrievals: int = 1, rejected: int | None = None) -> pa.Table:
    """Queries with candidates drawn anew for each of the retrievals; one finds nothing."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(QUERIES):
        found = [
            {
                "documents": rng.permutation(DOCUMENTS)[: 0 if number == 4 else 12].tolist(),
                "retrieval_scores": np.sort(rng.uniform(size=0 if number == 4 else 12))[::-1],
            }
            for _ in range(retrievals)
        ]
        rows.append(
            {
                "qidx": number,
                "query_id": f"q{number}",
                "query_ids": [f"q{number}"],
                "query": f"text {number}",
                "weight": 1.0,
                "flags": [],
                "vector": [0.0],
                "reject": "bad" if number == rejected else None,
                "retrievals": found,
            }
        )
    return pa.Table.from_pylist(rows, schema=schema.SEARCHED)


def alone(table: pa.Table, system: System, index: Any) -> list[list[str]]:
    """What the ordinary stages make of it: the ids of every list."""
    rows = table.to_pylist()
    for row in rows:
        found = row.pop("retrievals")[system.retrieval]
        row["documents"] = found["documents"][: system.depth]
        row["retrieval_scores"] = found["retrieval_scores"][: system.depth]
        if system.gate and row["documents"]:
            scores = np.array(row["retrieval_scores"], np.float32)
            row["flags"] = [GATED] if system.gate.is_sure(scores) else []
    out = pa.Table.from_pylist(rows, schema=schema.RETRIEVED)
    if system.cascade:
        uses = tuple(use(reads.scorer, reads.depth) for reads in system.cascade)
        out = Rerank(uses, index)(out)
    stages = max(len(system.cascade), 1)
    listed = AssembleResults(index, 5, MEASURES, None, stages)(out).column("candidates")
    return [
        [hit["doc_id"] for hit in sorted(hits, key=lambda hit: hit["rank"])]
        for hits in listed.to_pylist()
    ]


def lists_of(out: pa.Table, system: str) -> list[list[str]]:
    rows = zip(out.column("candidates").to_pylist(), out.column("systems").to_pylist(), strict=True)
    return [[ids[place] for place in listed[system]["places"]] for ids, listed in rows]


SYSTEMS = (
    System("retrieval", 0, 12),
    System("shallow", 0, 5, (Reads(1),)),
    System("deep", 0, 12, (Reads(1),)),
    System("some", 0, 12, (Reads(1, 7),)),
    System("cascade", 0, 12, (Reads(1, 10), Reads(2, 4))),
    System("other model", 0, 8, (Reads(2),)),
    System("other retrieval", 1, 9, (Reads(1, 6),)),
    System("gated", 0, 12, (Reads(2),), Gate("margin", 0.05)),
    System("listwise", 0, 10, (Reads(3, 10, True),)),
    System("listwise deeper", 0, 12, (Reads(3, None, True),)),
    System("listwise again", 0, 12, (Reads(3, 10, True),)),
)


def test_each_system_gets_what_it_would_have_got_alone(index, monkeypatch):
    models = {1: Model(1), 2: Model(2, fails="text 3"), 3: Model(3, listwise=True)}
    opened(monkeypatch, models)
    table = searched(retrievals=2, rejected=6)
    scored = ScoreSystems(SYSTEMS, (use(1), use(2), use(3)), index)(table)
    out = AssembleSystems(SYSTEMS, index, MEASURES, None)(scored)
    schema.check(out, schema.comparison(MEASURES, tuple(s.name for s in SYSTEMS)), "here")
    for system in SYSTEMS:
        assert lists_of(out, system.name) == alone(table, system, index), system.name


def test_no_pair_is_read_twice_and_no_list(index, monkeypatch):
    models = {1: Model(1), 2: Model(2), 3: Model(3, listwise=True)}
    opened(monkeypatch, models)
    tally.drain()
    ScoreSystems(SYSTEMS, (use(1), use(2), use(3)), index)(searched(retrievals=2))
    sums = tally.drain().sums
    for number, model in models.items():
        assert set(model.asked.values()) == {1}
        assert sums[pairs_of(number)] == sum(model.asked.values())
    found = QUERIES - 1
    assert sums[read_by("deep")] == 12 * found
    assert sums[read_by("shallow")] == 5 * found, "read, though it was known"
    assert sums[pairs_of(3)] == (10 + 12) * found, "a longer list is another list"


def test_models_may_be_spread_over_several_stages(index, monkeypatch):
    """As where one is a service, which has an actor of its own."""
    models = {1: Model(1), 2: Model(2), 3: Model(3, listwise=True)}
    opened(monkeypatch, models)
    table = searched(retrievals=2, rejected=2)
    together = ScoreSystems(SYSTEMS, (use(1), use(2), use(3)), index)(table)
    apart = table
    for here in ((use(1),), (use(2),), (use(3),)):
        apart = ScoreSystems(SYSTEMS, here, index)(apart)
    assert AssembleSystems(SYSTEMS, index, MEASURES, None)(apart).equals(
        AssembleSystems(SYSTEMS, index, MEASURES, None)(together)
    )


def test_flags_say_which_system(index, monkeypatch):
    opened(monkeypatch, {1: Model(1), 2: Model(2, fails="text 3"), 3: Model(3, listwise=True)})
    out = ScoreSystems(SYSTEMS, (use(1), use(2), use(3)), index)(searched(retrievals=2))
    flags = out.column("flags").to_pylist()
    assert "fell_back: other model" in flags[3]
    assert "fell_back: shallow" not in flags[3]
    gated = [n for n, each in enumerate(flags) if "gated: gated" in each]
    assert 0 < len(gated) < QUERIES
    assert "truncated: deep" in {flag for each in flags for flag in each}


def test_measures_are_those_of_each_list(index, monkeypatch):
    opened(monkeypatch, {1: Model(1)})
    systems = SYSTEMS[:3]
    scored = ScoreSystems(systems, (use(1),), index)(searched(rejected=1))
    qrels = {"q0": {"d03": 1}, "q1": {"d01": 1}}
    out = AssembleSystems(systems, index, ("RR",), qrels)(scored)
    metrics = out.column("metrics").to_pylist()
    for name in ("retrieval", "shallow", "deep"):
        ids = lists_of(out, name)[0]
        expected = 1 / (ids.index("d03") + 1) if "d03" in ids else 0.0
        assert metrics[0][name]["RR"] == pytest.approx(expected)
        assert metrics[1][name]["RR"] == 0.0, "rejected queries count"
    assert metrics[2] is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_rejects_its_query(index, monkeypatch, tmp_path: Path, bad):
    class Broken(Model):
        def score(self, queries, documents):
            scored = super().score(queries, documents)
            if len(scored.values[5]):
                scored.values[5][0] = bad
            return scored

    opened(monkeypatch, {1: Broken(1)})
    out = ScoreSystems(SYSTEMS[:3], (use(1),), index)(searched())
    assert [n for n, why in enumerate(out.column("reject").to_pylist()) if why] == [5]
