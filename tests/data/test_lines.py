"""Text of others: whatever wrote a list, judgements, topics, a run or jsonl, it is read alike."""

import bz2
import codecs
import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from rerank_batch.config import (
    Config,
    CorpusConfig,
    ExcludeConfig,
    QrelsConfig,
    QueriesConfig,
    load_config,
)
from rerank_batch.data.corpus import read_corpus
from rerank_batch.data.lines import read_jsonl, read_lines
from rerank_batch.data.qrels import read_qrels
from rerank_batch.data.query_log import log_batches
from rerank_batch.data.trec import read_run
from rerank_batch.data.values import as_ids
from rerank_batch.errors import InputError
from rerank_batch.retrieval.excluded import read_ids
from rerank_batch.storage import input_files


def zstd(data: bytes) -> bytes:
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "zstd") as out:
        out.write(data)
    return packed.getvalue().to_pybytes()


WRITTEN = {
    "as Linux does": lambda text: text.encode(),
    "UTF-8 with a mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "a mark and CRLF": lambda text: codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode(),
    "CR alone": lambda text: text.replace("\n", "\r").encode(),
    "UTF-16 of Windows": lambda text: text.replace("\n", "\r\n").encode("utf-16"),
    "UTF-16, big end first": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "no end of the last line": lambda text: text.removesuffix("\n").encode(),
    "gzip": lambda text: gzip.compress(text.encode()),
    "gzip in two parts": lambda text: (
        gzip.compress(text[:9].encode()) + gzip.compress(text[9:].encode())
    ),
    "zstd": lambda text: zstd(text.encode()),
    "bzip2": lambda text: bz2.compress(text.encode()),
    "two files put together, each with a mark": lambda text: b"".join(
        codecs.BOM_UTF8 + line.encode() for line in text.splitlines(keepends=True)
    ),
    "gzip over a mark and CRLF": lambda text: gzip.compress(
        codecs.BOM_UTF8 + text.replace("\n", "\r\n").encode()
    ),
}


def takedowns(file: Path) -> object:
    return read_ids(ExcludeConfig(path=str(file)))


def judgements(file: Path) -> object:
    return read_qrels(QrelsConfig(path=str(file)))


def documents(file: Path) -> object:
    return read_corpus(CorpusConfig(path=str(file), format="beir")).documents.to_pylist()


def log(format: str):
    def rows(file: Path) -> object:
        config = QueriesConfig(path=str(file), format=format)
        return [row for batch in log_batches(config) for row in batch.to_pylist()]

    return rows


def run(file: Path) -> object:
    return read_run(file)


def configuration(file: Path) -> object:
    return load_config(file)


