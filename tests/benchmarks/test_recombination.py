"""A large collection made of a small one: the same each time, and of the sizes asked for."""

import pyarrow.parquet as pq
import pytest

from rerank_batch.benchmarks.recombination import Source, write_log

SOURCE = Source.of(
    titles=["function", "class"],
    texts=["One sentence. Another one!", "One sentence. A third, with more words."],
    queries=["how to read a file", "write rows to parquet", "sort by two columns", "close it"],
)


def test_a_source_is_sentences_without_doubles():
    assert SOURCE.sentences == ["A third, with more words.", "Another one!", "One sentence."]


def test_a_document_does_not_depend_on_how_many_are_made():
    few, many = SOURCE.documents(49_990, 50_020), SOURCE.documents(0, 100_000)
    assert few.equals(many.slice(49_990, 30).combine_chunks())
    assert many.num_rows == len(set(many["doc_id"].to_pylist())) == 100_000
    assert many["doc_id"].to_pylist() == sorted(many["doc_id"].to_pylist())


def test_another_edition_has_other_texts_under_the_same_ids():
    one, other = SOURCE.documents(0, 50), SOURCE.documents(0, 50, edition=1)
    assert one["doc_id"].equals(other["doc_id"])
    assert not one["text"].equals(other["text"])


def test_queries_are_distinct_and_a_longer_list_begins_with_a_shorter_one():
    found = SOURCE.distinct_queries(12)
    assert len(set(found)) == 12
    assert SOURCE.distinct_queries(5) == found[:5]
    with pytest.raises(ValueError, match="make only"):
        SOURCE.distinct_queries(10_000)


def test_queries_that_a_plan_would_merge_are_one():
    source = Source.of(SOURCE.titles, [], ["sort rows", "Sort Rows", "read files", "READ files"])
    found = [query.lower() for query in source.distinct_queries(4)]
    assert sorted(found) == [
        "read files files",
        "read files rows",
        "sort rows files",
        "sort rows rows",
    ]
    with pytest.raises(ValueError, match="make only 4 others"):
        source.distinct_queries(5)


def test_every_query_is_in_the_log_and_some_are_there_often(tmp_path):
    queries = SOURCE.distinct_queries(12)
    assert write_log(queries, tmp_path / "log.parquet") == 18
    asked = pq.read_table(tmp_path / "log.parquet")["query"].to_pylist()
    assert set(asked) == set(queries)
