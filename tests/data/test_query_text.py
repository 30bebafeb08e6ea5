"""The text of queries: one spelling for models, one key for whatever compares queries."""

import tempfile
from pathlib import Path

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.config import ClicksConfig, QueriesConfig
from rerank_batch.data.clicks.log import read_click_log
from rerank_batch.data.plan import make_plan
from rerank_batch.data.query_text import as_read, match_key, match_keys, normalise
from tests.support.helpers import write_parquet

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS)
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise(pa.array([text]))
    assert normalise(once).equals(once)
    assert "  " not in once[0].as_py()
    assert not once[0].as_py().startswith(" ")


@given(TEXTS)
def test_one_query_has_the_key_of_a_column_of_queries(text: str) -> None:
    texts, _ = as_read(pa.array([text]), 10_000)
    assert match_keys(texts).to_pylist() == [match_key(text)]


@given(TEXTS.filter(lambda text: bool(match_key(text))), TEXTS)
@settings(max_examples=30, deadline=None)
def test_plan_and_clicks_take_two_spellings_for_one_query_where_the_keys_are_equal(
    text: str, other: str
) -> None:
    for spelling in (f" {text.upper()}\t", other):
        is_one = match_key(spelling) == match_key(text)
        with tempfile.TemporaryDirectory() as folder:
            log = write_parquet(Path(folder) / "log.parquet", [{"query_id": "1", "query": text}])
            both = [{"query_id": "1", "query": text}, {"query_id": "2", "query": spelling}]
            two = write_parquet(Path(folder) / "two.parquet", both)
            shown = [
                {"query": asked, "doc_id": "d", "position": 1, "clicked": clicked}
                for asked in (text, spelling)
                for clicked in (0, 1)
            ]
            clicks = write_parquet(Path(folder) / "clicks.parquet", shown)
            made = make_plan(QueriesConfig(path=str(two)))
            assert (made.queries["query_ids"].to_pylist() == [["1", "2"]]) == is_one
            found = read_click_log(ClicksConfig(path=str(clicks)), QueriesConfig(path=str(log)))
            assert int(found.counts["rows"].sum()) == (4 if is_one else 2)
