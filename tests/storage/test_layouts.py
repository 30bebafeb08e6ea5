"""A folder is read as one kind of file: of a collection each section has its part."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rerank_batch.config import CorpusConfig, QrelsConfig, QueriesConfig
from rerank_batch.data.corpus import corpus_fingerprint, read_corpus
from rerank_batch.data.plan import make_plan
from rerank_batch.data.qrels import read_qrels
from rerank_batch.data.trec import read_run
from rerank_batch.errors import InputError
from rerank_batch.storage import file_kinds, input_files
from rerank_batch.storage.layouts import SUFFIXES, in_words
from tests.conftest import BUCKET
from tests.support.helpers import write_parquet

DOCUMENTS = [{"_id": f"0{n}", "title": f"title {n}", "text": f"document {n}"} for n in range(3)]
QUERIES = [{"_id": f"q{n}", "text": f"query {n}"} for n in range(2)]
JUDGED = [{"query-id": "q0", "corpus-id": "01", "score": 1}]
TSV = "query-id\tcorpus-id\tscore\nq0\t01\t1\n"


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def beir(folder: Path) -> None:
    write(folder / "corpus.jsonl", lines(DOCUMENTS))
    write(folder / "queries.jsonl", lines(QUERIES))
    write(folder / "qrels/train.tsv", TSV.replace("\t1\n", "\t0\n").encode())
    write(folder / "qrels/test.tsv", TSV.encode())
    write(folder / "README.md", b"about it")


def beir_packed(folder: Path) -> None:
    write(folder / "corpus.jsonl.gz", gzip.compress(lines(DOCUMENTS)))
    write(folder / "queries.jsonl.gz", gzip.compress(lines(QUERIES)))
    write(folder / "qrels/test.tsv.gz", gzip.compress(TSV.encode()))


def mteb_folders(folder: Path) -> None:
    for part, rows in (("corpus", DOCUMENTS), ("queries", QUERIES), ("qrels", JUDGED)):
        write_parquet(folder / part / "test-00000-of-00001.parquet", rows)


def mteb_files(folder: Path) -> None:
    write_parquet(folder / "corpus-00000-of-00002.parquet", DOCUMENTS[:2])
    write_parquet(folder / "corpus-00001-of-00002.parquet", DOCUMENTS[2:])
    write_parquet(folder / "queries.parquet", QUERIES)
    write_parquet(folder / "qrels-0.parquet", JUDGED)


def of_two_formats(folder: Path) -> None:
    write_parquet(folder / "corpus.parquet/part-0.parquet", DOCUMENTS)
    write(folder / "queries.jsonl", lines(QUERIES))
    write(folder / "qrels.tsv", TSV.encode())


def read(path: str) -> tuple[list[str], list[str], dict[str, dict[str, int]]]:
    """The same path for every section."""
    documents = read_corpus(CorpusConfig(path=path)).documents
    queries = make_plan(QueriesConfig(path=path)).queries
    judged = read_qrels(QrelsConfig(path=path))
    return documents["doc_id"].to_pylist(), queries["query_id"].to_pylist(), judged


EXPECTED = (["00", "01", "02"], ["q0", "q1"], {"q0": {"01": 1}})
LAYOUTS = [beir, beir_packed, mteb_folders, mteb_files, of_two_formats]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_folder_of_a_collection_gives_each_section_its_part(
    tmp_path: Path, layout: Callable[[Path], None]
) -> None:
    layout(tmp_path / "queries of docs")
    assert read(f"{tmp_path}/queries of docs") == EXPECTED
    assert read(f"{tmp_path}/queries of docs/") == EXPECTED


@pytest.mark.parametrize("layout", [beir, mteb_folders])
def test_a_prefix_of_a_bucket_does_as_well(
    tmp_path: Path, store: Any, prefix: str, layout: Callable[[Path], None]
) -> None:
    layout(tmp_path)
    for file in tmp_path.rglob("*"):
        if file.is_file():
            key = f"{prefix}/mine/{file.relative_to(tmp_path)}".removeprefix(f"s3://{BUCKET}/")
            store.client().put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes())
    assert read(f"{prefix}/mine") == EXPECTED


def test_an_index_is_the_same_by_the_folder_and_by_the_file(tmp_path: Path) -> None:
    beir(tmp_path)
    by_file = corpus_fingerprint(CorpusConfig(path=f"{tmp_path}/corpus.jsonl"))
    assert corpus_fingerprint(CorpusConfig(path=str(tmp_path))) == by_file


@pytest.mark.parametrize(
    ("part", "names", "told"),
    [
        # several kinds
        ("corpus", ["a.jsonl", "b.parquet"], ["1 Parquet file", "1 jsonl file", "a.jsonl"]),
        ("corpus", ["x/a.parquet", "x/b.jsonl.gz"], ["1 Parquet file", "1 jsonl file"]),
        ("corpus", ["a.parquet", "b.csv"], ["1 csv file"]),
        ("corpus", ["a.parquet", "B.PARQUET", "c.JSONL"], ["2 Parquet files"]),
        ("queries", ["a.jsonl", "b.tsv"], ["1 tsv file"]),
        ("qrels", ["a.tsv", "b.qrels"], ["1 qrels file"]),
        ("clicks", ["a.parquet", "b.jsonl"], ["1 jsonl file"]),
        ("retrieval.exclude", ["a.parquet", "b.txt"], ["1 txt file"]),
        ("run", ["a.trec", "b.run.gz"], ["1 run file"]),
        # one file twice
        ("corpus", ["a.jsonl", "a.jsonl.gz"], ["twice", "a.jsonl and a.jsonl.gz"]),
        # several parts, and none that is surely the section's
        ("corpus", ["documents.jsonl", "queries.jsonl"], ["queries.jsonl holds other", "corpus.p"]),
        ("corpus", ["docs.jsonl", "topics.jsonl"], ["topics.jsonl holds other"]),
        ("corpus", ["data/corpus.jsonl", "data/queries.jsonl"], ["data/queries.jsonl holds"]),
        ("corpus", ["a/corpus.jsonl", "a/queries.jsonl", "b/corpus.jsonl"], ["a/queries.jsonl"]),
        ("corpus", ["scifact_corpus.jsonl", "scifact_queries.jsonl"], ["scifact_queries.jsonl"]),
        ("corpus", ["en-corpus/a.parquet", "en-queries/a.parquet"], ["en-queries/a.parquet"]),
        ("queries", ["corpus.jsonl", "log.jsonl"], ["corpus.jsonl holds other", "queries.path"]),
        ("qrels", ["judged.jsonl", "queries.jsonl"], ["queries.jsonl holds other"]),
        # a part that is there twice
        ("queries", ["queries.jsonl", "queries.parquet", "corpus.jsonl"], ["several of queries"]),
        # several splits
        ("qrels", ["train.tsv", "test.tsv"], ["several splits (test.tsv, train.tsv)"]),
        ("qrels", ["test.tsv", "test-2020.tsv"], ["several splits"]),
        ("qrels", ["test/0.tsv", "dev/0.tsv"], ["several splits (dev/0.tsv, test/0.tsv)"]),
        ("qrels", ["qrels.train.tsv", "qrels.dev.tsv"], ["several splits"]),
        ("qrels", ["a.tsv", "test.tsv"], ["several splits"]),
        ("qrels", ["corpus.jsonl", "qrels/a.tsv", "qrels/b.tsv"], ["choose among a, b"]),
    ],
)
@pytest.mark.parametrize("by", ["folder", "glob"])
def test_files_that_are_no_one_input_are_refused_with_what_was_found(
    tmp_path: Path, part: str, names: list[str], told: list[str], by: str
) -> None:
    for name in names:
        write(tmp_path / "corpus" / name, b"x")
    path = f"{tmp_path}/corpus{'/**/*.*' if by == 'glob' else ''}"
    suffixes = {"run": (".trec", ".run", ".run.gz"), "retrieval.exclude": (".parquet", ".txt")}
    with pytest.raises(InputError) as error:
        input_files(path, SUFFIXES.get(part) or suffixes.get(part) or (".parquet",), part)
    if by == "folder":
        assert str(error.value).startswith(f"{part}: {tmp_path}/corpus ")
        for words in told:
            assert words in str(error.value)


@pytest.mark.parametrize(
    ("part", "names", "read"),
    [
        ("corpus", ["a.jsonl", "b.jsonl.gz", "c.jsonl.zst"], 3),
        ("corpus", ["a.parquet", "README.md", "LICENSE.txt", "dataset_info.json"], 1),
        ("corpus", ["a.parquet", "b.PARQUET"], 2),
        ("corpus", ["docs.parquet", "qrels.tsv"], 1),
        ("corpus", ["date=2026-01-01/a.parquet", "date=2026-01-02/a.parquet"], 2),
        ("corpus", ["queries.jsonl"], 1),  # questions may be what is searched
        ("queries", ["docs-2026-01.parquet", "www-2026-01.parquet"], 2),
        ("queries", ["queries/0.parquet", "queries/1.parquet"], 2),
        ("qrels", ["a.tsv", "b.tsv"], 2),
        ("qrels", ["test-00000-of-00002.parquet", "test-00001-of-00002.parquet"], 2),
        ("qrels", ["test/a.tsv", "test/b.tsv"], 2),
        ("qrels", ["split=test/a.parquet", "split=dev/a.parquet"], 2),
        ("labels", ["rows/train.parquet", "pairs/train.jsonl"], 1),
    ],
)
def test_files_that_belong_together_are_read_together(
    tmp_path: Path, part: str, names: list[str], read: int
) -> None:
    for name in names:
        write(tmp_path / name, b"x")
    assert len(input_files(str(tmp_path), SUFFIXES.get(part, (".parquet",)), part)) == read


def test_files_are_counted_by_kind(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", lines(DOCUMENTS[:1]))
    write(tmp_path / "b.jsonl.gz", gzip.compress(lines(DOCUMENTS[1:])))
    counts = file_kinds(str(tmp_path), SUFFIXES["corpus"], "corpus")
    assert counts == {"jsonl": 2}
    assert in_words(counts) == "2 jsonl files"
    assert in_words({"parquet": 1}) == "1 Parquet file"


def test_the_files_of_two_runs_are_not_merged(tmp_path: Path) -> None:
    (tmp_path / "a.trec").write_text("q1 Q0 d1 1 0.5 bm25\n")
    (tmp_path / "b.trec").write_text("q2 Q0 d1 1 0.5 bm25\n")
    assert list(read_run(tmp_path)) == ["q1", "q2"]
    (tmp_path / "b.trec").write_text("q1 Q0 d2 1 12.5 dense\n")
    with pytest.raises(InputError, match=r"several runs .*: a.trec \(bm25\), b.trec \(dense\)"):
        read_run(tmp_path)


def test_a_column_of_splits_needs_a_choice(tmp_path: Path) -> None:
    for split, grade in (("dev", 1), ("test", 2)):
        rows = [{"query_id": "q", "doc_id": split, "relevance": grade}]
        write_parquet(tmp_path / f"split={split}/0.parquet", rows)
    with pytest.raises(InputError, match=r"several splits \(dev, test\).*qrels.filter"):
        read_qrels(QrelsConfig(path=str(tmp_path)))
    chosen = QrelsConfig(path=str(tmp_path), filter=[("split", "==", "test")])
    assert read_qrels(chosen) == {"q": {"test": 2}}
