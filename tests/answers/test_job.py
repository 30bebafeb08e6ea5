"""Outcomes and graded answers of a finished run: what is read, asked, told and shown."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from jobs.console import Console
from jobs.tables.outcomes import outcomes_parts
from rerank_batch.answers import References
from rerank_batch.config import AnswerCheckConfig, Config, PriceConfig, parse_config
from rerank_batch.data.text_store import TextStore, shard_bounds, write_texts
from rerank_batch.errors import (
    ConfigError,
    IndexMismatch,
    InputError,
    ModelError,
    SpendCapReached,
)
from rerank_batch.evaluation.comparison import compare
from rerank_batch.evaluation.judged import judged_blocks
from rerank_batch.evaluation.report import page as report
from rerank_batch.index.manifest import FORMAT, IndexFile, Manifest, ShardEntry
from rerank_batch.rerankers.paid import PaidScorer, PaidUse
from rerank_batch.runs import Run
from rerank_batch.storage import open_root, sha256_file
from rerank_batch.workflows.answers import Ranked, answer_tasks, most_calls, ranked_queries
from rerank_batch.workflows.outcomes import (
    prepare_outcomes,
    study,
)
from tests.evaluation.finished import DEPTH, row
from tests.rerankers.test_paid import Service
from tests.support.helpers import overwrite, reject_table, result_table, spec, write_parquet

QUERIES = 14
CORPUS = "corpus-fingerprint"
DOCUMENTS = [f"d{n:02d}" for n in range(1, DEPTH + 1)]


def text_of(doc_id: str) -> str:
    return f"text {doc_id}"


def write_index(folder: Path) -> TextStore:
    """An index of nothing but texts, with a file in the place of its vectors."""
    ids = pa.array(DOCUMENTS, pa.large_string())
    texts = pa.array(map(text_of, DOCUMENTS), pa.large_string())
    table = pa.table([ids, pa.array([""] * DEPTH, pa.large_string()), texts],
                     names=["doc_id", "title", "text"])  # fmt: skip
    bounds = shard_bounds(DEPTH, 2)
    files = write_texts(table, bounds, folder / "b" / "texts")
    (folder / "b" / "vectors").write_bytes(b"0")

    def listed(file: Path) -> IndexFile:
        key = str(file.relative_to(folder))
        return IndexFile(key=key, bytes=file.stat().st_size, sha256=sha256_file(file))

    manifest = Manifest(
        format=FORMAT, fingerprint="f", kind="Flat", metric="ip", dimension=1, documents=DEPTH,
        dropped={}, encoder="x:y", encoder_mode={}, recall_at_100=None, recall_queries=0,
        made_of={"corpus": CORPUS}, builds=("b",),
        shards=tuple(
            ShardEntry(start=a, stop=b, vectors=listed(folder / "b" / "vectors"), texts=listed(f))
            for (a, b), f in zip(bounds, files, strict=True)
        ),
    )  # fmt: skip
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return TextStore(files, bounds)


def write_run(root: Path, index: Any = None) -> Run:
    """Fourteen queries; d01 is at place 4 before and, for the even ones, first after."""
    rows = [{**row(n, 4, 1 if n % 2 == 0 else 4), "query": f"text {n}"} for n in range(QUERIES)]
    rows[0]["query_ids"] = ["q0", "other"]
    what = spec(planned=QUERIES, block_rows=QUERIES, index=index or {"corpus": CORPUS})
    run = Run.create(open_root(str(root)), "one", replace(what, fingerprint="f"))
    run.claim()
    run.writer().write(0, QUERIES, result_table(rows), reject_table(), {}, {}, {})
    run.finish({"queries": QUERIES, "rejects": {}})
    return run


@pytest.fixture
def project(tmp_path: Path) -> Any:
    """A finished run, an index, reference answers and thumbs; gives its configuration."""
    write_index(tmp_path / "index")
    write_run(tmp_path / "runs")
    references = [
        {"query_id": f"q{n}", "answer": f"It says {text_of('d01')}"} for n in range(1, 13)
    ]
    references += [{"query_id": "other", "answer": f"It says {text_of('d01')}"}]
    write_parquet(tmp_path / "answers.parquet", references)
    thumbs = [
        {"query_id": query, "system": system, "outcome": "thumb", "value": system == "reranked"}
        for query in ["other", *(f"q{n}" for n in range(1, 12))]
        for system in ("retrieval", "reranked")
    ]
    write_parquet(tmp_path / "thumbs.parquet", thumbs)

    def config(**sections: Any) -> Config:
        given = {
            "root": str(tmp_path / "runs"),
            "corpus": {"path": "corpus"},
            "index": {"path": str(tmp_path / "index"), "encoder": "x:y"},
            "outcomes": {"path": str(tmp_path / "thumbs.parquet")},
            "answer_check": {
                "model": "llm:writer",
                "judge": "llm:judge",
                "reference": str(tmp_path / "answers.parquet"),
                "top": 3,
            },
        }
        return parse_config(given | sections)

    return config


QRELS = {f"q{n}": {"d01": 1} for n in range(QUERIES)}


def studied(config: Config) -> Any:
    """A judged query was rejected: it counts with zeros and nothing is asked of it."""
    run = Run.open(open_root(config.root), "one")
    paths, systems = run.results_paths(), ("retrieval", "reranked")
    comparison = compare(judged_blocks(paths, QRELS), systems, ["rejected"], ("nDCG@10",))
    blocks = judged_blocks(paths, QRELS)
    return study(config, run, prepare_outcomes(config), comparison, blocks, Console())


def test_answers_and_thumbs_stand_beside_the_headline_measure(project, serve):
    """The pretend model answers with the document that shares most words with the query, the first
    of equals: only where d01 is first is it the right one."""
    service = serve("llm")
    config = project(cost={"prices": {"llm": {"request": 0.5}}})
    found = studied(config)
    by_name = {row.outcome: row for row in found.rows}
    grades = by_name["answer_grade"]
    # q0 by its other id and q1 to q12 have a reference; seven of them are even.
    assert (grades.both, grades.neither) == (13, 2)
    assert (grades.test.wins, grades.test.ties, grades.test.losses) == (7, 6, 0)
    assert grades.mean > grades.baseline_mean
    assert grades.headline_difference == pytest.approx(7 * (1 - 1 / math.log2(5)) / 13)
    assert grades.agreement.correlation == pytest.approx(1)
    assert by_name["thumb"].both == 12
    assert by_name["thumb"].test.comparisons == 2
    answers = found.answers
    assert (answers["queries"], answers["without_reference"], answers["lists"]) == (13, 1, 26)
    # Of the odd queries both lists are alike: one answer and one grade.
    assert answers["prompts"] == len(service.calls) == 2 * (7 * 2 + 6)
    assert answers["cost"] == 20
    assert [len(case.answers) for case in found.cases] == [2] * 7
    assert studied(config).answers["known"] == 40
    assert len(service.calls) == 40


def test_what_is_told_of_it(project, serve):
    serve("llm")
    found = studied(project())
    summary = found.to_json()
    written = json.dumps(summary)
    assert "It says" not in written and "text " not in written, "no texts in metrics.json"
    parts = [part for part in outcomes_parts(found) if isinstance(part, str)]
    assert "thumb: how far nDCG@10 and thumb go together cannot be told" in parts[1]
    assert (
        "answer_grade: queries that gain in nDCG@10 tend to gain in answer_grade, strongly"
        in (parts[0])
    )
    assert "outcomes: all 50 rows found their query and system" in parts
    assert any("Not in these grades: 1 queries without a reference answer." in p for p in parts)
    assert "answers: 26 of 26 lists graded; 0 of 40 prompts known; 40 requests" in parts[-1]
    page = report._TEMPLATE.environment.get_template("outcomes/section.html.j2").render(
        report=SimpleNamespace(outcomes=found)
    )
    assert "reranked, grade 3" in page and f"It says {text_of('d01')}" in page
    assert outcomes_parts(None) == []


def test_without_either_there_is_nothing_and_without_answers_no_call(project, serve):
    service = serve("llm")
    assert studied(project(outcomes=None, answer_check=None)) is None
    found = studied(project(answer_check=None))
    assert [row.outcome for row in found.rows] == ["thumb"]
    assert found.answers is None and service.calls == []


def test_the_cap_stops_it_and_the_next_evaluation_goes_on(project, serve):
    service = serve("llm")
    prices = {"prices": {"llm:writer": {"request": 1}, "llm:judge": {"request": 2}}}
    with pytest.raises(
        SpendCapReached,
        match="7 of 20 answers are there and kept; go on with evaluate CONFIG --run one",
    ):
        studied(project(cost={**prices, "cap": 7}))
    assert len(service.calls) == 7
    with pytest.raises(SpendCapReached, match="5 of 20 grades are there"):
        studied(project(cost={**prices, "cap": 31}))
    assert len(service.calls) == 20 + 5
    assert studied(project(cost={**prices, "cap": 60})).answers["cost"] == 15 * 2
    assert len(service.calls) == 40


def test_what_the_run_paid_for_its_reranker_is_of_the_same_budget(project, serve):
    service = serve("llm")
    config = project(cost={"prices": {"llm": {"request": 1}}, "cap": 9})
    use = PaidUse(open_root(config.root), "runs/one/", 1, PriceConfig(request=2))
    PaidScorer(Service(), use).score(["river", "paper"], [["a"], ["b"]])
    with pytest.raises(SpendCapReached, match=r"cost\.cap is 9\. 5 of 20 answers are there"):
        studied(config)
    assert len(service.calls) == 5


def test_what_is_wrong_is_told_before_anything_runs(project, environment, tmp_path):
    with pytest.raises(ConfigError, match="set OPENAI_API_KEY"):
        prepare_outcomes(project())
    environment.setenv("OPENAI_API_KEY", "key")
    prepare_outcomes(project())
    check = project().answer_check.model_dump()
    with pytest.raises(ModelError, match=r"answer_check.judge: unknown model family 'cohere'"):
        prepare_outcomes(project(answer_check={**check, "judge": "cohere:x"}))
    with pytest.raises(ConfigError, match="no price of llm or llm:judge"):
        prepare_outcomes(project(cost={"cap": 1, "prices": {"llm:writer": {}}}))
    row = {"query_id": "q0", "system": "reranked", "outcome": "answer_grade", "value": 1}
    taken = write_parquet(tmp_path / "taken.parquet", [row])
    with pytest.raises(InputError, match="'answer_grade' is what answer_check calls its own"):
        prepare_outcomes(project(outcomes={"path": str(taken)}))


def test_texts_of_another_corpus_or_damaged_ones_are_not_read(project, serve, tmp_path):
    service = serve("llm")
    texts = next((tmp_path / "index").rglob("00000.arrow"))
    whole = texts.read_bytes()
    texts.write_bytes(whole.replace(b"text d01", b"text d99"))
    with pytest.raises(IndexMismatch, match="sha256 differs"):
        studied(project())
    texts.write_bytes(whole)
    manifest = tmp_path / "index" / "manifest.json"
    overwrite(
        open_root(str(tmp_path / "index")),
        "manifest.json",
        manifest.read_bytes().replace(CORPUS.encode(), b"another-corpus"),
    )
    with pytest.raises(IndexMismatch, match="another corpus"):
        studied(project())
    assert service.calls == []


def test_of_systems_with_an_index_each_the_first_has_the_texts_of_all(project, serve, tmp_path):
    serve("llm")
    write_run(tmp_path / "several", index=[{"corpus": CORPUS}, {"corpus": CORPUS}])
    path = str(tmp_path / "index")
    systems = {
        "earlier": {"run": "one"},
        "retrieval": {"index": {"path": path}, "reranker": None},
        "reranked": {"index": {"path": "elsewhere"}},
    }
    index = {"path": "nowhere", "encoder": "x:y"}
    config = project(root=str(tmp_path / "several"), index=index, evaluation={"systems": systems})
    assert studied(config).answers["graded"] == 26


def test_what_cannot_be_asked_is_counted(tmp_path):
    texts = write_index(tmp_path)
    check = AnswerCheckConfig(model="llm:a", reference="r", top=3, max_chars=6)
    references = References({"a": ("right",), "c": ("right",)}, 2, 0)
    queries = [
        Ranked("q", ("q", "a"), "one", {"s": ["d02", "gone", "d01", "d03"], "t": []}),
        Ranked("b", ("b",), "two", {"s": ["d01"], "t": ["d01"]}),
        Ranked("c", ("c",), "three", {"s": ["gone", "lost"], "t": ["d05"]}),
    ]
    tasks, counts = answer_tasks(texts, check, references, queries)
    assert [(each.query_id, each.system, each.documents) for each in tasks] == [
        ("q", "s", ("text d02", "text d01")), ("q", "t", ()), ("c", "t", ("text d05",)),
    ]  # fmt: skip
    assert counts == {
        "queries": 2,
        "without_reference": 1,
        "without_texts": 1,
        "missing_documents": 2,
        "cut_documents": 3,
    }
    assert most_calls(references, [each.query_ids for each in queries], systems=2) == 8


def test_the_lists_of_a_run_are_those_that_are_measured(tmp_path):
    paths = write_run(tmp_path).results_paths()
    qrels = {query: QRELS[query] for query in ("q0", "q1")}
    systems = ("retrieval", "reranked")
    ranked = ranked_queries(judged_blocks(paths, qrels), systems, top=4)
    found = {each.query_id: each for each in ranked}
    assert sorted(found) == ["q0", "q1"]
    assert found["q0"].query_ids == ("q0", "other")
    before = ["d02", "d03", "d04", "d01"]
    assert found["q0"].rankings == {"retrieval": before, "reranked": ["d01", *before[:3]]}
    assert found["q1"].rankings == {"retrieval": before, "reranked": before}