READERS = {
    "takedown list": (takedowns, "dü1\nd2\n", ["d2", "dü1"]),
    "TREC judgements": (judgements, "q1 0 dü 1\nq2 0 d2 0\n", {"q1": {"dü": 1}, "q2": {"d2": 0}}),
    "BEIR judgements": (
        judgements,
        "query-id\tcorpus-id\tscore\nq1\tdü\t2\n",
        {"q1": {"dü": 2}},
    ),
    "corpus": (
        documents,
        '{"_id": "d1", "text": "rïver"}\n{"_id": "d2", "text": "stone"}\n',
        [
            {"doc_id": "d1", "title": "", "text": "rïver"},
            {"doc_id": "d2", "title": "", "text": "stone"},
        ],
    ),
    "log as jsonl": (
        log("beir"),
        '{"_id": "q1", "text": "rïver"}\n',
        [{"query_id": b"q1", "query": "rïver".encode()}],
    ),
    "log as tsv": (
        log("auto"),
        "q1\trïver\nq2\tstone\n",
        [
            {"query_id": b"q1", "query": "rïver".encode()},
            {"query_id": b"q2", "query": b"stone"},
        ],
    ),
    "TREC topics": (
        log("auto"),
        "<top>\n<num> 1\n<title> rïver\n</top>\n",
        [{"query_id": b"1", "query": "rïver".encode()}],
    ),
    "TREC run": (
        run,
        "q1 Q0 dü 1 2.5 tag\nq1 Q0 d2 2 1.5 tag\n",
        {"q1": [("dü", 2.5), ("d2", 1.5)]},
    ),
    "configuration": (
        configuration,
        "root: runs\ncorpus: {path: ürne.parquet}\nindex: {path: index, encoder: 'x:y'}\n",
        None,
    ),
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_reads_what_every_system_writes(tmp_path, reader, written):
    read, text, expected = READERS[reader]
    plain, file = tmp_path / "plain.txt", tmp_path / "input.txt"
    plain.write_text(text)
    file.write_bytes(WRITTEN[written](text))
    found = read(file)
    if expected is None:
        assert isinstance(found, Config)
        assert found == read(plain)
    else:
        assert found == expected


@pytest.mark.parametrize("mark", ["\u2028", "\u0085", "\x0b", "\x0c", "\x1c", "\u00a0"])
def test_only_ends_of_lines_end_lines(tmp_path, mark):
    """Python's str.splitlines splits at these, too, and an id would be two."""
    file = tmp_path / "q.tsv"
    file.write_text(f"q1\td{mark}1\t1\n")
    assert read_qrels(QrelsConfig(path=str(file))) == {"q1": {f"d{mark}1": 1}}


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        (gzip.compress(b"d1\n" * 9000)[:-12], "is damaged after line"),
        (zstd(b"d1\n" * 9000)[:-3], "is damaged after line"),
        (bz2.compress(b"d1\n" * 9000)[:-12], "is damaged after line"),
        ("d1\n".encode("utf-16") + b"\x00", "is damaged after line"),
        (b"PK\x03\x04d1\n", "is damaged after line 0: it is a zip archive"),
        (b"\xfd7zXZ\x00d1\n", "is damaged after line 0: it is packed with xz"),
        (b"PAR1\x15\x04\n", "is damaged after line 0: it is Parquet"),
        ("d1\nd2\n".encode("utf-16-le"), "line 1 holds NUL bytes, as UTF-16 without"),
        (b"d1\nd\xff\n", "line 2 is not UTF-8 text"),
        (b"d1\nd\xe9j\xe0\n", "line 2 is not UTF-8 text"),
    ],
)
def test_a_damaged_list_is_an_error_that_names_the_place(tmp_path, damaged, said):
    file = tmp_path / "takedowns.txt"
    file.write_bytes(damaged)
    with pytest.raises(InputError, match=f"takedowns.txt {said}"):
        takedowns(file)


def test_an_id_keeps_the_blanks_of_other_scripts(tmp_path):
    file = tmp_path / "takedowns.txt"
    file.write_text("\u3000d1\n \td2 \n")
    assert takedowns(file) == ["d2", "\u3000d1"]


def test_a_key_that_nobody_reads_may_hold_anything(tmp_path):
    corpus = corpus_of(
        tmp_path, '{"_id": "d1", "text": "x", "m": {"a": 1, "a": 2}, "n": 1e99999999999999999999}'
    )
    assert corpus.documents.num_rows == 1


def test_an_empty_file_has_no_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"")
    (file,) = input_files(str(tmp_path / "a.txt"), (".txt",), "test")
    assert list(read_lines(file, "test")) == []


# --- JSON ------------------------------------------------------------------------------------


def corpus_of(tmp_path: Path, *lines: str):
    file = tmp_path / "corpus.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return read_corpus(CorpusConfig(path=str(file)))


