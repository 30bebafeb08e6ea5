"""Objects of a run as JSON: what differs is told, what is damaged is named."""

import json

import pytest

from rerank_batch.errors import StorageError
from rerank_batch.runs.objects import Commit, CommitName, describe_differences, to_json, total
from rerank_batch.storage import DataFile

NAME = CommitName(0, 3, 1)


def commit(**changed: object) -> Commit:
    values = {
        "name": NAME,
        "nonce": "n",
        "results": DataFile("data/a.parquet", 10, "ab", 2),
        "rejects": DataFile("rejects/a.parquet", 5, "cd", 1),
        "sums": {"pairs": 0.1},
        "reject_reasons": {"bad_score": 1},
        "seconds": {"score": 0.5},
        "events": {},
        "scores": [DataFile("scores/a.arrow", 7, "ef", 4)],
    }
    return Commit(**{**values, **changed})


def test_a_commit_reads_back_as_it_was() -> None:
    assert Commit.from_json(commit().to_json(), NAME.key) == commit()
    assert CommitName.parse(f"runs/x/{NAME.key}") == CommitName.parse(str(NAME)) == NAME


@pytest.mark.parametrize("name", ["", "x", "000001-000000000000", "1-0-3", f"{NAME}-4", f"x{NAME}"])
def test_what_is_no_commit_name_is_refused(name: str) -> None:
    with pytest.raises(StorageError, match="is no commit of a run"):
        CommitName.parse(name)


def test_a_commit_under_the_name_of_another_is_damage() -> None:
    other = CommitName(3, 6, 1)
    with pytest.raises(StorageError, match=f"{other}.* is damaged: it holds the commit {NAME}"):
        Commit.from_json(commit().to_json(), other.key)


def test_a_commit_whose_files_hold_other_numbers_of_queries_is_damage() -> None:
    with pytest.raises(StorageError, match=f"{NAME}.* is damaged: its files hold 2 queries"):
        Commit.from_json(commit(rejects=None).to_json(), NAME.key)


FILE = {"key": "data/a.parquet", "bytes": 10, "sha256": "ab"}


@pytest.mark.parametrize("key", json.loads(commit().to_json()))
def test_a_commit_that_lacks_anything_is_damage(key: str) -> None:
    value = json.loads(commit().to_json())
    del value[key]
    with pytest.raises(StorageError, match=f"{NAME}.* is damaged"):
        Commit.from_json(to_json(value), NAME.key)


@pytest.mark.parametrize(
    ("key", "body"),
    [
        *[("name", body) for body in (None, 7, "text", ["text"], {})],
        *[("results", body) for body in (7, "text", ["text"], FILE, FILE | {"rows": "2"})],
        *[("rejects", body) for body in (7, "text", ["text"], FILE, FILE | {"rows": None})],
    ],
)
def test_a_commit_with_damaged_parts_is_named(key: str, body: object) -> None:
    value = json.loads(commit().to_json())
    value[key] = body
    with pytest.raises(StorageError, match=f"{NAME}.* is damaged"):
        Commit.from_json(to_json(value), NAME.key)


def test_totals_are_rounded_once() -> None:
    parts = [commit(sums={"pairs": value}) for value in (0.1, 0.2, 0.3)]
    assert total(parts, "sums") == {"pairs": 0.6}
    assert total([], "sums") == {}


def test_differences_are_told_field_by_field() -> None:
    old = {"a": {"b": 1, "c": [1]}, "d": None, "same": (1, 2)}
    new = {"a": {"b": 2, "c": [1]}, "e": "x", "same": [1, 2]}
    assert describe_differences(old, new) == 'a.b was 1, is 2; e was null, is "x"'
    assert describe_differences(old, old) == ""


def test_a_difference_at_the_end_of_a_long_value_can_be_seen() -> None:
    """Checksums of many files, of which only the last differs."""
    same = ["0" * 64]
    told = describe_differences({"queries": [*same, "1" * 64]}, {"queries": [*same, "2" * 64]})
    before, after = told.removeprefix("queries[1] was ").split(", is ")
    assert before != after
