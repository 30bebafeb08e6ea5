"""The query log: files of other formats, and columns that are missing."""

import json
from pathlib import Path

import pytest

from rerank_batch.config import QueriesConfig
from rerank_batch.data.plan import make_plan
from rerank_batch.errors import InputError
from tests.data.test_plan import only
from tests.support.helpers import write_parquet


def test_a_beir_file_is_a_log_too(tmp_path: Path) -> None:
    rows = [{"_id": 2, "text": "sort"}, {"_id": "1", "text": "Sort"}, {"_id": "3", "text": None}]
    file = tmp_path / "queries.jsonl"
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    made = make_plan(QueriesConfig(path=str(file)))
    assert only(made)["query_ids"] == ["1", "2"]
    assert made.reject_counts() == {"null_query": 1}
    with pytest.raises(InputError, match=r"query 1 lacks 'qid' or 'text'; it has '_id', 'text'"):
        make_plan(QueriesConfig(path=str(file), id="qid"))
    with pytest.raises(InputError, match="filter works on Parquet"):
        make_plan(QueriesConfig(path=str(file), filter=(("date", "==", 1),)))


def test_half_a_surrogate_pair_in_json_is_rejected_as_invalid(tmp_path: Path) -> None:
    file = tmp_path / "queries.jsonl"
    file.write_text('{"_id": "a", "text": "fine"}\n{"_id": "b", "text": "half \\ud83d"}\n')
    made = make_plan(QueriesConfig(path=str(file)))
    assert only(made)["query_id"] == "a"
    assert made.reject_counts() == {"invalid_utf8": 1}


def test_a_missing_column_is_answered_with_the_columns_there_are(tmp_path: Path) -> None:
    write_parquet(tmp_path / "log.parquet", [{"key": "1", "query": "x"}])
    names = "'query_id' or '_id' or 'id'; it has key, query"
    with pytest.raises(InputError, match=f"no column {names}"):
        make_plan(QueriesConfig(path=str(tmp_path)))
