"""What each step reads: a function of its number, harder and harder, nothing false among it."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.config import load_section
from rerank_batch.errors import ConfigError
from rerank_batch.training.batches import GroupPlan, TrainingGroup
from rerank_batch.training.config import FinetuneConfig
from rerank_batch.training.labels import Labels, read_labels, trainable
from rerank_batch.training.losses import batch_of
from tests.training.label_sets import label_rows, write_labels


def config(**values: Any) -> FinetuneConfig:
    plain = {"model": "cross-encoder:x", "steps": 60, "queries_per_step": 6, "hard_share": (0, 1)}
    return FinetuneConfig.model_validate({**plain, **values})


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Labels:
    return read_labels(str(write_labels(tmp_path_factory.mktemp("labels"), label_rows(60))))


def plan_of(labels: Labels, settings: FinetuneConfig) -> GroupPlan:
    return GroupPlan(trainable(labels, settings)[0], labels.texts, settings)


def test_a_group_depends_on_its_number_alone(labels: Labels) -> None:
    """Made in any order, by any worker, after any resume: the same group."""
    plan = plan_of(labels, config())
    forwards = [plan.group(number) for number in range(len(plan))]
    other = plan_of(labels, config())
    backwards = [other.group(number) for number in reversed(range(len(plan)))]
    same = [a.documents == b.documents for a, b in zip(forwards, backwards[::-1], strict=True)]
    assert all(same)
    assert forwards[0] != plan_of(labels, config(seed=1)).group(0)


def test_every_query_comes_once_before_any_comes_again(labels: Labels) -> None:
    plan = plan_of(labels, config())
    queries = len(labels.splits["train"])
    for start in range(0, len(plan) - queries + 1, queries):
        seen = Counter(plan.group(start + n).query_id for n in range(queries))
        assert set(seen.values()) == {1}
        assert len(seen) == queries


def test_a_query_comes_with_other_documents_each_time(labels: Labels) -> None:
    plan = plan_of(labels, config(documents_per_query=3, hard_share=(0.5, 0.5)))
    seen: dict[str, set[tuple[str, ...]]] = {}
    for number in range(len(plan)):
        group = plan.group(number)
        seen.setdefault(group.query_id, set()).add(tuple(sorted(group.documents)))
    assert min(map(len, seen.values())) > 2


def test_hard_negatives_grow_in(labels: Labels) -> None:
    plan = plan_of(labels, config(documents_per_query=3))
    hard = [plan.group(number).hard for number in range(len(plan))]
    assert hard[:6] == [0] * 6
    assert hard[-6:] == [2] * 6
    thirds = [sum(part) for part in np.array_split(np.array(hard), 3)]
    assert thirds == sorted(thirds)


@given(number=st.integers(0, 359), documents=st.integers(2, 9), random_rows=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_group_is_a_positive_and_distinct_negatives(
    labels: Labels, number: int, documents: int, random_rows: bool
) -> None:
    """The query's own random rows, or where it has none any document but those it has."""
    settings = config(documents_per_query=documents)
    queries, _ = trainable(labels, settings)
    if not random_rows:
        queries = [query.only(query.hard | query.positive) for query in queries]
    plan = GroupPlan(queries, labels.texts, settings)
    group = plan.group(number)
    query = next(query for query in queries if query.query_id == group.query_id)
    own = {labels.texts[n] for n in query.documents}
    positive = {labels.texts[n] for n in query.documents[query.positive]}
    assert group.documents[0] in positive
    assert group.labels == [1.0, *[0.0] * (len(group.documents) - 1)]
    assert len(set(group.documents)) == len(group.documents)
    assert not positive & set(group.documents[1:])
    # Six rows are negatives; where random documents may be drawn there are always enough.
    assert len(group.documents) == (min(documents, 7) if random_rows else documents)
    if random_rows:
        assert set(group.documents) <= own


def test_a_random_negative_that_the_teacher_has_not_read_is_its_lowest(
    tmp_path: Path,
) -> None:
    """For listnet; a regression on the teacher's margins can not do with a guess."""
    rows = label_rows()
    for row in rows:
        if row["origin"] == "random":
            row["teacher_score"] = None
    labels = read_labels(str(write_labels(tmp_path, rows)))
    settings = config(loss="listnet", teacher_weight=1, documents_per_query=9, hard_share=(0, 0))
    plan = plan_of(labels, settings)
    for number in range(6):
        group = plan.group(number)
        # Its own three random rows are listed, hard rows fill up: 4 the positive, 1 the hard ones.
        assert group.teacher == [4.0, *[1.0] * 6]
    queries, left_out = trainable(labels, config(loss="margin-mse"))
    assert left_out == {"rows without a teacher score": 3 * len(queries)}


def group(labels: list[float], teacher: list[float]) -> TrainingGroup:
    return TrainingGroup("q", "asked", [f"d{n}" for n in range(len(labels))], labels, teacher, 0)


def test_each_loss_gets_its_inputs() -> None:
    groups = [group([3.0, 0.0, 1.0], [5.0, 1.0, 2.0]), group([1.0, 0.0, 0.0], [2.0, 0.0, 1.0])]
    listwise = batch_of(groups, config(label_weight=10, teacher_weight=0.5), 3.0)
    assert list(listwise) == ["query", "docs", "label"]
    assert listwise["label"][0].tolist() == [32.5, 0.5, 11.0]
    order = batch_of(groups, config(loss="lambda"), 3.0)
    assert order["label"][0].tolist() == [3.0, 0.0, 1.0]
    each = batch_of(groups, config(loss="bce"), 3.0)
    assert each["passage"] == ["d0", "d1", "d2"] * 2
    assert torch.allclose(each["label"], torch.tensor([1, 0, 1 / 3, 1 / 3, 0, 0]))
    margins = batch_of(groups, config(loss="margin-mse", teacher_weight=2), 3.0)
    assert list(margins) == ["query", "positive", "negative_1", "negative_2", "label"]
    assert margins["label"].tolist() == [[8.0, 6.0], [4.0, 2.0]]
    assert margins["negative_2"] == ["d2", "d2"]


def test_margins_need_equally_many_negatives(labels: Labels) -> None:
    settings = config(loss="margin-mse", documents_per_query=9)
    plan = plan_of(labels, settings)
    batch = batch_of([plan.group(number) for number in range(12)], settings, 1.0)
    assert batch["label"].shape == (12, 8)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("model: qwen3-reranker:x", "write cross-encoder:FOLDER_OR_HUB_ID"),
        ("steps: 0", "greater than or equal to 1"),
        ("los: bce", "did you mean 'loss'"),
        ("loss: bce\nteacher_weight: 1", "reads no teacher"),
        ("loss: margin-mse\nteacher_weight: 0", "so not 0"),
        ("label_weight: 0", "nothing to learn"),
        ("checkpoint: {minutes: null}", "nothing could be resumed"),
        ("dev: {evry: 3}", "did you mean 'every'"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(
    tmp_path: Path, line: str, complaint: str
) -> None:
    file = tmp_path / "finetune.yaml"
    model = "" if line.startswith("model") else "model: cross-encoder:x\n"
    file.write_text(model + line)
    with pytest.raises(ConfigError, match=complaint):
        load_section(FinetuneConfig, file)
