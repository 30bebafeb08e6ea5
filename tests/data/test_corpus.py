"""The corpus: sorted documents and counted losses."""

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.config import CorpusConfig
from rerank_batch.data import corpus as corpus_module
from rerank_batch.data.corpus import Corpus, corpus_fingerprint, corpus_remarks, read_corpus
from rerank_batch.errors import InputError
from tests.support.helpers import broken_strings, write_parquet

DOCUMENTS = [
    {"doc_id": "b", "title": "Title of b", "text": "Text of b"},
    {"doc_id": "a", "title": "", "text": "Text of a"},
    {"doc_id": "B", "title": "Title of B", "text": ""},
]


def read(path: Path, **settings: Any) -> Corpus:
    return read_corpus(CorpusConfig(path=str(path), **settings))


def write_beir(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def as_beir(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"_id": row["doc_id"], "title": row["title"], "text": row["text"]} for row in rows]


def test_parquet_and_beir_files_give_the_same_documents_in_the_order_of_their_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus_module, "_JSONL_ROWS", 2)
    expected = [DOCUMENTS[2], DOCUMENTS[1], DOCUMENTS[0]]
    files = [
        write_parquet(tmp_path / "c.parquet", DOCUMENTS),
        write_beir(tmp_path / "c.jsonl", as_beir(DOCUMENTS)),
        write_beir(tmp_path / "c.jsonl.gz", as_beir(DOCUMENTS)),
    ]
    for file in files:
        corpus = read(file)
        assert corpus.documents.to_pylist() == expected
        assert corpus.dropped == {}


