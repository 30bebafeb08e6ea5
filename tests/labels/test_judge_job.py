"""`make-labels` with an LLM as the source of truth, from a finished run to rows and card."""

import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from jobs.__main__ import app
from jobs.console import Console
from jobs.tables.make_labels import show
from rerank_batch.benchmarks.synthetic_runs import write_run
from rerank_batch.config import Config, parse_config
from rerank_batch.errors import ConfigError, InputsChanged, ModelError, SpendCapReached
from rerank_batch.labels import card as cards
from rerank_batch.llm.journal import Journal
from rerank_batch.runs import Run
from rerank_batch.storage import open_root
from rerank_batch.workflows import make_labels as job
from rerank_batch.workflows.open_results import open_results
from rerank_batch.workflows.start import Start
from tests.labels.pretend_judge import PretendJudge, by_hash

QUERIES, DEPTH = 24, 2

pytestmark = pytest.mark.usefixtures("plain_loop")


@pytest.fixture
def service(serve):
    model = PretendJudge()
    server = serve("llm")
    server.routes = {model.path: model}
    server.model = model
    return server


@pytest.fixture
def judged(tmp_path):
    """A made-up run as an LLM would judge it; ``judge`` changes settings of that section."""
    made_up = write_run(tmp_path, 200, QUERIES, 6, block_rows=8)

    def config(judge=None, **changed) -> Config:
        given = made_up.model_dump(mode="json")
        given["labels"] |= {
            "source": "llm",
            "judge": {"model": "llm:m", "depth": DEPTH, "double": 0.2, **(judge or {})},
            "positives": {"grade": 2},
            "split": {"dev": 0.2, "test": 0.2},
        }
        given["compute"]["block_rows"] = 6
        given["cost"] = {"prices": {"llm": {"request": 0.5}}}
        return parse_config({**given, **changed})

    return config


def make(config, out, *, run="latest", **start):
    return job.make_labels(config, Console(), str(out), run, Start(**start))


def rows_of(out: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(file) for file in sorted((out / "rows").iterdir())])


def truth(config: Config) -> dict[tuple[str, str], int]:
    """What the pretend judge says of the top of every query, computed from scratch."""
    found = open_results(config.root, "made-up").polars()
    top = found.explode("candidates").unnest("candidates").filter(pl.col("rank") <= DEPTH)
    texts = {}
    for file in Path(config.index.path).rglob("texts/*.arrow"):
        table = pa.ipc.open_file(file).read_all()
        texts |= zip(table["doc_id"].to_pylist(), table["text"].to_pylist(), strict=True)
    rows = top.select("query_id", "query", "doc_id").collect().rows()
    return {(query_id, doc): by_hash(query, texts[doc]) for query_id, query, doc in rows}


def write_qrels(config: Config, graded: dict[tuple[str, str], int]) -> None:
    rows = [{"query_id": q, "doc_id": d, "relevance": g} for (q, d), g in graded.items()]
    pq.write_table(pa.Table.from_pylist(rows), config.qrels.path)


