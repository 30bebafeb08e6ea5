import math

import numpy as np
import pyarrow as pa
import pytest

from rerank_batch.config import LabelWindowConfig
from rerank_batch.errors import InputError
from rerank_batch.labels.mining.draws import draws
from rerank_batch.labels.mining.pools import Mining, OtherRun
from rerank_batch.labels.mining.stage import MineLabels
from rerank_batch.labels.rows import LABELLED
from rerank_batch.labels.rules import Rules
from rerank_batch.labels.splits import HeldOut
from tests.conftest import sentences
from tests.labels.small import corpus, labels_config, mined, negatives, plan, removed, run_of

DOCUMENTS = 60
TEXTS = {f"d{n:02d}": text for n, text in enumerate(sentences(DOCUMENTS, seed=5, words=30))}
QUERIES = [f"q{n:02d}" for n in range(12)]


@pytest.fixture
def texts(tmp_path):
    return corpus(tmp_path / "texts", TEXTS)


@pytest.fixture
def source(tmp_path):
    """Each of 12 queries retrieves 20 documents; the teacher likes them less from rank to rank."""
    return run_of(
        tmp_path / "run",
        {
            query: [
                (f"d{(3 * n + rank) % DOCUMENTS:02d}", 1 - rank / 100, 2 - rank / 5)
                for rank in range(20)
            ]
            for n, query in enumerate(QUERIES)
        },
    )


QRELS = {query: {f"d{3 * n % DOCUMENTS:02d}": 1} for n, query in enumerate(QUERIES)}


def test_numbers_are_found_by_id_in_any_order(texts):
    ids = ["d59", "d00", "zz", "", "d17", "d31", "d31"]
    assert texts.texts().numbers(ids).tolist() == [59, 0, -1, -1, 17, 31, 31]
    assert texts.texts().numbers([]).tolist() == []


def test_what_is_drawn_depends_on_no_order_and_no_company(texts, source):
    """Whatever block a query is in, whoever labels it: the same rows."""
    config = labels_config(negatives={"retrieval": {"count": 4}, "random": 3})
    whole = mined(texts, source, QRELS, config)
    mining = Mining(
        source,
        (),
        config.negatives.retrieval,
        3,
        config.positives,
        True,
        Rules(config.filters, 1, True),
        0,
    )
    planned = plan(source, QRELS, config).queries
    alone = [
        row
        for number in reversed(range(planned.num_rows))
        for row in MineLabels(texts, mining)(planned.slice(number, 1)).to_pylist()
    ]
    assert list(reversed(alone)) == whole
    assert [len(negatives(row)) for row in whole] == [7] * 12
    other = mined(
        texts,
        source,
        QRELS,
        labels_config(seed=1, negatives={"retrieval": {"count": 4}, "random": 3}),
    )
    assert list(map(negatives, other)) != list(map(negatives, whole))
    more = mined(
        texts, source, QRELS, labels_config(negatives={"retrieval": {"count": 5}, "random": 3})
    )
    for few, many in zip(whole, more, strict=True):
        assert set(negatives(few)) < set(negatives(many)), "a larger draw holds the smaller"


def test_rows_say_where_each_document_comes_from(tmp_path, texts, source):
    """Ranks of the run, of another retriever, or none; scores only where the teacher read it."""
    config = labels_config(
        negatives={"retrieval": {"first": 15, "last": 17, "count": "all"}, "random": 2},
        filters={"share": None, "near_duplicate": None},
    )
    there = run_of(
        tmp_path / "bm25",
        {"q00": [("d01", 9.0, 0.3), ("d40", 8.0, -0.5), ("d14", 7.0, 0.1)]},
        "bm25",
    )
    window = LabelWindowConfig(count="all")
    rows = {}
    for same in (True, False):
        other = OtherRun("bm25", there, window, same_teacher=same)
        rows[same] = mined(texts, source, QRELS, config, [other])[0]["documents"]
    origins = [(each["doc_id"], each["role"], each["origin"], each["rank"]) for each in rows[True]]
    assert origins[:6] == [
        ("d00", "positive", "judged", 1),
        ("d14", "negative", "retrieval:15-17", 15),
        ("d15", "negative", "retrieval:15-17", 16),
        ("d16", "negative", "retrieval:15-17", 17),
        ("d01", "negative", "run:bm25", 1),
        ("d40", "negative", "run:bm25", 2),
    ]
    assert [each[1:] for each in origins[6:]] == [("negative", "random", None)] * 2
    scores = {each["doc_id"]: each["teacher_score"] for each in rows[True]}
    assert scores["d00"] == 2.0
    assert scores["d01"] == np.float32(2 - 1 / 5), "the run's own score goes before another's"
    assert scores["d40"] == -0.5
    other_teacher = {each["doc_id"]: each["teacher_score"] for each in rows[False]}
    assert other_teacher["d40"] is None
    assert [scores[each[0]] for each in origins[6:]] == [None, None]
    assert all(each["document"] == TEXTS[each["doc_id"]] for each in rows[True])


def test_random_documents_are_neither_retrieved_nor_judged(texts, source):
    config = labels_config(negatives={"retrieval": {"count": 0}, "random": 10})
    rows = mined(texts, source, QRELS, config)
    for n, row in enumerate(rows):
        assert len(negatives(row)) == len(set(negatives(row))) == 10
        assert {f"d{(3 * n + rank) % DOCUMENTS:02d}" for rank in range(20)}.isdisjoint(
            negatives(row)
        )


