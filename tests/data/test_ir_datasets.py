"""Datasets of ir_datasets as collections, by a stand-in with its interface and by the package."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest

from rerank_batch.config import Config, parse_config
from rerank_batch.data import ir_datasets as ir_datasets_copy
from rerank_batch.data.collection import with_collection_paths
from rerank_batch.data.corpus import read_corpus
from rerank_batch.data.ir_datasets import copy_dataset
from rerank_batch.data.plan import make_plan
from rerank_batch.data.qrels import read_qrels
from rerank_batch.errors import ConfigError, InputError, StorageError


class Plain(NamedTuple):
    doc_id: str
    text: str


class Titled(NamedTuple):
    doc_id: str
    text: str
    title: str | None


class Parts(NamedTuple):
    doc_id: str
    head: str
    body: str

    def default_text(self) -> str:
        return f"{self.head} {self.body}"


class Topic(NamedTuple):
    query_id: str
    title: str
    description: str

    def default_text(self) -> str:
        return self.title


class Judgement(NamedTuple):
    query_id: str
    doc_id: str
    relevance: int
    iteration: str


class Dataset:
    """Has the parts it is made with, and counts how often its documents are asked for."""

    def __init__(self, **parts: list[Any]) -> None:
        self.reads = 0
        for name, rows in parts.items():
            setattr(self, f"{name}_iter", lambda rows=rows: self._rows(rows))

    def _rows(self, rows: list[Any]) -> Iterator[Any]:
        self.reads += 1
        for row in rows:
            if isinstance(row, Exception):
                raise row
            yield row


DOCS: list[Any] = [Plain("d1", "plain"), Titled("d2", "text", "title"), Titled("d3", "text", None)]
QUERIES = [Topic("q1", "a title", "a description")]
QRELS = [Judgement("q1", "d2", 2, "0")]


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Any:
    datasets = {"vaswani": Dataset(docs=DOCS, queries=QUERIES, qrels=QRELS)}
    fake = SimpleNamespace(__version__="1.0", load=datasets.__getitem__, datasets=datasets)
    monkeypatch.setitem(sys.modules, "ir_datasets", fake)
    return fake


def configured(name: str, cache: Path, **settings: Any) -> Config:
    return parse_config(
        {
            "collection": f"ir_datasets:{name}",
            "index": {"path": ".index", "encoder": "sentence-transformers:package:minilm"},
            "storage": {"cache": str(cache)},
            **settings,
        }
    )


def read(config: Config) -> tuple[list[tuple[str, ...]], dict[str, str], Any]:
    assert config.queries is not None
    assert config.qrels is not None
    documents = [tuple(row.values()) for row in read_corpus(config.corpus).documents.to_pylist()]
    queries = make_plan(config.queries).queries.to_pylist()
    return documents, {q["query_id"]: q["query"] for q in queries}, read_qrels(config.qrels)


def test_a_dataset_is_a_collection(tmp_path: Path, package: Any) -> None:
    documents, queries, qrels = read(with_collection_paths(configured("vaswani", tmp_path)))
    assert documents == [("d1", "", "plain"), ("d2", "title", "text"), ("d3", "", "text")]
    assert queries == {"q1": "a title"}
    assert qrels == {"q1": {"d2": 2}}


def test_documents_without_a_text_have_what_the_package_takes_for_it(
    tmp_path: Path, package: Any
) -> None:
    package.datasets["p"] = Dataset(docs=[Parts("d1", "head", "body")])
    rows = pq.read_table(copy_dataset("p", tmp_path) / "corpus.parquet").to_pylist()
    assert rows == [{"doc_id": "d1", "title": "", "text": "head body"}]


def test_a_dataset_is_written_once_for_each_version(tmp_path: Path, package: Any) -> None:
    first = copy_dataset("vaswani", tmp_path)
    assert copy_dataset("vaswani", tmp_path) == first
    assert package.datasets["vaswani"].reads == 3
    package.__version__ = "1.1"
    assert copy_dataset("vaswani", tmp_path) != first
    assert package.datasets["vaswani"].reads == 6


def test_many_rows_are_written_in_pieces(
    tmp_path: Path, package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ir_datasets_copy, "_ROWS", 2)
    rows = pq.read_table(copy_dataset("vaswani", tmp_path) / "corpus.parquet").to_pylist()
    assert [row["doc_id"] for row in rows] == ["d1", "d2", "d3"]


@pytest.mark.parametrize("name", ["beir/scifact/test", "../../evil", "..", "/etc"])
def test_no_name_leaves_the_cache(tmp_path: Path, package: Any, name: str) -> None:
    package.datasets[name] = package.datasets["vaswani"]
    assert copy_dataset(name, tmp_path / "cache").parent == tmp_path / "cache/ir_datasets"
    assert [file.name for file in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize(
    "failure", [OSError("no network"), RuntimeError("all sources failed"), ImportError("warc")]
)
def test_a_dataset_that_breaks_off_leaves_nothing(
    tmp_path: Path, package: Any, failure: Exception
) -> None:
    package.datasets["broken"] = Dataset(docs=DOCS, queries=[*QUERIES, failure])
    with pytest.raises(InputError, match=f"queries of ir_datasets:broken failed: {failure}"):
        with_collection_paths(configured("broken", tmp_path))
    assert list((tmp_path / "ir_datasets").iterdir()) == []


def test_rows_of_another_kind_are_an_input_error(tmp_path: Path, package: Any) -> None:
    package.datasets["odd"] = Dataset(docs=[SimpleNamespace(doc_id="d1")])
    with pytest.raises(InputError, match=r"corpus of ir_datasets:odd failed: .*default_text"):
        copy_dataset("odd", tmp_path)
    package.datasets["odd"] = Dataset(docs=[Plain("d1", ["a", "list"])])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="corpus of ir_datasets:odd failed"):
        copy_dataset("odd", tmp_path)


def test_two_processes_may_write_it_at_once(
    tmp_path: Path, package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other is done while this one writes."""
    write_all = ir_datasets_copy._write_all

    def late(*arguments: Any) -> None:
        write_all(*arguments)
        monkeypatch.undo()
        monkeypatch.setitem(sys.modules, "ir_datasets", package)
        copy_dataset("vaswani", tmp_path)

    monkeypatch.setattr(ir_datasets_copy, "_write_all", late)
    folder = copy_dataset("vaswani", tmp_path)
    assert [file.name for file in folder.parent.iterdir()] == [folder.name]
    assert len(list(folder.iterdir())) == 3


