"""Other people's tables: every surprise is an error that names the file, or is counted."""

import datetime
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_batch.data.lines import read_jsonl
from rerank_batch.data.parquet import ParquetTable, fingerprint_files
from rerank_batch.data.values import as_strings
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.storage import input_files
from tests.support.helpers import broken_strings, write_parquet

ROWS = [{"id": f"d{n}", "text": f"text {n}" * 50, "grade": n % 3} for n in range(2000)]


def read(path: Path | str, filter: list[Any] | None = None, **columns: str) -> list[dict[str, Any]]:
    table = ParquetTable(str(path), "corpus")
    batches = table.batches(columns or {"id": "id"}, [tuple(term) for term in filter or ()])
    return [row for batch in batches for row in batch.to_pylist()]


# --- files -----------------------------------------------------------------------------------


def test_columns_are_renamed_and_rows_keep_their_order(tmp_path: Path) -> None:
    write_parquet(tmp_path / "t" / "b.parquet", ROWS[1000:])
    write_parquet(tmp_path / "t" / "a.parquet", ROWS[:1000])
    expected = [{"doc_id": row["id"], "title": row["text"]} for row in ROWS]
    assert read(tmp_path / "t", doc_id="id", title="text") == expected


def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    table = ParquetTable(str(write_parquet(tmp_path / "a.parquet", ROWS)), "corpus")
    assert table.column(None, "text") == "text"
    assert table.column("grade", "text") == "grade"
    assert table.column(None, "title", required=False) is None
    for named, default in (("body", "text"), (None, "doc_id")):
        with pytest.raises(InputError, match=r"corpus: .*a\.parquet has no column") as error:
            table.column(named, default)
        assert repr(named or default) in str(error.value)
        assert "it has id, text, grade" in str(error.value)
    with pytest.raises(InputError, match="'titel'"):
        table.column("titel", "title", required=False)


def damaged(kind: str) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    whole = sink.getvalue().to_pybytes()
    return {
        "empty": b"",
        "first half": whole[: len(whole) // 2],
        "without the last byte": whole[:-1],
        "second half": whole[len(whole) // 2 :],
        "text": b'{"id": "d1", "text": "a jsonl file by another name"}\n' * 20,
        "overwritten in the middle": whole[:100] + b"\xa5" * (len(whole) // 2) + whole[-1200:],
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "first half", "without the last byte", "text"])
def test_what_is_not_parquet_is_named_before_any_row_is_read(tmp_path: Path, kind: str) -> None:
    write_parquet(tmp_path / "a.parquet", ROWS)
    (tmp_path / "b.parquet").write_bytes(damaged(kind))
    with pytest.raises(InputError, match=r"corpus: .*/b\.parquet is (not|an empty file)"):
        ParquetTable(str(tmp_path), "corpus")


@pytest.mark.parametrize("kind", ["second half", "overwritten in the middle"])
def test_damage_behind_a_good_ending_is_an_input_error(tmp_path: Path, kind: str) -> None:
    (tmp_path / "b.parquet").write_bytes(damaged(kind))
    with pytest.raises(InputError, match=str(tmp_path)):
        read(tmp_path, id="id", text="text")


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.string())])
    file = write_parquet(tmp_path / "a.parquet", [], schema=schema)
    with pytest.raises(InputError, match=r"a\.parquet holds no rows"):
        ParquetTable(str(file), "corpus")