@given(st.sets(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
@settings(max_examples=30)
def test_a_document_number_orders_like_its_id(ids: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = [{"doc_id": doc_id, "text": "some"} for doc_id in ids]
        file = write_parquet(Path(folder) / "c.parquet", rows)
        assert read(file).documents["doc_id"].to_pylist() == sorted(ids)


def test_columns_can_have_other_names_and_a_title_is_not_needed(tmp_path: Path) -> None:
    rows = [{"key": 7, "head": "H", "body": "B"}, {"key": 10, "head": None, "body": "C"}]
    expected = [("10", "", "C"), ("7", "H", "B")]
    parquet = write_parquet(tmp_path / "c.parquet", rows)
    beir = write_beir(tmp_path / "c.jsonl", rows)
    for file in (parquet, beir):
        documents = read(file, id="key", title="head", text="body").documents
        assert [tuple(row.values()) for row in documents.to_pylist()] == expected
        documents = read(file, id="key", text="body").documents
        assert documents["title"].to_pylist() == ["", ""]


def test_a_missing_column_is_answered_with_the_columns_there_are(tmp_path: Path) -> None:
    rows = [{"doc_id": "a", "body": "B", "lang": "en"}]
    with pytest.raises(InputError, match=r"no column 'text'; it has doc_id, body, lang"):
        read(write_parquet(tmp_path / "c.parquet", rows))
    with pytest.raises(InputError, match=r"lacks 'doc_id' or 'text'; it has 'doc_id', 'body'"):
        read(write_beir(tmp_path / "c.jsonl", rows))


def test_a_text_column_of_another_kind_is_an_input_error(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "c.parquet", [{"doc_id": "a", "text": ["two", "parts"]}])
    with pytest.raises(InputError, match="text"):
        read(file)


# --- what is dropped -------------------------------------------------------------------------


def test_every_dropped_document_is_counted_under_one_reason(tmp_path: Path) -> None:
    ids = [b"keep", b"empty", b"blank", b"null", b"", None, b"\xff", b"title", b"text", b"t"]
    titles = [b"", b"", b" \t", None, b"x", b"", b"x", b"\xff", b"x", b"title only"]
    texts = [b"text", b"", b"\xc2\xa0\n", None, b"x", b"", b"x", b"x", b"\xc3(", None]
    columns = map(broken_strings, (ids, titles, texts))
    table = pa.table(list(columns), names=["doc_id", "title", "text"])
    pq.write_table(table, tmp_path / "c.parquet")
    corpus = read(tmp_path / "c.parquet")
    assert corpus.documents["doc_id"].to_pylist() == ["keep", "t"]
    assert sum(corpus.dropped.values()) == len(ids) - 2
    assert corpus.dropped["empty_document"] == 3
    assert corpus.dropped["invalid_utf8"] + corpus.dropped["missing_doc_id"] == 5


def test_empty_documents_are_an_error_where_that_is_asked(tmp_path: Path) -> None:
    rows = [*DOCUMENTS, {"doc_id": "e1", "title": "", "text": " "}]
    file = write_parquet(tmp_path / "c.parquet", rows)
    assert read(file).dropped == {"empty_document": 1}
    with pytest.raises(InputError, match=r"1 documents of .*c\.parquet have no text.*empty: drop"):
        read(file, empty="error")


def test_a_file_of_no_rows_beside_others_changes_nothing(tmp_path: Path) -> None:
    write_parquet(tmp_path / "c" / "b.parquet", DOCUMENTS)
    kinds = pa.schema([(name, pa.string()) for name in ("doc_id", "title", "text")])
    write_parquet(tmp_path / "c" / "a.parquet", [], schema=kinds)
    assert read(tmp_path / "c").documents.num_rows == len(DOCUMENTS)


def test_repeated_ids_are_refused_by_name(tmp_path: Path) -> None:
    rows = [{"doc_id": f"d{n % 8}", "text": f"text {n}"} for n in range(15)]
    with pytest.raises(InputError, match=r"repeat, first d0, d1, d2, d3, d4$"):
        read(write_parquet(tmp_path / "c.parquet", rows))


@pytest.mark.parametrize("texts", [["", " "], [None, None]])
def test_a_corpus_without_any_text_is_refused_with_the_reasons(
    tmp_path: Path, texts: list[str | None]
) -> None:
    rows = [{"doc_id": f"d{n}", "text": text} for n, text in enumerate(texts)]
    with pytest.raises(InputError, match=r"no document with text \(empty_document: 2\)"):
        read(write_parquet(tmp_path / "c.parquet", rows))
    with pytest.raises(InputError, match="no document with text"):
        read(write_beir(tmp_path / "c.jsonl", []))


def test_half_a_surrogate_pair_in_json_is_counted_as_invalid(tmp_path: Path) -> None:
    """JSON can spell text that UTF-8 cannot: half of an emoji, cut by somebody's length limit."""
    file = tmp_path / "c.jsonl"
    file.write_text('{"_id": "a", "text": "fine"}\n{"_id": "b", "text": "half \\ud83d"}\n')
    corpus = read(file)
    assert corpus.documents["doc_id"].to_pylist() == ["a"]
    assert corpus.dropped == {"invalid_utf8": 1}


def test_the_fingerprint_sees_content_and_columns_but_not_the_place(tmp_path: Path) -> None:
    one = write_parquet(tmp_path / "one" / "c.parquet", DOCUMENTS)
    two = write_parquet(tmp_path / "two" / "other.parquet", DOCUMENTS)
    three = write_parquet(tmp_path / "three.parquet", DOCUMENTS[:2])
    prints = [corpus_fingerprint(CorpusConfig(path=str(p))) for p in (one, two, three)]
    assert prints[0] == prints[1] != prints[2]
    assert corpus_fingerprint(CorpusConfig(path=str(one), text="title")) != prints[0]


def test_a_corpus_is_the_same_whether_its_columns_are_named_or_found(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "c.parquet", DOCUMENTS)
    named = CorpusConfig(path=str(file), id="doc_id", title="title", text="text")
    assert corpus_fingerprint(named) == corpus_fingerprint(CorpusConfig(path=str(file)))
    lines = write_beir(tmp_path / "c.jsonl", [{"_id": "a", "text": "b"}])
    named = CorpusConfig(path=str(lines), id="_id", text="text")
    assert corpus_fingerprint(named) == corpus_fingerprint(CorpusConfig(path=str(lines)))


def test_titles_that_only_some_files_have_are_told(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"doc_id": "a", "text": "x"}]
    write_parquet(tmp_path / "p/1.parquet", rows)
    write_parquet(tmp_path / "p/2.parquet", [{"doc_id": "b", "text": "x", "title": "y"}])
    config = CorpusConfig(path=f"{tmp_path}/p")
    corpus = read_corpus(config)
    (remark,) = corpus.remarks
    assert (remark.kind, remark.count) == ("column_in_some_files", 1)
    assert corpus_remarks(config) == corpus.remarks, "by the footers alone"
    (tmp_path / "1.jsonl").write_text('{"_id": "a", "text": "x"}\n')
    (tmp_path / "2.jsonl").write_text('{"_id": "b", "text": "x", "title": "y"}\n')
    (remark,) = read_corpus(CorpusConfig(path=f"{tmp_path}/*.jsonl")).remarks
    assert (remark.kind, remark.count) == ("column_in_some_files", 1)
    assert "1 of 2 files" in remark.text
    assert read_corpus(CorpusConfig(path=f"{tmp_path}/1.jsonl")).remarks == ()