def test_grades_of_the_judge_become_labels(judged, service, tmp_path, capsys):
    config = judged()
    grades = truth(config)
    write_qrels(config, grades)
    card = make(config, tmp_path / "out", run_id="judged")
    rows = rows_of(tmp_path / "out")
    labelled = rows.filter(pl.col("label").is_not_null())
    assert {(q, d): int(g) for q, d, g in labelled.select("query_id", "doc_id", "label").rows()} \
        .items() <= grades.items()  # fmt: skip
    positives = rows.filter(pl.col("role") == "positive")
    relevant = {pair for pair, grade in grades.items() if grade >= 2}
    rejected = Run.open(open_root(config.root), "judged").rejects()["query_id"].to_pylist()
    assert set(positives.select("query_id", "doc_id").rows()) == relevant
    assert set(rejected) == {q for q, _ in grades} - {q for q, _ in relevant}
    assert rows["source"].unique().to_list() == ["llm"]
    assert card["leak_check"]["passed"]

    facts = card["source"]["judge"]
    assert (facts["pairs"], facts["graded"]) == (QUERIES * DEPTH, QUERIES * DEPTH)
    counted = [list(grades.values()).count(grade) for grade in range(4)]
    assert list(facts["grades"].values()) == counted
    # Judgements as the judge judges: it agrees with them and with itself, and with nobody by luck.
    assert facts["judgements"]["kappa"] == facts["second_opinion"]["kappa"] == 1
    assert facts["judgements"]["pairs"] == QUERIES * DEPTH
    assert facts["cost"] == 0.5 * len(service.calls) == 0.5 * service.billed.requests
    assert facts["used"]["tokens"] == service.billed.tokens

    stored = json.loads((tmp_path / "out/card.json").read_text())
    assert stored["source"]["judge"] == facts
    text = (tmp_path / "out/README.md").read_text()
    assert "## The judge" in text and "llm:m" in text and facts["rubric_sha256"] in text
    assert "kappa 1.00" in text and "quadratic weights" in text
    assert f"| 3 | 0 | 0 | 0 | {counted[3]} |" in text
    show(card, Console())
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{QUERIES * DEPTH} of {QUERIES * DEPTH} pairs graded by llm:m" in shown
    assert "second opinion kappa 1.00" in shown and "judgements kappa 1.00" in shown


def test_a_judge_who_does_not_know_itself_and_judgements_of_another_scale_are_told(
    judged, service, tmp_path
):
    """Its second opinion is another hash of the pair; half of the judgements are not its own."""
    service.model.second = lambda query, document: by_hash(document, query)
    config = judged({"double": 1.0})
    binary = {
        pair: int(grade >= 2) if number % 2 else number // 2 % 2
        for number, (pair, grade) in enumerate(truth(config).items())
    }
    write_qrels(config, binary)
    facts = make(config, tmp_path / "out")["source"]["judge"]
    twice, others = facts["second_opinion"], facts["judgements"]
    assert twice["pairs"] == QUERIES * DEPTH
    assert abs(twice["kappa"]) < 0.2 and twice["interval"][0] < 0 < twice["interval"][1]
    assert others["grades"] == ["not relevant", "relevant"] and "plain kappa" in others["how"]
    assert 0.3 < others["kappa"] < 0.7
    text = (tmp_path / "out/README.md").read_text()
    assert "the judge from grade 2, the judgements from 1" in text
    assert "| not relevant | " in text


def test_without_judgements_there_is_nothing_to_compare_and_what_has_no_grade_is_told(
    judged, service, tmp_path, capsys
):
    service.model.fault, service.model.on = "digit 9", '"query": "w1'
    card = make(judged({"double": 0.0}, qrels=None), tmp_path / "out")
    facts = card["source"]["judge"]
    assert facts["judgements"] is None and facts["second_opinion"] is None
    lost = facts["ungraded"]["out_of_range"]
    assert 0 < lost == QUERIES * DEPTH - facts["graded"]
    assert f"| no grade: out\\_of\\_range | {lost} |" in (tmp_path / "out/README.md").read_text()
    show(card, Console())
    assert f"out_of_range {lost}" in capsys.readouterr().out


def test_killed_while_judging_and_while_mining_it_ends_in_the_same_rows(
    judged, service, tmp_path, monkeypatch
):
    config = judged({"service": {"concurrency": 1}})
    make(config, tmp_path / "whole", run_id="whole")
    paid = len(service.calls)
    for file in Path(config.root, "answers").iterdir():
        file.unlink()
    service.calls.clear()

    def interrupted(journal):
        if len(service.calls) == 30:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "keep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make(config, tmp_path / "out", run_id="died")
    assert len(service.calls) == 30

    healthy = job.run_queries

    def dying(blocks, *arguments, **named):
        yield next(healthy(blocks, *arguments, **named))
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "run_queries", dying)
    with pytest.raises(KeyboardInterrupt):
        make(config, tmp_path / "out", run_id="died")
    monkeypatch.setattr(job, "run_queries", healthy)
    assert len(service.calls) == paid
    card = make(config, tmp_path / "out", resume="died", take_over=True)
    assert len(service.calls) == paid, "no pair was paid for twice"
    assert rows_of(tmp_path / "out").equals(rows_of(tmp_path / "whole"))
    assert card["source"]["judge"]["known"] == card["source"]["judge"]["prompts"]


