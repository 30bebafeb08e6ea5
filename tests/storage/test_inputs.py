"""Input files: found, opened and hashed alike in folders and in s3://."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_batch.config import CorpusConfig, QrelsConfig, QueriesConfig
from rerank_batch.data.corpus import corpus_fingerprint, read_corpus
from rerank_batch.data.lines import read_jsonl
from rerank_batch.data.parquet import ParquetTable
from rerank_batch.data.plan import make_plan
from rerank_batch.data.qrels import read_qrels
from rerank_batch.errors import ConfigError, InputError, StorageError
from rerank_batch.storage import InputFile, input_files, open_file, sha256_file
from tests.chaos.s3_server import S3Server
from tests.conftest import BUCKET, forget_clients
from tests.storage.conftest import Through

NAMES = (
    "date=2026-01-02/b.parquet",
    "date=2026-01-01/a.parquet",
    "date=2026-01-01/notes.txt",
    "date=2026-01-01/_SUCCESS.parquet",
    "date=2026-01-01/.part.parquet",
    "_temporary/0/c.parquet",
    ".hidden/d.parquet",
)


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


Place = Callable[[Path], str]


@pytest.fixture
def upload(store: S3Server, prefix: str) -> Place:
    """Copies a folder or file under the prefix and says where it is now."""

    def copy(source: Path) -> str:
        client, place = store.client(), f"{prefix}/{source.name}"
        files = [f for f in source.rglob("*") if f.is_file()] if source.is_dir() else [source]
        for file in files:
            inside = f"/{file.relative_to(source)}" if source.is_dir() else ""
            key = f"{place}{inside}".removeprefix(f"s3://{BUCKET}/")
            client.put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes())
        return place

    return copy


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest) -> Place:
    """Where the input is read from."""
    if request.param == "folder":
        return str
    found: Place = request.getfixturevalue("upload")
    return found


def found(path: str, base: str | None = None) -> list[str]:
    files = input_files(path, (".parquet",), "queries")
    return [file.uri.removeprefix(f"{base or path}/") for file in files]


# --- finding -----------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path, place: Place) -> str:
    return place(make(tmp_path / "log", *NAMES))


def test_a_folder_is_searched_to_the_bottom_without_the_writers_notes(log: str) -> None:
    both = ["date=2026-01-01/a.parquet", "date=2026-01-02/b.parquet"]
    assert found(log) == both
    assert found(f"{log}/", log) == both


def test_a_folder_is_not_another_whose_name_begins_alike(tmp_path: Path, place: Place) -> None:
    log = place(make(tmp_path / "all", "log/a.parquet", "log2/b.parquet", "log.parquet"))
    assert found(f"{log}/log", log) == ["log/a.parquet"]


def test_a_folder_below_a_hidden_one_is_read_all_the_same(tmp_path: Path, place: Place) -> None:
    base = place(make(tmp_path / ".sample", "_log/a.parquet"))
    assert found(f"{base}/_log") == ["a.parquet"]


def test_a_file_is_itself_whatever_its_name(log: str) -> None:
    name = "date=2026-01-01/notes.txt"
    assert found(f"{log}/{name}", log) == [name]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("date=*/[ab].parquet", ["date=2026-01-01/a.parquet", "date=2026-01-02/b.parquet"]),
        ("date=*/[!b].parquet", ["date=2026-01-01/a.parquet"]),
        ("date=2026-01-0?/a.parquet", ["date=2026-01-01/a.parquet"]),
        ("**/[abc].parquet", [n for n in sorted(NAMES) if re.search(r"/[abc]\.parquet$", n)]),
        ("**/0/*", ["_temporary/0/c.parquet"]),
        ("*/notes.txt", ["date=2026-01-01/notes.txt"]),
    ],
)
def test_a_glob_names_files(log: str, pattern: str, names: list[str]) -> None:
    assert found(f"{log}/{pattern}", log) == names


def test_a_relative_glob_names_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "log", *NAMES)
    monkeypatch.chdir(tmp_path)
    both = ["date=2026-01-01/a.parquet", "date=2026-01-02/b.parquet"]
    assert found("log/*/[ab].parquet", "log") == both


def test_brackets_in_the_name_of_something_that_exists_are_no_glob(
    tmp_path: Path, place: Place
) -> None:
    assert found(place(make(tmp_path / "log [2026]", "a.parquet"))) == ["a.parquet"]


@pytest.mark.parametrize(
    "name",
    ["nothing", "*/nothing-*.parquet", "notes", "a**.parquet", "lo", "notes/x.parquet"],
)
def test_what_is_not_there_is_named(tmp_path: Path, place: Place, name: str) -> None:
    base = place(make(tmp_path / "in", "notes/readme.txt", "log/a.parquet"))
    with pytest.raises(InputError) as error:
        input_files(f"{base}/{name}", (".parquet",), "queries")
    assert "queries" in str(error.value)
    assert f"{base}/{name}" in str(error.value)


def test_an_empty_local_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"no \.parquet file in the folder {tmp_path}"):
        input_files(str(tmp_path), (".parquet",), "queries")


def test_a_folder_marker_of_a_bucket_is_no_file(
    store: S3Server, prefix: str, upload: Place, tmp_path: Path
) -> None:
    log = upload(make(tmp_path / "log", "a.parquet"))
    store.client().put_object(Bucket=BUCKET, Key=f"{log}/".removeprefix(f"s3://{BUCKET}/"))
    assert found(log) == ["a.parquet"]
    assert found(f"{log}/*", log) == ["a.parquet"]


def test_other_schemes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"corpus path 'gs://bucket/x'.*s3:// only"):
        input_files("gs://bucket/x", (".parquet",), "corpus")


def test_a_bucket_that_does_not_exist_is_a_storage_error(store: S3Server) -> None:
    with pytest.raises(StorageError, match="the bucket does not exist"):
        input_files("s3://nowhere/x", (".parquet",), "corpus")


# --- opening and hashing -----------------------------------------------------------------------


def test_a_file_knows_its_size_and_its_content(tmp_path: Path, place: Place) -> None:
    body = bytes(range(256)) * 40_000
    local = tmp_path / "a b+é.bin"
    local.write_bytes(body)
    (file,) = input_files(place(local), (".parquet",), "corpus")
    assert (file.size, file.name) == (len(body), local.name)
    assert file.sha256() == sha256_file(local)
    assert str(file) == file.uri
    with file.open() as source:
        source.seek(1000)
        assert source.read(500) == body[1000:1500]


@pytest.mark.parametrize("fault", ["unavailable", "reset", "truncate", "slow"])
def test_a_hash_taken_through_a_bad_network_is_that_of_the_file(
    tmp_path: Path, upload: Place, through: Through, fault: str
) -> None:
    local = tmp_path / "large"
    local.write_bytes(bytes(range(256)) * 40_000)
    uri = upload(local)
    with through(seed=6, **{fault: 0.3}) as proxy:
        hashes = {input_files(uri, (), "corpus")[0].sha256() for _ in range(4)}
    assert hashes == {sha256_file(local)}
    assert proxy.counts[fault] > 0


def test_what_vanished_since_it_was_listed_is_named(tmp_path: Path, store: S3Server) -> None:
    for uri in (str(tmp_path / "gone"), f"s3://{BUCKET}/gone"):
        with pytest.raises(StorageError, match=re.escape(uri)):
            open_file(uri)
        with pytest.raises((InputError, StorageError), match=re.escape(uri)):
            InputFile(uri, 3).sha256()


def test_bad_credentials_are_an_error_that_does_not_repeat_them(
    tmp_path: Path, upload: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = upload(make(tmp_path / "in", "a.parquet"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    forget_clients()
    for read in (lambda: input_files(uri, (".parquet",), "x"), lambda: open_file(f"{uri}/a.p")):
        with pytest.raises(StorageError) as error:
            read()
        assert "canary" not in str(error.value)


# --- the readers -------------------------------------------------------------------------------

ROWS = [{"id": f"d{n}", "text": f"text {n}" * 50} for n in range(2000)]


def write_log(folder: Path) -> Path:
    for day in (1, 2, 3):
        part = folder / f"date=2026-01-0{day}"
        part.mkdir(parents=True)
        ids = [f"q{day}{n}" for n in range(4)]
        texts = [f"query {n} of {day}" for n in range(3)] + [""]
        pq.write_table(pa.table({"query_id": ids, "query": texts}), part / "part.parquet")
    return folder


@pytest.mark.parametrize("path", ["", "/date=*/part.parquet", "/**/*.parquet"])
def test_partitions_are_columns_that_a_filter_sees(tmp_path: Path, place: Place, path: str) -> None:
    log = place(write_log(tmp_path / "log"))
    table = ParquetTable(log + path, "queries")
    assert (table.columns, table.rows) == (["query_id", "query", "date"], 12)
    config = QueriesConfig(path=log + path, filter=(("date", ">=", "2026-01-02"),))
    assert make_plan(config).queries["query_id"].to_pylist() == [
        "q20", "q21", "q22", "q30", "q31", "q32",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_jsonl_is_read_packed_or_not(tmp_path: Path, place: Place, name: str) -> None:
    text = "".join(json.dumps({"n": n, "é": "x" * n}) + "\n" for n in range(300)).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    (file,) = input_files(place(tmp_path / name), (".jsonl", ".jsonl.gz"), "corpus")
    assert [row["n"] for row in read_jsonl(file, "corpus")] == list(range(300))


@pytest.mark.parametrize("kind", ["half", "empty", "text"])
def test_a_damaged_parquet_file_is_named(tmp_path: Path, place: Place, kind: str) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    whole = sink.getvalue().to_pybytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.parquet").write_bytes(whole)
    damaged = {"half": whole[: len(whole) // 2], "empty": b"", "text": b'{"a": 1}\n' * 20}
    (tmp_path / "in" / "b.parquet").write_bytes(damaged[kind])
    path = place(tmp_path / "in")
    with pytest.raises(InputError, match=rf"corpus: {re.escape(path)}/b\.parquet is (not|an emp)"):
        ParquetTable(path, "corpus")


def test_a_damaged_gzip_file_is_named(tmp_path: Path, place: Place) -> None:
    whole = gzip.compress(json.dumps(ROWS[0]).encode() * 500)
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (file,) = input_files(place(tmp_path / "a.jsonl.gz"), (".jsonl.gz",), "corpus")
    with pytest.raises(InputError, match=r"a\.jsonl\.gz is damaged"):
        list(read_jsonl(file, "corpus"))


def corpus_as(kind: str, folder: Path) -> Path:
    rows = [{"doc_id": f"d{n:03d}", "title": f"T{n % 3}", "text": f"text {n}"} for n in range(99)]
    rows.append({"doc_id": "empty", "title": "", "text": " "})
    folder.mkdir()
    for part, some in enumerate((rows[50:], rows[:50])):
        beir = [{"_id": r["doc_id"], "title": r["title"], "text": r["text"]} for r in some]
        text = "".join(json.dumps(row) + "\n" for row in beir).encode()
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(some), folder / f"{part}.parquet")
        elif kind == "jsonl":
            (folder / f"{part}.jsonl").write_bytes(text)
        else:
            (folder / f"{part}.jsonl.gz").write_bytes(gzip.compress(text))
    return folder


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "jsonl.gz"])
def test_a_corpus_is_the_same_from_a_bucket(tmp_path: Path, upload: Place, kind: str) -> None:
    local = corpus_as(kind, tmp_path / "corpus")
    here, there = CorpusConfig(path=str(local)), CorpusConfig(path=upload(local))
    one, other = read_corpus(here), read_corpus(there)
    assert one.documents.equals(other.documents)
    assert one.documents.num_rows == 99
    assert one.dropped == other.dropped == {"empty_document": 1}
    assert corpus_fingerprint(here) == corpus_fingerprint(there)


@pytest.mark.parametrize("settings", [{}, {"filter": (("date", "==", "2026-01-03"),)}])
def test_a_plan_is_the_same_from_a_bucket(
    tmp_path: Path, upload: Place, settings: dict[str, Any]
) -> None:
    local = write_log(tmp_path / "log")
    one = make_plan(QueriesConfig(path=str(local), **settings))
    other = make_plan(QueriesConfig(path=upload(local), **settings))
    assert one.queries.equals(other.queries)
    assert one.rejects.equals(other.rejects)
    assert one.log_rows == other.log_rows
    assert one.reject_counts() == {"empty_query": 1 if settings else 3}


@pytest.mark.parametrize("kind", ["tsv", "qrels", "parquet"])
def test_judgements_are_the_same_from_a_bucket(tmp_path: Path, upload: Place, kind: str) -> None:
    local = tmp_path / f"judged.{kind}"
    if kind == "parquet":
        rows = [{"query_id": "q1", "doc_id": "d1", "relevance": 2}]
        pq.write_table(pa.Table.from_pylist(rows), local)
    else:
        local.write_text("q1\td1\t2\n" if kind == "tsv" else "q1 0 d1 2\n")
    expected = {"q1": {"d1": 2}}
    assert read_qrels(QrelsConfig(path=str(local))) == expected
    assert read_qrels(QrelsConfig(path=upload(local))) == expected


def test_a_corpus_is_the_same_through_a_bad_network(
    tmp_path: Path, upload: Place, through: Through
) -> None:
    local = corpus_as("parquet", tmp_path / "corpus")
    uri = upload(local)
    with through(seed=9, unavailable=0.2, reset=0.1, truncate=0.1) as proxy:
        documents = read_corpus(CorpusConfig(path=uri)).documents
    assert documents.equals(read_corpus(CorpusConfig(path=str(local))).documents)
    assert proxy.counts["unavailable"] + proxy.counts["reset"] + proxy.counts["truncate"] > 0