@pytest.mark.parametrize(
    ("json", "expected"),
    [
        ('"007"', "007"),
        ("7", "7"),
        ("7.0", "7"),
        ("12345678901.0", "12345678901"),
        ("1e3", "1000"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("12345678901234567890.0", "12345678901234567890"),
        ("-0.0", "0"),
    ],
)
def test_a_json_id_is_its_exact_text(tmp_path, json, expected):
    corpus = corpus_of(tmp_path, f'{{"_id": {json}, "text": "river"}}')
    assert corpus.documents["doc_id"].to_pylist() == [expected]


@pytest.mark.parametrize(
    "json", ["true", "false", "2.5", "[1]", '["d1"]', "{}", '{"$oid": "x"}', "Infinity", "1e999999"]
)
def test_a_json_value_that_is_no_id_is_refused(tmp_path, json):
    with pytest.raises(InputError, match=r"corpus\.jsonl document 2: '_id' is"):
        corpus_of(tmp_path, '{"_id": "d1", "text": "a"}', f'{{"_id": {json}, "text": "river"}}')


@pytest.mark.parametrize("json", ["null", "NaN", '""'])
def test_a_missing_json_id_is_counted(tmp_path, json):
    corpus = corpus_of(
        tmp_path, '{"_id": "d1", "text": "river"}', f'{{"_id": {json}, "text": "x"}}'
    )
    assert corpus.dropped == {"missing_doc_id": 1}


@pytest.mark.parametrize("key", ["title", "text"])
def test_a_missing_json_text_is_missing(tmp_path, key):
    """pandas writes NaN where there is no text: not a text of three letters."""
    rest = {"title": '"text": null', "text": '"title": null'}[key]
    corpus = (
        corpus_of(
            tmp_path, '{"_id": "d1", "text": "river"}', f'{{"_id": "d2", "{key}": NaN, {rest}}}'
        )
        if key == "text"
        else corpus_of(
            tmp_path, '{"_id": "d1", "text": "river", "title": NaN}', '{"_id": "d2", "text": NaN}'
        )
    )
    assert corpus.documents.to_pylist() == [{"doc_id": "d1", "title": "", "text": "river"}]
    assert corpus.dropped == {"empty_document": 1}


@pytest.mark.parametrize("json", ['["first", "second"]', '{"en": "river"}', "-Infinity"])
@pytest.mark.parametrize("key", ["title", "text"])
def test_lists_and_objects_are_no_texts(tmp_path, key, json):
    row = {"title": '"words"', "text": '"words"', key: json}
    with pytest.raises(InputError, match=rf"corpus\.jsonl document 1: '{key}' is"):
        corpus_of(tmp_path, f'{{"_id": "d1", "title": {row["title"]}, "text": {row["text"]}}}')


@pytest.mark.parametrize(
    ("json", "text"), [("3.0", "3"), ("2.5", "2.5"), ("true", "true"), ("1e2", "100"), ("7", "7")]
)
def test_a_number_as_a_text_is_what_people_write(tmp_path, json, text):
    assert corpus_of(tmp_path, f'{{"_id": "d", "text": {json}}}').documents["text"].to_pylist() == [
        text
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"_id": "d1", "_id": "d2", "text": "x"}', "has the key '_id' twice"),
        ("[1, 2]", "is not a JSON object"),
        ('{"_id": "d1"} {"_id": "d2"}', "Extra data"),
        ("[" * 100_000, "recursion"),
        ('{"_id": ' + "9" * 5000 + "}", "4300 digits"),
    ],
)
def test_a_line_that_is_no_object_is_named(tmp_path, line, said):
    file = tmp_path / "a.jsonl"
    file.write_text('{"_id": "d0"}\n' + line + "\n")
    (found,) = input_files(str(file), (".jsonl",), "test")
    with pytest.raises(InputError, match=f"line 2.*{said}"):
        list(read_jsonl(found, "test"))


# --- columns of ids --------------------------------------------------------------------------


def decimals(*values: str, scale: int = 0) -> pa.Array:
    return pa.array(list(values)).cast(pa.decimal128(38, scale))


@pytest.mark.parametrize(
    ("column", "ids"),
    [
        (pa.array(["007", None]), ["007", None]),
        (pa.array(["007"]).dictionary_encode(), ["007"]),
        (pa.array(["007"], pa.large_string()), ["007"]),
        (pa.array(["007"], pa.string_view()), ["007"]),
        (pa.array([b"007"], pa.binary()), ["007"]),
        (pa.array([b"007"], pa.binary_view()), ["007"]),
        (pa.array([b"007"], pa.binary(3)), ["007"]),
        (pa.array([7, None], pa.int8()), ["7", None]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([12345678901.0, 7.0, None]), ["12345678901", "7", None]),
        (pa.array([float("nan"), -0.0, 1e22]), [None, "0", "10000000000000000000000"]),
        (pa.array([1e10, 7.0], pa.float32()), ["10000000000", "7"]),
        (pa.array([7.0], pa.float16()), ["7"]),
        (pa.array([7.0, 12345678901.0]).dictionary_encode(), ["7", "12345678901"]),
        (decimals("12345678901234567890123"), ["12345678901234567890123"]),
        (pa.array([], pa.null()), []),
        (pa.array([None, None]), [None, None]),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_an_id_of_any_column_is_its_exact_text(column, ids):
    assert as_ids(column, "test")[0].to_pylist() == ids


@pytest.mark.parametrize(
    "column",
    [
        pa.array([7.0, 2.5]),
        pa.array([float("inf")]),
        pa.array([True]),
        pa.array([["d1"]]),
        pa.array([{"id": "d1"}]),
        pa.array([0], pa.timestamp("us")),
        pa.array([0], pa.date32()),
        pa.array([0], pa.duration("s")),
    ],
    ids=lambda column: str(column.type),
)
def test_a_column_that_holds_no_ids_is_refused(column):
    with pytest.raises(InputError, match=r"^corpus: ids: a column of .* holds .*no .*ids?"):
        as_ids(column, "corpus: ids")
