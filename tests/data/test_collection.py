"""Collections: which file is what, in the layouts there are; a path that is given goes before."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from rerank_batch.config import Config, digest, parse_config, results_settings
from rerank_batch.data.collection import with_collection_paths
from rerank_batch.data.corpus import corpus_fingerprint, read_corpus
from rerank_batch.data.parquet import fingerprint_files
from rerank_batch.data.plan import make_plan
from rerank_batch.data.qrels import read_qrels
from rerank_batch.data.query_log import SUFFIXES as QUERY_SUFFIXES
from rerank_batch.errors import ConfigError, InputError
from tests.conftest import BUCKET
from tests.support.helpers import write_parquet

DOCUMENTS = [
    {"_id": f"d{n}", "title": f"title {n}", "text": f"text of document {n}"} for n in range(3)
]
QUERIES = [{"_id": f"q{n}", "text": f"query number {n}"} for n in range(2)]
JUDGED = [
    {"query-id": "q0", "corpus-id": "d0", "score": 2},
    {"query-id": "q1", "corpus-id": "d2", "score": 1},
]
QRELS = {"q0": {"d0": 2}, "q1": {"d2": 1}}
TSV = "query-id\tcorpus-id\tscore\nq0\td0\t2\nq1\td2\t1\n"


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def beir(folder: Path) -> None:
    write(folder / "corpus.jsonl", lines(DOCUMENTS))
    write(folder / "queries.jsonl", lines(QUERIES))
    write(folder / "qrels/test.tsv", TSV.encode())


def beir_packed(folder: Path) -> None:
    write(folder / "corpus.jsonl.gz", gzip.compress(lines(DOCUMENTS)))
    write(folder / "queries.jsonl.gz", gzip.compress(lines(QUERIES)))
    write(folder / "qrels/dev.tsv", TSV.encode())


def hub_folders(folder: Path) -> None:
    write_parquet(folder / "corpus/corpus-00000-of-00002.parquet", DOCUMENTS[:2])
    write_parquet(folder / "corpus/corpus-00001-of-00002.parquet", DOCUMENTS[2:])
    write_parquet(folder / "queries/queries-00000-of-00001.parquet", QUERIES)
    write_parquet(folder / "qrels/test-00000-of-00002.parquet", JUDGED[:1])
    write_parquet(folder / "qrels/test-00001-of-00002.parquet", JUDGED[1:])
    train = [{"query-id": "q0", "corpus-id": "d1", "score": 1}]
    write_parquet(folder / "qrels/train-00000-of-00001.parquet", train)
    hard = [{"query-id": "q0", "corpus-id": "d1", "score": 1}]
    write_parquet(folder / "qrels/test-hard-00000-of-00001.parquet", hard)
    write(folder / "qrels-notes.txt", b"about it")


def hub_files(folder: Path) -> None:
    write_parquet(folder / "corpus-00000-of-00002.parquet", DOCUMENTS[:2])
    write_parquet(folder / "corpus-00001-of-00002.parquet", DOCUMENTS[2:])
    write_parquet(folder / "queries.parquet", QUERIES)
    write_parquet(folder / "qrels.parquet", JUDGED)


def sample(folder: Path) -> None:
    documents = [{"doc_id": row["_id"], **row} for row in DOCUMENTS]
    write_parquet(folder / "corpus.parquet", documents)
    log = [{"query_id": row["_id"], "query": row["text"]} for row in QUERIES]
    write_parquet(folder / "query_log/date=2026-01-01/part-0.parquet", log)
    names = ("query_id", "doc_id", "relevance")
    judged = [dict(zip(names, row.values(), strict=True)) for row in JUDGED]
    write_parquet(folder / "qrels.parquet", judged)


LAYOUTS = [beir, beir_packed, hub_folders, hub_files, sample]


def configured(collection: object, **settings: Any) -> Config:
    index = {"path": ".index", "encoder": "sentence-transformers:package:minilm"}
    return parse_config({"collection": str(collection), "index": index, **settings})


def read(config: Config) -> tuple[list[str], list[str], dict[str, dict[str, int]]]:
    assert config.queries is not None
    assert config.qrels is not None
    documents = read_corpus(config.corpus).documents
    queries = make_plan(config.queries).queries
    return documents["doc_id"].to_pylist(), queries["query"].to_pylist(), read_qrels(config.qrels)


EXPECTED = (["d0", "d1", "d2"], ["query number 0", "query number 1"], QRELS)


@pytest.mark.parametrize("name", ["plain", "odd [1] *", "slash/"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_collection_needs_no_other_path(tmp_path: Path, layout: Any, name: str) -> None:
    layout(tmp_path / name)
    assert read(with_collection_paths(configured(f"{tmp_path}/{name}"))) == EXPECTED


@pytest.mark.parametrize("layout", [beir_packed, hub_folders, hub_files])
def test_a_collection_in_a_bucket_is_read_alike(
    tmp_path: Path, store: Any, prefix: str, layout: Any
) -> None:
    layout(tmp_path / "mine")
    layout(tmp_path / "mine2")
    for file in tmp_path.rglob("*"):
        if file.is_file():
            key = f"{prefix}/{file.relative_to(tmp_path)}".removeprefix(f"s3://{BUCKET}/")
            store.client().put_object(Bucket=BUCKET, Key=key, Body=file.read_bytes())
    assert read(with_collection_paths(configured(f"{prefix}/mine"))) == EXPECTED


def test_the_folder_one_stands_in_is_a_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beir(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert read(with_collection_paths(configured("."))) == EXPECTED


def test_a_path_that_is_given_goes_before_the_collection(tmp_path: Path) -> None:
    beir(tmp_path)
    other = write_parquet(tmp_path / "mine/log.parquet", [{"query_id": "q9", "query": "mine"}])
    config = with_collection_paths(
        configured(tmp_path, queries={"path": str(other)}, corpus={"title": "text"})
    )
    assert read(config) == (["d0", "d1", "d2"], ["mine"], QRELS)
    assert config.corpus.title == "text"


def test_nothing_is_looked_for_where_every_path_is_given() -> None:
    paths = {part: {"path": f"{part}.there"} for part in ("corpus", "queries", "qrels")}
    config = configured("nowhere", **paths)
    assert with_collection_paths(config) == config


def test_judgements_that_are_switched_off_are_not_looked_for(tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl", lines(DOCUMENTS))
    write(tmp_path / "queries.jsonl", lines(QUERIES))
    config = with_collection_paths(configured(tmp_path, qrels=None))
    assert config.qrels is None
    with pytest.raises(
        InputError, match=r"has no qrels.*found corpus.jsonl, queries.jsonl"
    ) as told:
        with_collection_paths(configured(tmp_path))
    assert "--set qrels=null" in str(told.value)


def test_a_run_is_what_its_files_are_and_not_how_they_were_named(tmp_path: Path) -> None:
    beir(tmp_path / "one")
    beir(tmp_path / "two")
    paths = {
        "corpus": {"path": str(tmp_path / "one/corpus.jsonl")},
        "queries": {"path": str(tmp_path / "one/queries.jsonl")},
        "qrels": {"path": str(tmp_path / "one/qrels/test.tsv")},
    }
    index = {"path": ".index", "encoder": "sentence-transformers:package:minilm"}
    spelled = parse_config({"index": index, **paths})
    prints = {
        digest(
            [
                results_settings(config),
                corpus_fingerprint(config.corpus),
                fingerprint_files(config.queries.path, QUERY_SUFFIXES, "queries"),
            ]
        )
        for config in (
            spelled,
            with_collection_paths(configured(tmp_path / "one")),
            with_collection_paths(configured(tmp_path / "two", split="test")),
        )
        if config.queries
    }
    assert len(prints) == 1


# --- splits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "split", "chosen"),
    [
        (["qrels/test.tsv"], None, "qrels/test.tsv"),
        (["qrels/dev.tsv"], None, "qrels/dev.tsv"),
        (["qrels/train.tsv", "qrels/test.tsv"], None, "qrels/test.tsv"),
        (["qrels/train.tsv", "qrels/test.tsv"], "train", "qrels/train.tsv"),
        (["qrels/test.tsv", "qrels/test-2020.tsv"], "test-2020", "qrels/test-2020.tsv"),
        (["qrels/test/a.parquet", "qrels/test/b.parquet"], None, "qrels/test"),
        (["qrels/dev.tsv", "qrels/train.md"], None, "qrels/dev.tsv"),
        (["qrels/dl-2019.parquet"], "dl-2019", "qrels/dl-2019.parquet"),
        (["qrels/test-0-of-1.parquet"], "test", "qrels/test-[0-9]*-of-*.parquet"),
        (["qrels.txt"], None, "qrels.txt"),
    ],
)
def test_a_split_is_chosen(
    tmp_path: Path, files: list[str], split: str | None, chosen: str
) -> None:
    for name in ("corpus.jsonl", "queries.jsonl", *files):
        write(tmp_path / name, b"x")
    config = with_collection_paths(configured(tmp_path, split=split))
    assert config.qrels is not None
    assert config.qrels.path == f"{tmp_path}/{chosen}"


@pytest.mark.parametrize(
    ("files", "split", "told"),
    [
        (
            ["qrels/train.tsv", "qrels/dev.tsv"],
            None,
            "'test'; choose among dev, train (--set",
        ),
        (["qrels/test.tsv"], "dev", "split 'dev'; choose among test"),
        (["qrels.tsv"], "dev", "split 'dev'; nothing is split"),
        (["qrels.tsv", "qrels/test.tsv"], None, "several of qrels: qrels, qrels.tsv"),
        (["qrels/test.tsv", "qrels/test.parquet"], None, "several of qrels: qrels/test.parquet, "),
    ],
)
def test_a_split_that_is_not_plain_is_refused(
    tmp_path: Path, files: list[str], split: str | None, told: str
) -> None:
    for name in ("corpus.jsonl", "queries.jsonl", *files):
        write(tmp_path / name, b"x")
    with pytest.raises(InputError) as error:
        with_collection_paths(configured(tmp_path, split=split))
    assert told in str(error.value)


def test_a_path_that_was_not_filled_is_never_read(tmp_path: Path, monkeypatch: Any) -> None:
    beir(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="nothing at collection:"):
        read_corpus(configured(tmp_path).corpus)


def test_a_split_of_judgements_that_are_not_looked_for_is_refused(tmp_path: Path) -> None:
    beir(tmp_path)
    for qrels in (None, {"path": "qrels.tsv"}):
        with pytest.raises(ConfigError, match=r"split \(dev\) chooses among"):
            with_collection_paths(configured(tmp_path, split="dev", qrels=qrels))


# --- refusals ----------------------------------------------------------------------------------


def test_a_part_that_is_missing_is_told_with_what_was_looked_for_and_found(tmp_path: Path) -> None:
    beir(tmp_path)
    (tmp_path / "corpus.jsonl").rename(tmp_path / "documents.jsonl")
    with pytest.raises(InputError) as error:
        with_collection_paths(configured(tmp_path))
    assert str(error.value) == (
        f"collection: {tmp_path} has no corpus: looked for corpus.parquet, corpus.jsonl, "
        "corpus-*.parquet, corpus/ (packed or not); found documents.jsonl, qrels/, "
        "queries.jsonl. Name it with --set corpus.path=…"
    )


@pytest.mark.parametrize("name", ["corpus-old.jsonl", "corpus2/a.parquet", "old/corpus.jsonl"])
def test_a_file_with_a_name_much_alike_is_not_the_part(tmp_path: Path, name: str) -> None:
    beir(tmp_path)
    write(tmp_path / name, b"something else")
    assert read(with_collection_paths(configured(tmp_path))) == EXPECTED


def test_a_part_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    beir(tmp_path)
    write(tmp_path / "corpus.jsonl.gz", b"")
    with pytest.raises(InputError, match=r"several of corpus: corpus.jsonl, corpus.jsonl.gz. Name"):
        with_collection_paths(configured(tmp_path))


@pytest.mark.parametrize("name", ["corpus.jsonl", "*"])
def test_a_collection_is_a_folder(tmp_path: Path, name: str) -> None:
    beir(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        with_collection_paths(configured(tmp_path / name))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"collection: nothing at .*gone"):
        with_collection_paths(configured(tmp_path / "gone"))


def test_without_a_collection_the_corpus_is_required() -> None:
    with pytest.raises(ConfigError, match="corpus: required, or a collection that has it"):
        parse_config({"index": {"path": ".index", "encoder": "a:b"}})
