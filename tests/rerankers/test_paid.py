"""A service with a memory: nothing is paid for twice, whatever ends the run, and the cap holds."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rerank_batch.config import PriceConfig
from rerank_batch.errors import ServiceError, SpendCapReached, StorageError
from rerank_batch.rerankers.base import Answer
from rerank_batch.rerankers.paid import PaidScorer, PaidUse, read_journal
from rerank_batch.services.spending import Budget
from rerank_batch.services.usage import Usage
from rerank_batch.storage import Root, open_root

QUERIES = ["river", "stone", "cloud", "paper"]
LISTS = [["a", "bb"], ["a"], [], ["ccc", "a", "bb"]]
PREFIX = "runs/one/"


class Service:
    """One request a query; scores are lengths; it fails where it is told to."""

    def __init__(self, fails_at: str | None = None) -> None:
        self.asked: list[str] = []
        self.fails_at = fails_at

    def answers(
        self, queries: Sequence[str], documents: Sequence[Sequence[str]], budget: Budget
    ) -> Iterator[Answer]:
        for number, (query, listed) in enumerate(zip(queries, documents, strict=True)):
            used = Usage(requests=1, search_units=1)
            budget.reserve(used)
            if query == self.fails_at:
                budget.settle(used, Usage())
                raise ServiceError("down")
            self.asked.append(query)
            budget.settle(used, used)
            values = np.array([len(text) for text in listed], np.float32)
            cut = np.array([len(text) > 2 for text in listed])
            yield Answer(number, values, cut, used, fell_back=query == "stone")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return open_root(str(tmp_path))


def scorer(root: Root, service: Any, **use: Any) -> PaidScorer:
    return PaidScorer(service, PaidUse(root, PREFIX, use.pop("stage", 1), **use))


def usage(root: Root) -> Usage:
    return sum((entry.used for _, entry in read_journal(root, PREFIX)), Usage())


def test_answers_come_back_in_order_and_an_empty_list_costs_nothing(root):
    service = Service()
    scored = scorer(root, service).score(QUERIES, LISTS)
    assert [values.tolist() for values in scored.values] == [[1, 2], [1], [], [3, 1, 2]]
    assert [cut.tolist() for cut in scored.truncated] == [
        [False, False],
        [False],
        [],
        [True, False, False],
    ]
    assert scored.fell_back == {1}
    assert service.asked == ["river", "stone", "paper"]
    assert usage(root) == Usage(requests=3, search_units=3)


def test_a_block_that_is_done_again_pays_for_what_is_left_alone(root):
    """The service fails half-way; another process takes the block up."""
    broken = Service(fails_at="paper")
    with pytest.raises(ServiceError):
        scorer(root, broken).score(QUERIES, LISTS)
    assert broken.asked == ["river", "stone"]
    again = Service()
    scored = scorer(root, again).score(QUERIES, LISTS)
    assert again.asked == ["paper"]
    whole = scorer(open_root(f"{root.uri}/other"), Service()).score(QUERIES, LISTS)
    for mine, theirs in zip(scored.values, whole.values, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert scored.fell_back == whole.fell_back
    assert usage(root) == Usage(requests=3, search_units=3)


def test_the_same_query_with_other_documents_or_another_order_is_asked_again(root):
    service = Service()
    mine = scorer(root, service)
    for listed in (["a", "b"], ["b", "a"], ["a", "b"], ["ab"]):
        mine.score(["river"], [listed])
    assert len(service.asked) == 3
    mine.score(["river", "river"], [["z"], ["z"]])
    assert len(service.asked) == 4, "twice in a window is asked once"


def test_the_cap_holds_over_attempts_and_a_higher_one_goes_on(root):
    price = PriceConfig(search_unit=0.5)
    first = Service()
    with pytest.raises(SpendCapReached, match=r"1 that are spent, and cost.cap is 1.2"):
        scorer(root, first, price=price, cap=1.2).score(QUERIES, LISTS)
    assert first.asked == ["river", "stone"]
    again = Service()
    with pytest.raises(SpendCapReached):
        scorer(root, again, price=price, cap=1.2).score(QUERIES, LISTS)
    assert again.asked == [], "what is spent is known to the next attempt"
    scorer(root, again, price=price, cap=1.5).score(QUERIES, LISTS)
    assert again.asked == ["paper"]
    assert sum(entry.cost for _, entry in read_journal(root, PREFIX)) == 1.5


def test_the_cap_counts_what_another_service_of_the_run_has_spent(root):
    price = PriceConfig(search_unit=0.5)
    scorer(root, Service(), price=price, cap=2, stage=1).score(QUERIES, LISTS)
    second = Service()
    with pytest.raises(SpendCapReached):
        scorer(root, second, price=price, cap=2, stage=2).score(QUERIES, LISTS)
    assert second.asked == ["river"]


def test_a_damaged_entry_is_named_and_not_paid_for_again(root):
    scorer(root, Service()).score(QUERIES, LISTS)
    (key,) = root.sizes(f"{PREFIX}paid/")
    file = Path(root.path(key))
    file.write_bytes(file.read_bytes()[:-1])
    service = Service()
    with pytest.raises(StorageError, match="damaged"):
        scorer(root, service).score(QUERIES, LISTS)
    assert service.asked == []


def test_a_long_call_is_written_down_as_it_goes(root, monkeypatch):
    """A process that is killed loses what came since the last entry, not the whole block."""
    monkeypatch.setattr("rerank_batch.rerankers.paid._ENTRY_ANSWERS", 2)
    entries = []

    class Watched(Service):
        def answers(self, queries: Any, documents: Any, budget: Budget) -> Iterator[Answer]:
            for answer in super().answers(queries, documents, budget):
                entries.append(len(root.sizes(f"{PREFIX}paid/")))
                yield answer

    scorer(root, Watched()).score(["a", "b", "c", "d", "e"], [["x"]] * 5)
    assert entries == [0, 0, 1, 1, 2]
    assert len(root.sizes(f"{PREFIX}paid/")) == 3