def test_one_file_without_rows_among_others_is_fine(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.string())])
    write_parquet(tmp_path / "a.parquet", [], schema=schema)
    write_parquet(tmp_path / "b.parquet", [{"id": "x"}], schema=schema)
    assert read(tmp_path) == [{"id": "x"}]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param([{"id": "x", "body": "no text"}], id="a column is missing"),
        pytest.param([{"id": "x", "text": ["a", "list"]}], id="a column has another type"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(
    tmp_path: Path, other: list[dict[str, Any]]
) -> None:
    write_parquet(tmp_path / "a.parquet", ROWS)
    write_parquet(tmp_path / "b.parquet", other)
    with pytest.raises(InputError, match=str(tmp_path)):
        read(tmp_path, id="id", text="text")


def test_a_fingerprint_has_one_entry_per_file_and_sees_content(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", ROWS[:10])
    write_parquet(tmp_path / "b.parquet", ROWS[:11])
    before = fingerprint_files(str(tmp_path), (".parquet",), "corpus")
    (tmp_path / "b.parquet").rename(tmp_path / "c.parquet")
    assert fingerprint_files(str(tmp_path), (".parquet",), "corpus") == before
    write_parquet(tmp_path / "c.parquet", ROWS[:12])
    after = fingerprint_files(str(tmp_path), (".parquet",), "corpus")
    assert after[0] == before[0]
    assert after[1] != before[1]


# --- filters ---------------------------------------------------------------------------------

DAY = datetime.date(2026, 1, 2)
NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Three days, a query each hour of noon; the date is a folder and a column."""
    for day in (1, 2, 3):
        time = NOON.replace(day=day)
        row = {"id": f"q{day}", "n": day, "day": time.date(), "ts": time, "split": "abc"[day - 1]}
        table = pa.Table.from_pylist([row])
        split = table.column("split").combine_chunks().dictionary_encode()
        folder = tmp_path / f"date=2026-01-0{day}"
        folder.mkdir()
        pq.write_table(table.append_column("category", split), folder / "part.parquet")
    return tmp_path


@pytest.mark.parametrize(
    ("terms", "days"),
    [
        ([], "123"),
        ([["n", "==", 2]], "2"),
        ([["n", "!=", 2]], "13"),
        ([["n", "<", 2]], "1"),
        ([["n", "<=", 2]], "12"),
        ([["n", ">", 2]], "3"),
        ([["n", ">=", 2]], "23"),
        ([["n", "in", [1, 3]]], "13"),
        ([["n", "not in", [1, 3]]], "2"),
        ([["split", "==", "b"]], "2"),
        ([["split", "in", ["a", "b"]], ["n", ">=", 2]], "2"),
        ([["date", "==", "2026-01-02"]], "2"),
        ([["date", "==", DAY]], "2"),
        ([["date", ">=", "2026-01-02"]], "23"),
        ([["date", ">=", DAY]], "23"),
        ([["date", "in", [DAY]]], "2"),
        ([["date", "not in", ["2026-01-02"]]], "13"),
        ([["day", ">=", DAY]], "23"),
        ([["day", ">=", "2026-01-02"]], "23"),
        ([["ts", ">=", DAY]], "23"),
        ([["ts", ">=", "2026-01-02"]], "23"),
        ([["ts", ">=", NOON]], "23"),
        ([["ts", ">", "2026-01-02T12:00:00Z"]], "3"),
        ([["category", "==", "b"]], "2"),
        ([["category", "in", ["b", "c"]]], "23"),
    ],
)
def test_a_filter_keeps_the_rows_that_pass_every_term(
    log: Path, terms: list[Any], days: str
) -> None:
    assert "".join(row["id"][1:] for row in read(log, terms)) == days


def test_partitions_are_columns_of_a_glob_too(log: Path) -> None:
    assert "date" in ParquetTable(str(log), "queries").columns
    assert read(f"{log}/date=*/part.parquet", [["date", ">", "2026-01-02"]]) == [{"id": "q3"}]


def test_a_filter_on_a_column_that_is_not_there_lists_those_that_are(log: Path) -> None:
    with pytest.raises(InputError, match=r"'dat'.* has id, n, day, ts, split, category, date"):
        read(log, [["dat", "==", 1]])


@pytest.mark.parametrize(
    ("column", "operator", "value"),
    [
        ("n", "==", "two"),
        ("n", "==", {"a": 1}),
        ("n", "==", 2**70),
        ("n", "in", [1, "two"]),
        ("day", ">=", "yesterday"),
        ("n", "==", [1, 2]),
        ("n", ">=", []),
        ("split", "==", ["a"]),
    ],
)
def test_a_filter_value_of_another_type_is_a_config_error_that_names_the_column(
    log: Path, column: str, operator: str, value: Any
) -> None:
    with pytest.raises(ConfigError, match=f"column '{column}'|on '{column}'"):
        read(log, [[column, operator, value]])


# --- jsonl -----------------------------------------------------------------------------------


def rows_of(file: Path) -> list[dict[str, Any]]:
    (found,) = input_files(str(file), (".jsonl", ".jsonl.gz"), "corpus")
    return list(read_jsonl(found, "corpus"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_jsonl_is_read_packed_or_not_and_blank_lines_are_nothing(tmp_path: Path, name: str) -> None:
    text = '{"a": 1}\n\n  \n{"a": "é"}'.encode()
    file = tmp_path / name
    file.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert rows_of(file) == [{"a": 1}, {"a": "é"}]


@pytest.mark.parametrize("line", [b"{'a': 1}", b'{"a": 1', b"[1]", b"7", b"null"])
def test_a_damaged_line_is_named_with_its_number(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n\n' + line + b'\n{"a": 2}\n')
    with pytest.raises(InputError, match=r"corpus: .*a\.jsonl .*line [23]\b"):
        rows_of(file)


def test_bytes_that_are_no_text_are_an_input_error(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl line 1 is not UTF-8"):
        rows_of(file)


@pytest.mark.parametrize("damage", ["cut", "not gzip", "flipped", "zeroed"])
def test_a_damaged_gzip_file_is_an_input_error(tmp_path: Path, damage: str) -> None:
    lines = "".join(json.dumps({"id": n, "text": str(n**5)}) + "\n" for n in range(2000))
    whole = gzip.compress(lines.encode())
    half = len(whole) // 2
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(
        {
            "cut": whole[:half],
            "not gzip": b"plain text",
            "flipped": whole[:half] + bytes([whole[half] ^ 0xFF]) + whole[half + 1 :],
            "zeroed": whole[:half] + b"\xff" * 50 + whole[half + 50 :],
        }[damage]
    )
    with pytest.raises(InputError, match=r"a\.jsonl\.gz is damaged"):
        rows_of(file)


# --- as_strings ------------------------------------------------------------------------------

RAW = st.one_of(
    st.none(),
    st.text(max_size=4).map(str.encode),
    st.binary(max_size=4),
    st.sampled_from([b"\xff", b"\xc3", b"a\xed\xa0\x80", b"\x00"]),
)


def decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def checks_out(column: pa.Array, values: list[bytes | None]) -> None:
    strings, bad = as_strings(column, "test")
    texts = [decoded(value) for value in values]
    assert strings.type == pa.string()
    assert bad.type == pa.bool_()
    strings.validate(full=True)
    assert strings.to_pylist() == texts
    damaged = [v is not None and t is None for v, t in zip(values, texts, strict=True)]
    assert bad.to_pylist() == damaged


def as_large(values: list[bytes | None]) -> pa.Array:
    raw = pa.array(values, pa.large_binary())
    return pa.Array.from_buffers(pa.large_string(), len(raw), raw.buffers(), raw.null_count)


def as_dictionary(values: list[bytes | None]) -> pa.Array:
    coded = pa.array(values, pa.binary()).dictionary_encode()
    words = broken_strings(coded.dictionary.to_pylist())
    return pa.DictionaryArray.from_arrays(coded.indices, words, safe=False)


KINDS = {
    "string": broken_strings,
    "large_string": as_large,
    "binary": lambda values: pa.array(values, pa.binary()),
    "large_binary": lambda values: pa.array(values, pa.large_binary()),
    "binary_view": lambda values: pa.array(values, pa.binary_view()),
    "dictionary": as_dictionary,
}


@pytest.mark.parametrize("kind", KINDS)
@given(values=st.lists(RAW, max_size=8), start=st.integers(0, 8), stop=st.integers(0, 8))
def test_invalid_utf8_becomes_null_and_is_marked_in_every_slice_of_every_kind(
    kind: str, values: list[bytes | None], start: int, stop: int
) -> None:
    stop = max(start, stop)
    column = KINDS[kind](values).slice(start, stop - start)
    checks_out(column, values[start:stop])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
@given(values=st.lists(st.none() | st.text(max_size=5), max_size=8), start=st.integers(0, 8))
def test_valid_text_comes_through_unchanged(
    kind: pa.DataType, values: list[str | None], start: int
) -> None:
    column = pa.array(values, kind).slice(start)
    checks_out(column, [None if v is None else v.encode() for v in values[start:]])


@pytest.mark.parametrize(
    ("column", "texts"),
    [
        (pa.array([1, None, -30]), ["1", None, "-30"]),
        (pa.array([1, 2, 3]).slice(1), ["2", "3"]),
        (pa.array([None, None]), [None, None]),
        (pa.array([b"ab", None], pa.binary(2)), ["ab", None]),
        (pa.array([b"xx", b"ab"], pa.binary(2)).slice(1), ["ab"]),
        (pa.array(["a", "b", "a"]).dictionary_encode().slice(1), ["b", "a"]),
        (pa.array([], pa.int64()), []),
    ],
)
def test_other_columns_are_written_out(column: pa.Array, texts: list[str | None]) -> None:
    checks_out(column, [None if text is None else text.encode() for text in texts])