def test_what_a_dataset_lacks_is_told_as_of_any_collection(tmp_path: Path, package: Any) -> None:
    package.datasets["documents"] = Dataset(docs=DOCS)
    with pytest.raises(InputError, match=r"has no queries: looked for .*found corpus.parquet"):
        with_collection_paths(configured("documents", tmp_path))
    config = with_collection_paths(configured("documents", tmp_path, queries=None, qrels=None))
    assert read_corpus(config.corpus).documents.num_rows == 3


def test_a_split_of_what_is_not_split_is_refused(tmp_path: Path, package: Any) -> None:
    with pytest.raises(InputError, match="leave split out"):
        with_collection_paths(configured("vaswani", tmp_path, split="test"))


def test_an_unknown_dataset_is_named(tmp_path: Path, package: Any) -> None:
    with pytest.raises(ConfigError, match="ir_datasets knows no dataset 'vaswanni'"):
        copy_dataset("vaswanni", tmp_path)


def test_without_the_package_one_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'rerank-batch\[ir-datasets\]'"):
        with_collection_paths(configured("vaswani", tmp_path))


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, package: Any) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"node cache .* cannot be used"):
        copy_dataset("vaswani", tmp_path / "file")


def test_the_package_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset that it makes of local files: nothing is downloaded."""
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path / "home"))
    pytest.importorskip("ir_datasets")
    package = importlib.import_module("ir_datasets")
    files = {"docs_tsv": "d1\tone\nd2\ttwo\n", "queries_tsv": "q1\tfirst\n"}
    for name, text in {**files, "qrels_trec": "q1 0 d2 1\n"}.items():
        (tmp_path / name).write_text(text)
    names = (*files, "qrels_trec")
    dataset = package.create_dataset(**{name: str(tmp_path / name) for name in names})
    monkeypatch.setitem(package.registry._registered, "mine/small", dataset)
    documents, queries, qrels = read(
        with_collection_paths(configured("mine/small", tmp_path / "cache"))
    )
    assert documents == [("d1", "", "one"), ("d2", "", "two")]
    assert (queries, qrels) == ({"q1": "first"}, {"q1": {"d2": 1}})
    with pytest.raises(ConfigError, match="knows no dataset 'mine/none'"):
        copy_dataset("mine/none", tmp_path / "cache")
