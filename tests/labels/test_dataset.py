"""The job from a finished run to the dataset, in this process: Ray is replaced by a plain loop."""

import json
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.console import Console
from rerank_batch.config import Config, LabelsConfig
from rerank_batch.errors import (
    ConfigError,
    IndexMismatch,
    InputsChanged,
    LabelsLeak,
    RunConflict,
)
from rerank_batch.labels import card as cards
from rerank_batch.labels import planning
from rerank_batch.labels.formats import FORMATS
from rerank_batch.labels.mining.draws import order_key
from rerank_batch.labels.rows import LABELS, label_rows
from rerank_batch.labels.splits import split_queries
from rerank_batch.runs import Run, verify_run
from rerank_batch.runs.export.rankings import export_run
from rerank_batch.storage import open_root
from rerank_batch.workflows import make_labels as job
from rerank_batch.workflows.open_results import open_results
from rerank_batch.workflows.start import Start
from tests.support.helpers import overwrite

QUERIES = 60


pytestmark = pytest.mark.usefixtures("plain_loop")


def make(config, out, *, run="latest", **start):
    return job.make_labels(config, Console(), str(out), run, Start(**start))


def files(out: Path) -> dict[str, bytes]:
    found = {str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*.*")}
    return {name: raw for name, raw in found.items() if name not in ("card.json", "README.md")}


def test_every_row_is_in_the_dataset_and_in_the_run(made_up, tmp_path):
    card = make(made_up, tmp_path / "out", run_id="mine")
    rows = pl.concat(
        [pl.read_parquet(tmp_path / f"out/rows/{s}.parquet") for s in ("train", "dev", "test")]
    )
    assert rows.height == sum(card["rows"].values()) > 5 * QUERIES
    run = Run.open(open_root(made_up.root), "mine")
    tables = list(label_rows(run))
    assert all(table.schema == LABELS for table in tables)
    canonical = pl.concat([pl.DataFrame(pl.from_arrow(table)) for table in tables])
    assert canonical.sort("query_id", "doc_id").equals(rows.sort("query_id", "doc_id"))
    assert rows["source"].unique().to_list() == ["qrels"]

    # One relevant document a query, which the judgements name.
    qrels = pl.read_parquet(tmp_path / "qrels.parquet")
    positives = rows.filter(pl.col("role") == "positive").select("query_id", "doc_id", "label")
    assert positives.join(qrels, on=["query_id", "doc_id"]).height == QUERIES
    # Nothing is both, and nothing stands twice.
    assert rows.select("query_id", "doc_id").is_unique().all()
    # A query is of one split, and the run is whole by the project's own check.
    assert rows.group_by("query_id").agg(pl.col("split").n_unique())["split"].max() == 1
    assert verify_run(run).faults == []
    assert card["split_queries"] == {
        s: rows.filter(pl.col("split") == s)["query_id"].n_unique()
        for s in ("train", "dev", "test")
    }
    # Readers of results never meet labels.
    assert open_results(made_up.root, "made-up").run_id == "made-up"


def test_every_document_that_was_looked_at_is_accounted_for(made_up, tmp_path):
    every = made_up.labels.negatives.model_copy(
        update={
            "retrieval": made_up.labels.negatives.retrieval.model_copy(update={"count": "all"}),
            "random": 0,
        }
    )
    labels = made_up.labels.model_copy(update={"negatives": every})
    card = make(made_up.model_copy(update={"labels": labels}), tmp_path / "out")
    negatives = sum(n for name, n in card["rows"].items() if name.endswith("negative"))
    run = Run.open(open_root(made_up.root), card["run"])
    rejected = run.rejects().num_rows
    assert rejected == 0
    assert negatives + sum(card["removed"].values()) == card["looked_at"]


def test_the_same_run_gives_the_same_bytes(made_up, tmp_path, plain_loop):
    make(made_up, tmp_path / "one", run_id="one")
    other = made_up.model_copy(
        update={"compute": made_up.compute.model_copy(update={"block_rows": 6})}
    )
    make(other, tmp_path / "two", run_id="two")
    assert len(set(plain_loop)) == 10
    assert files(tmp_path / "one") == files(tmp_path / "two")
    # A complete run is only written again.
    before = len(plain_loop)
    make(made_up, tmp_path / "three", resume="one")
    assert len(plain_loop) == before
    assert files(tmp_path / "three") == files(tmp_path / "one")


def test_a_run_that_died_goes_on_to_the_same_rows(made_up, tmp_path, plain_loop, monkeypatch):
    make(made_up, tmp_path / "whole", run_id="whole")
    whole = list(plain_loop)
    healthy = job.run_queries

    def dying(blocks, *arguments, **named):
        for number, block in enumerate(healthy(blocks, *arguments, **named)):
            yield block
            if number == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(job, "run_queries", dying)
    with pytest.raises(KeyboardInterrupt):
        make(made_up, tmp_path / "out", run_id="died")
    monkeypatch.setattr(job, "run_queries", healthy)
    plain_loop.clear()
    make(made_up, tmp_path / "out", resume="died", take_over=True)
    assert plain_loop == whole[2:]
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_a_leak_that_is_planted_stops_the_run(made_up, tmp_path, monkeypatch):
    """Two queries share their relevant document, and whoever splits forgets to look."""
    raw = pq.read_table(tmp_path / "qrels.parquet").to_pylist()
    raw[1]["doc_id"] = raw[0]["doc_id"]
    pq.write_table(pa.Table.from_pylist(raw), tmp_path / "qrels.parquet")
    make(made_up, tmp_path / "out")

    def apart(*arguments):
        splits = split_queries(*arguments)
        splits.splits[0], splits.splits[1] = "train", "test"
        splits.strictest.clear()
        return splits

    monkeypatch.setattr(planning, "split_queries", apart)
    with pytest.raises(LabelsLeak, match="a document of a stricter split as a positive"):
        make(made_up, tmp_path / "leak", run_id="leak")
    assert Run.open(open_root(made_up.root), "leak").state() == "unfinished"
    assert not (tmp_path / "leak").exists()


def test_what_is_held_out_stays_out_of_train(made_up, tmp_path):
    """Judgements of ten queries are kept for `evaluate`: they and what is near are test."""
    rows = pq.read_table(tmp_path / "qrels.parquet")
    pq.write_table(rows.slice(0, 10), tmp_path / "held_out.parquet")
    split = made_up.labels.split.model_dump() | {
        "test": 0.0,
        "held_out": {"path": str(tmp_path / "held_out.parquet")},
    }
    labels = LabelsConfig.model_validate({**made_up.labels.model_dump(), "split": split})
    card = make(made_up.model_copy(update={"labels": labels}), tmp_path / "out")
    found = pl.read_parquet(tmp_path / "out/rows/test.parquet")["query_id"].unique().sort()
    assert found.to_list()[:10] == rows.slice(0, 10).column("query_id").to_pylist()
    assert card["leak_check"]["passed"]


def test_clicks_can_be_the_source_of_truth(made_up, tmp_path):
    """Of each query one document was always clicked, another one never."""
    judged = pq.read_table(tmp_path / "qrels.parquet").to_pylist()
    shown = [
        {
            "query_id": row["query_id"],
            "doc_id": doc_id,
            "position": 1,
            "clicked": clicked,
            "count": 50,
        }
        for row in judged
        for doc_id, clicked in ((row["doc_id"], True), ("d00000000", False))
        if row["doc_id"] != "d00000000"
    ]
    pq.write_table(pa.Table.from_pylist(shown), tmp_path / "clicks.parquet")
    clicks = {"path": str(tmp_path / "clicks.parquet"), "propensity": {"eta": 1.0}}
    labels = made_up.labels.model_copy(update={"source": "clicks"})
    given = {**made_up.model_dump(mode="json"), "clicks": clicks, "labels": labels.model_dump()}
    card = make(Config.model_validate(given), tmp_path / "out", run_id="clicks")
    assert card["source"]["truth"] == "clicks"
    assert "click labels, not judgements" in card["source"]["judgements"]
    rows = pl.concat([pl.read_parquet(file) for file in (tmp_path / "out/rows").iterdir()])
    found = rows.filter(pl.col("role") == "positive").select("query_id", "doc_id").sort("query_id")
    expected = [(row["query_id"], row["doc_id"]) for row in shown if row["clicked"]]
    assert found.rows() == sorted(expected)
    assert rows["source"].unique().to_list() == ["clicks"]
    with pytest.raises(ConfigError, match=r"clicks\.path"):
        make(made_up.model_copy(update={"labels": labels}), tmp_path / "none")


def test_the_teacher_can_be_the_source_of_truth(made_up, tmp_path):
    """What the run's reranker likes best is the positive, and no grade is made up for it."""
    given = {**made_up.labels.model_dump(), "source": "teacher", "positives": {"score": 2.0}}
    config = made_up.model_copy(
        update={"labels": LabelsConfig.model_validate(given), "qrels": None}
    )
    card = make(config, tmp_path / "out")
    rows = pl.concat([pl.read_parquet(file) for file in (tmp_path / "out/rows").iterdir()])
    assert rows["label"].null_count() == rows.height
    best = open_results(made_up.root, "made-up").polars().explode("candidates").unnest("candidates")
    liked = best.filter((pl.col("rank") == 1) & (pl.col("score") >= 2)).select("query_id", "doc_id")
    positives = rows.filter(pl.col("role") == "positive")
    assert positives["teacher_score"].min() >= 2
    found = positives.select("query_id", "doc_id").sort("query_id")
    assert found.equals(liked.collect().sort("query_id"))
    assert card["queries_unknown_to_the_truth"] == QUERIES - found.height


def test_negatives_of_another_run_are_named_after_it(made_up, tmp_path):
    """Here the same run stands for another: its first five beside the run's own from the sixth."""
    negatives = {
        "retrieval": {"first": 6, "count": 2},
        "random": 0,
        "runs": [{"run": "made-up", "last": 5, "count": 2}],
    }
    given = {**made_up.labels.model_dump(), "negatives": negatives}
    config = made_up.model_copy(update={"labels": LabelsConfig.model_validate(given)})
    card = make(config, tmp_path / "out", run_id="mine")
    assert card["source"]["others"] == ["made-up"]
    rows = pl.concat([pl.read_parquet(file) for file in (tmp_path / "out/rows").iterdir()])
    ranks = (
        rows.filter(pl.col("role") == "negative")
        .group_by("origin")
        .agg(
            least=pl.col("rank").min(),
            most=pl.col("rank").max(),
            scored=pl.col("teacher_score").count(),
            all=pl.len(),
        )
    )
    assert {row["origin"]: (row["least"], row["most"]) for row in ranks.to_dicts()} == {
        "retrieval:6-12": (6, 12),
        "run:made-up": (1, 5),
    }
    assert (ranks["scored"] == ranks["all"]).all()
    with pytest.raises(RunConflict, match="holds labels"):
        runs = config.labels.negatives.runs[0].model_copy(update={"run": "mine"})
        kept = config.labels.negatives.model_copy(update={"runs": (runs,)})
        labels = config.labels.model_copy(update={"negatives": kept})
        make(config.model_copy(update={"labels": labels}), tmp_path / "none")


def test_the_card_tells_sources_rules_and_samples(made_up, tmp_path):
    labels = made_up.labels.model_copy(update={"formats": tuple(FORMATS)})
    card = make(made_up.model_copy(update={"labels": labels}), tmp_path / "out", run_id="mine")
    stored = json.loads((tmp_path / "out/card.json").read_text())
    assert {key: card[key] for key in stored} == stored
    assert stored["state"] == "complete"
    assert stored["source"]["teacher"]["fingerprint"] == "made-up"
    assert stored["leak_check"]["passed"]
    # Drawn from all rows of all files by a hash of their ids: always the same.
    rows = pl.concat([pl.read_parquet(file) for file in (tmp_path / "out/rows").iterdir()])
    pairs = rows.select("query_id", "doc_id").rows()
    drawn = sorted(pairs, key=lambda pair: (order_key(0, pair[0])(pair[1]), pair[1]))[:20]
    assert [(row["query_id"], row["doc_id"]) for row in stored["samples"]] == drawn
    assert (
        stored["files"]["rows/train.parquet"]["rows"]
        == pq.read_metadata(tmp_path / "out/rows/train.parquet").num_rows
    )
    assert set(stored["formats"]) == set(FORMATS)
    for name in FORMATS:
        for split in ("train", "dev", "test"):
            lines = (tmp_path / f"out/{name}/{split}.jsonl").read_text().splitlines()
            assert len(lines) == stored["files"][f"{name}/{split}.jsonl"]["rows"] > 0
    text = (tmp_path / "out/README.md").read_text()
    assert text.startswith('---\nlicense: "cc-by-4.0"\n---')
    assert "share of the positive's | 0.95 |" in text
    assert f"| train | {stored['split_queries']['train']} |" in text


def test_texts_of_strangers_are_text_in_the_card(made_up, tmp_path):
    card = make(made_up, tmp_path / "out")
    card["samples"][0]["query"] = "<script>alert(1)</script> | a | **b** [x](http://evil) @name"
    text = cards.markdown(card)
    assert "<script>" not in text
    assert "[x]" not in text
    line = next(line for line in text.splitlines() if "script" in line)
    assert line.replace("\\|", "").count("|") == 8, "the row has seven cells"


def test_nothing_of_others_is_removed(made_up, tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"holds 'thesis\.txt'.*nothing was removed"):
        make(made_up, out)
    assert (out / "thesis.txt").read_text() == "years of work"
    (out / "thesis.txt").unlink()
    make(made_up, out, run_id="first")
    fewer = made_up.labels.model_copy(update={"formats": ("pairs",)})
    make(made_up.model_copy(update={"labels": fewer}), out, run_id="second")
    assert {path.name for path in out.iterdir()} == {"card.json", "README.md", "rows", "pairs"}
    # A dataset whose writer died is known by its card, which is begun first.
    overwrite(
        open_root(str(out)),
        "card.json",
        json.dumps({"state": "being written", "files": dict.fromkeys(files(out))}).encode(),
    )
    make(made_up, out, run_id="third")
    assert json.loads((out / "card.json").read_text())["state"] == "complete"


def test_what_does_not_fit_is_refused_in_words(made_up, tmp_path):
    make(made_up, tmp_path / "out", run_id="mine")
    with pytest.raises(RunConflict, match="holds labels"):
        make(made_up, tmp_path / "out2", run="mine")
    run = Run.open(open_root(made_up.root), "mine")
    with pytest.raises(RunConflict, match="holds labels"):
        export_run(run, "trec", "reranked", tmp_path / "run.trec")
    assert run.how_to_go_on() == "rerank-batch make-labels CONFIG --resume mine"
    other = made_up.labels.model_copy(update={"seed": 1})
    with pytest.raises(InputsChanged, match=r"settings\.seed was 0, is 1"):
        make(made_up.model_copy(update={"labels": other}), tmp_path / "out2", resume="mine")
    nothing = made_up.model_copy(update={"qrels": None})
    with pytest.raises(ConfigError, match=r"labels\.qrels\.path"):
        make(nothing, tmp_path / "out2")
    index = open_root(made_up.index.path)
    manifest = json.loads(index.read("manifest.json") or b"")
    manifest["made_of"]["corpus"] = "another"
    overwrite(index, "manifest.json", json.dumps(manifest).encode())
    with pytest.raises(IndexMismatch, match="not the one that run made-up retrieved from"):
        make(made_up, tmp_path / "out2")


@pytest.mark.slow
def test_a_dataset_can_go_to_a_bucket(made_up, tmp_path, prefix):
    make(made_up, tmp_path / "out", run_id="mine")
    place = f"{prefix}/labels"
    for _ in range(2):  # the second replaces the first
        card = job.make_labels(made_up, Console(), place, "latest", Start(resume="mine"))
    bucket = open_root(place)
    local = files(tmp_path / "out")
    assert {name: bucket.read(name) for name in local} == local
    assert json.loads(bucket.read("card.json") or b"")["files"] == card["files"]