def test_the_cap_stops_it_and_the_same_command_goes_on(judged, service, tmp_path):
    prices = {"llm": {"request": 0.5}}
    config = judged(cost={"prices": prices, "cap": 15})
    for _ in range(2):
        with pytest.raises(SpendCapReached, match=r"go on with the same make-labels and a higher"):
            make(config, tmp_path / "out")
        assert len(service.calls) == 30
        assert not (tmp_path / "out").exists()
    card = make(judged(cost={"prices": prices, "cap": 500}), tmp_path / "out", run_id="more")
    facts = card["source"]["judge"]
    assert (facts["known"], facts["prompts"]) == (30, len(service.calls))
    assert facts["cost"] == 0.5 * len(service.calls), "what all attempts have cost"
    # Another label run of the same grades costs nothing more.
    make(judged(cost={"prices": prices, "cap": 0}), tmp_path / "out")
    assert len(service.calls) == facts["prompts"]


def test_a_run_goes_on_with_its_own_judge_alone(judged, service, tmp_path):
    make(judged(), tmp_path / "out", run_id="mine")
    paid = len(service.calls)
    rubric = tmp_path / "rubric.txt"
    rubric.write_text("0 1 2 3, as you like")
    with pytest.raises(InputsChanged, match=r"truth\.rubric"):
        make(judged({"rubric": str(rubric)}), tmp_path / "out", resume="mine")
    with pytest.raises(InputsChanged, match=r'settings\.judge\.model was "llm:m", is "llm:n"'):
        make(judged({"model": "llm:n"}), tmp_path / "out", resume="mine")
    # How fast it is asked is no part of what it is, nor is what it is compared with.
    slow = judged({"service": {"concurrency": 1}}, qrels=None)
    make(slow, tmp_path / "out", resume="mine")
    assert len(service.calls) == paid, "the wrong ones were refused before anything was paid for"


def test_a_dry_run_says_what_it_would_cost_and_asks_nobody(judged, service, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(judged().model_dump(mode="json")))

    def told(*arguments: str) -> str:
        asked = ["make-labels", str(file), "--out", str(tmp_path / "out"), "--dry-run"]
        found = CliRunner().invoke(app, [*asked, *arguments])
        assert found.exit_code == 0, found.output
        return " ".join(found.output.split())

    text = told()
    assert f"{QUERIES * DEPTH} pairs of {QUERIES} queries by llm:m" in text
    assert service.calls == [] and not (tmp_path / "out").exists()
    plan = job.dry_run(judged(), str(tmp_path / "out"))["judge"]
    make(judged(), tmp_path / "out2")
    assert plan["prompts"] == len(service.calls)
    assert plan["cost_at_most"] == 0.5 * 2 * plan["prompts"], "if every reply is asked for twice"
    assert f"{plan['prompts']} of them known; at most 0.0000 USD" in told()
    assert f"{QUERIES} in " in told("--set", "labels.source=qrels")


def test_what_a_judge_cannot_do_without_is_asked_for_before_anything_is_paid(
    judged, service, tmp_path, monkeypatch
):
    with pytest.raises(ModelError, match=r"labels\.judge\.model: unknown model family 'cohere'"):
        make(judged({"model": "cohere:m"}), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"no price of llm or llm:m, which labels\.judge calls"):
        make(judged(cost={"cap": 1}), tmp_path / "out")
    with pytest.raises(ConfigError, match="source: llm needs judge"):
        labels = {"source": "llm", "judge": None}
        judged(labels=labels)
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        make(judged(), tmp_path / "out")
    assert service.calls == []


def test_a_card_of_a_dataset_without_a_judge_has_no_word_of_one(made_up, tmp_path):
    card = make(made_up, tmp_path / "out")
    assert card["source"]["judge"] is None
    assert "## The judge" not in cards.markdown(card)