def test_draws_are_different_and_fair():
    counts = np.zeros(50)
    for number in range(2000):
        found = draws(7, f"q{number}", 50, 10)
        assert len(set(found)) == 10
        counts[found] += 1
    assert abs(counts / 2000 - 0.2).max() < 5 * math.sqrt(0.2 * 0.8 / 2000)
    assert sorted(draws(7, "q", 3, 100)) == [0, 1, 2], "a corpus may be small"


def test_a_query_that_cannot_be_labelled_is_rejected_with_the_reason(texts, source):
    qrels = {
        "q00": {"d00": 1},
        "q01": {"gone": 1, "d59": 0},
        "q02": dict.fromkeys(TEXTS, 1),
        "q03": {"d09": 0},
    }
    rows = mined(texts, source, qrels, labels_config())
    assert [row["reject"] for row in rows] == [None, "no_positive", "no_negative", "no_positive"]
    assert [len(row["documents"]) > 0 for row in rows] == [True, False, False, False]
    assert removed(rows[1])["not_in_corpus"] == 1
    config = labels_config(negatives={"retrieval": {"count": 0}, "random": 0})
    positives_only = mined(texts, source, {"q02": {"d00": 1}}, config)
    assert [row["reject"] for row in positives_only] == [None], "none was asked for"


def test_a_document_of_a_stricter_split_is_left_out_of_the_others(texts, source):
    config = labels_config(
        split={"dev": 0.0, "test": 0.0, "shared": "drop"}, filters={"share": None}
    )
    qrels = {"q00": {"d00": 1, "d03": 1}, "q01": {"d03": 1}, "q02": {"d06": 1, "d09": 0}}
    qrels["q03"] = {"d09": 1}
    held_out = HeldOut(query_ids={"q03"}, documents={"d03", "d09"})
    rows = mined(texts, source, qrels, config, held_out=held_out)
    assert [row["split"] for row in rows] == ["train", "train", "train", "test"]
    found = [[d["doc_id"] for d in row["documents"] if d["role"] == "positive"] for row in rows]
    assert found == [["d00"], [], ["d06"], ["d09"]]
    assert [row["reject"] for row in rows] == [None, "no_positive", None, None]
    assert [row["removed"]["held_out"] for row in rows] == [2, 2, 0, 0]
    assert not {"d03", "d09"} & set(negatives(rows[0])), "a negative would teach to rank it last"
    assert "d09" in negatives(rows[2]), "judged not relevant there, whatever it is elsewhere"


def test_together_a_document_of_a_stricter_split_may_be_a_negative(texts, source):
    config = labels_config(split={"dev": 0.0, "test": 0.0}, filters={"share": None})
    qrels = {"q00": {"d00": 1}, "q03": {"d09": 1}}
    held_out = HeldOut(query_ids={"q03"}, documents={"d09"})
    first, _ = mined(texts, source, qrels, config, held_out=held_out)
    assert first["split"] == "train"
    assert "d09" in negatives(first)


def test_the_teacher_can_be_the_source_of_truth(texts, source):
    config = labels_config(
        source="teacher",
        positives={"score": 1.5, "at_most": 2},
        filters={"share": None, "margin": 1.0, "near_duplicate": None},
    )
    rows = mined(texts, source, None, config)
    assert [row["query_id"] for row in rows] == QUERIES
    first = rows[0]["documents"]
    assert [each["doc_id"] for each in first if each["role"] == "positive"] == ["d00", "d01"]
    assert {each["label"] for each in first} == {None}
    # Scores fall by 0.2 a rank from 2.0: those within 1.0 of the best are kept out.
    assert removed(rows[0]) == {"judged_relevant": 2, "margin": 3}
    with pytest.raises(InputError, match=r"none of the 12 queries .* \(teacher\)"):
        mined(texts, source, None, labels_config(source="teacher", positives={"score": 9.0}))


def test_positives_are_the_best_graded_and_then_the_teachers_choice(texts, source):
    qrels = {"q00": {"d01": 1, "d02": 1, "d05": 3, "d50": 1}}
    config = labels_config(positives={"at_most": 2})
    (row,) = mined(texts, source, qrels, config)
    found = [each["doc_id"] for each in row["documents"] if each["role"] == "positive"]
    assert found == ["d05", "d01"]
    assert not {"d02", "d50"} & set(negatives(row)), "relevant beyond the limit is no negative"


def test_the_stage_keeps_its_schema_and_its_rows(texts, source):
    config = labels_config()
    planned = plan(source, QRELS, config).queries
    mining = Mining(
        source,
        (),
        config.negatives.retrieval,
        0,
        config.positives,
        True,
        Rules(config.filters, 1, True),
        0,
    )
    table = MineLabels(texts, mining)(planned)
    assert table.select(LABELLED.names).schema.types == LABELLED.types
    assert table.column("qidx").to_pylist() == list(range(12))
    empty = MineLabels(texts, mining)(planned.slice(0, 0))
    assert empty.num_rows == 0
    assert isinstance(empty, pa.Table)
