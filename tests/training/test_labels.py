"""Label rows in: what is read, what a loss can learn from, what is refused."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rerank_batch.errors import InputError
from rerank_batch.training.config import FinetuneConfig
from rerank_batch.training.labels import read_labels, trainable
from tests.training.label_sets import label_rows, write_labels


def changed(number: int, **values: Any) -> list[dict[str, Any]]:
    rows = label_rows(5)
    rows[number].update(values)
    return rows


def test_queries_come_by_split_in_the_order_of_their_ids(tmp_path: Path) -> None:
    """Whatever the order of the rows, so that the order of training does not depend on files."""
    rows = label_rows()
    labels = read_labels(str(write_labels(tmp_path / "one", rows)))
    other = read_labels(str(write_labels(tmp_path / "other", rows[::-1])))
    for split, queries in labels.splits.items():
        assert [query.query_id for query in queries] == sorted(
            {row["query_id"] for row in rows if row["split"] == split}
        )
        for here, there in zip(queries, other.splits[split], strict=True):
            assert here.doc_ids == there.doc_ids
            assert [labels.texts[n] for n in here.documents] == [
                other.texts[n] for n in there.documents
            ]
    first = labels.splits["train"][0]
    assert first.positive.tolist() == [True, *[False] * 6]
    assert first.hard.tolist() == [False, True, False, True, False, True, False]
    assert first.grades() == {doc_id: int(doc_id.endswith(".0")) for doc_id in first.doc_ids}


def test_grades_are_labels_of_positives(tmp_path: Path) -> None:
    rows = label_rows(5)
    rows[0]["label"], rows[7]["label"], rows[8]["label"] = 3.0, None, 1.0
    first, second = read_labels(str(write_labels(tmp_path, rows))).splits["train"][:2]
    assert first.grades()["d000.0"] == 3
    assert second.grades()["d001.0"] == 1
    assert second.grades()["d001.1"] == 0  # it is a negative, whatever its label


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (changed(0, role="relevant"), "role is 'relevant'.*one of positive, negative"),
        (changed(0, split="eval"), "split is 'eval'.*one of train, dev, test"),
        (changed(0, query=None), "query is null"),
        (changed(0, label=float("nan")), "label is nan"),
        (changed(0, teacher_score=float("inf")), "teacher_score is inf"),
        (changed(0, split="dev"), "q000' is in dev and in train"),
        (changed(1, doc_id="d000.0"), "d000.0' is positive and negative"),
        (
            [row for row in label_rows(5) if row["split"] != "dev"],
            "has no dev query with a positive",
        ),
        ([{"query": "a"}], "has no column 'query_id'"),
    ],
)
def test_rows_that_cannot_be_are_refused(
    tmp_path: Path, rows: list[dict[str, Any]], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        read_labels(str(write_labels(tmp_path, rows)))


def test_labels_without_their_card_are_refused(tmp_path: Path) -> None:
    folder = write_labels(tmp_path, label_rows(5))
    (folder / "card.json").write_text("{}")
    with pytest.raises(InputError, match="names no fingerprint"):
        read_labels(str(folder))
    (folder / "card.json").unlink()
    with pytest.raises(InputError, match="make-labels"):
        read_labels(str(folder))


def test_what_a_loss_cannot_learn_from_is_counted(tmp_path: Path) -> None:
    rows = label_rows(10)
    for row in rows:
        if row["query_id"] == "q000" or row["doc_id"] == "d001.0":
            row["teacher_score"] = None
    labels = read_labels(str(write_labels(tmp_path, rows)))
    of_labels = FinetuneConfig(model="cross-encoder:x")
    assert len(trainable(labels, of_labels)[0]) == 6
    assert trainable(labels, of_labels)[1] == {}
    of_teacher = FinetuneConfig(model="cross-encoder:x", loss="margin-mse")
    kept, left_out = trainable(labels, of_teacher)
    assert [query.query_id for query in kept] == ["q002", "q005", "q006", "q007"]
    assert left_out == {"rows without a teacher score": 8, "queries without a positive": 2}
    for row in rows:
        row["teacher_score"] = None
    labels = read_labels(str(write_labels(tmp_path / "none", rows)))
    with pytest.raises(InputError, match=r"nothing of .* can be learned from"):
        trainable(labels, of_teacher)


def test_numbers_of_any_kind_are_read_and_others_refused(tmp_path: Path) -> None:
    plain = read_labels(str(write_labels(tmp_path / "plain", label_rows(5))))
    decimals = [{**row, "teacher_score": Decimal(row["teacher_score"])} for row in label_rows(5)]
    same = read_labels(str(write_labels(tmp_path / "decimals", decimals)))
    for one, other in zip(plain.splits["train"], same.splits["train"], strict=True):
        assert one.teacher.tolist() == other.teacher.tolist()
    texts = [{**row, "teacher_score": str(row["teacher_score"])} for row in label_rows(5)]
    with pytest.raises(InputError, match=r"'teacher_score' holds .*string, no numbers"):
        read_labels(str(write_labels(tmp_path / "texts", texts)))
