"""The sample: a collection that can be trusted, and a query log that cannot."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from rerank_batch.errors import InputError
from rerank_batch.sample import SampleSummary, harvest_docstrings, write_sample
from rerank_batch.sample.docstrings import harvest, split_docstring
from rerank_batch.sample.document import Document, can_be_query
from rerank_batch.sample.query_log import ROWS_PER_QUERY, choose_queries, zipf_counts
from rerank_batch.sample.text import bare_words, normalise

DOCS, QUERIES = 600, 150


@pytest.fixture(scope="session")
def harvested() -> pa.Table:
    return harvest_docstrings()


@pytest.fixture(scope="session")
def documents(harvested: pa.Table) -> list[Document]:
    return [Document(**row) for row in harvested.to_pylist()]


@pytest.fixture(scope="session")
def sample(harvested: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sample") / "out"
    write_sample(out, docs=DOCS, queries=QUERIES, harvest=harvested)
    return out


@pytest.fixture(scope="session")
def log(sample: Path) -> pa.Table:
    parts = sorted((sample / "query_log").glob("date=*/part-0.parquet"))
    return pa.concat_tables(pq.ParquetFile(part).read() for part in parts)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# --- the harvest -----------------------------------------------------------------------------


def test_the_harvest_is_large_and_every_document_is_one_object(documents: list[Document]) -> None:
    assert len(documents) > 10_000
    assert len({document.doc_id for document in documents}) == len(documents)
    assert len({normalise(document.text) for document in documents}) == len(documents)


def test_objects_have_the_name_people_call_them_by(documents: list[Document]) -> None:
    kinds = {document.doc_id: document.kind for document in documents}
    assert kinds["numpy.linalg.norm"] == "function"
    assert kinds["pandas.DataFrame"] == "class"
    assert kinds["contextlib.contextmanager"] == "function"
    assert kinds["networkx.pagerank"] == "function"
    assert kinds["sklearn.base.ClassifierMixin.score"] == "method"
    assert kinds["sklearn.utils.multiclass.check_classification_targets"] == "function"


def test_the_question_is_not_in_the_answer(documents: list[Document]) -> None:
    told = [
        document.doc_id
        for document in documents
        if can_be_query(document.paragraph)
        and normalise(document.paragraph) in normalise(document.text)
    ]
    assert told == []


def test_titles_do_not_name_the_object(documents: list[Document]) -> None:
    assert {document.kind for document in documents} <= {
        "attribute", "class", "class method", "exception", "function", "method", "module",
        "object", "property", "static method",
    }  # fmt: skip


def test_no_memory_addresses_and_no_machine_paths(documents: list[Document]) -> None:
    everything = pa.array([f"{document.paragraph}\n{document.text}" for document in documents])
    for pattern in (r"0x[0-9a-fA-F]{6}", r"site-packages/\w+/.*\.pyi?\b", r"/python3\.\d+/"):
        hits = pc.filter(everything, pc.match_substring_regex(everything, pattern))
        assert hits.to_pylist() == []


def test_two_processes_harvest_the_same() -> None:
    once, again = (harvest_docstrings(["networkx", "scipy"]) for _ in range(2))
    assert once.equals(again, check_metadata=True)


def test_a_module_that_cannot_be_imported_is_named() -> None:
    result = harvest(("no_such_package",))
    assert result.documents == []
    assert result.skipped == {"no_such_package": "ModuleNotFoundError"}


@pytest.mark.parametrize(
    ("docstring", "paragraph", "text"),
    [
        ("Sine of\n   x.\n\nMore.", "Sine of x.", "More."),
        ("sin(x, /, out=None)\n\nSine of x.\n\nMore.", "Sine of x.", "More."),
        ("sin(x,\n    out=(1, 2)) -> y\nSine of x.\n\nMore.", "Sine of x.", "More."),
        ("sin(x)\n--\n\nSine of x.\n\nMore.", "Sine of x.", "More."),
        ("Sines\n=====\n\nMore.", "Sines", "More."),
        ("Sine of x.", "Sine of x.", ""),
        ("", "", ""),
    ],
)
def test_a_docstring_is_split_after_its_first_paragraph(
    docstring: str, paragraph: str, text: str
) -> None:
    assert split_docstring(docstring, "sin") == (paragraph, text)


# --- queries and judgements ------------------------------------------------------------------


def test_judged_documents_are_in_the_corpus(sample: Path) -> None:
    corpus = pq.read_table(sample / "corpus.parquet")
    qrels = pq.read_table(sample / "qrels.parquet")
    assert corpus.num_rows == DOCS
    assert set(qrels["doc_id"].to_pylist()) <= set(corpus["doc_id"].to_pylist())
    assert len(set(qrels["query_id"].to_pylist())) == QUERIES
    assert set(qrels["relevance"].to_pylist()) == {1}


def test_nothing_leaks_from_train_to_test(documents: list[Document]) -> None:
    queries = choose_queries(documents, 0, seed=0, test_share=0.5)
    sides = {
        side: [query for query in queries if query.split == side] for side in ("train", "test")
    }
    words = {side: {bare_words(query.text) for query in found} for side, found in sides.items()}
    docs = {side: {d for query in found for d in query.relevant} for side, found in sides.items()}
    assert not words["train"] & words["test"]
    assert not docs["train"] & docs["test"]
    assert len(sides["test"]) / len(queries) == pytest.approx(0.5, abs=0.02)


def test_a_query_has_all_documents_with_its_paragraph(documents: list[Document]) -> None:
    for query in choose_queries(documents, 50, seed=3, test_share=0.5):
        same = {d.doc_id for d in documents if normalise(d.paragraph) == normalise(query.text)}
        assert set(query.relevant) == same


def test_clicks_are_on_documents_of_the_corpus_and_on_all_queries(sample: Path) -> None:
    clicks = pq.read_table(sample / "clicks.parquet")
    corpus = pq.read_table(sample / "corpus.parquet")
    qrels = pq.read_table(sample / "qrels.parquet")
    assert set(clicks["doc_id"].to_pylist()) <= set(corpus["doc_id"].to_pylist())
    for column in ("query_id", "split"):
        assert set(clicks[column].to_pylist()) == set(qrels[column].to_pylist())
    assert set(clicks["position"].to_pylist()) == set(range(1, 11))
    assert "simulated" in (sample / "README.txt").read_text()


# --- the log ---------------------------------------------------------------------------------


def test_every_query_is_in_the_log_under_one_id_and_one_text(sample: Path, log: pa.Table) -> None:
    queries = log.filter(pc.starts_with(log["query_id"], "q"))
    spellings: dict[str, set[str]] = {}
    for query_id, text in zip(
        queries["query_id"].to_pylist(), queries["query"].to_pylist(), strict=True
    ):
        spellings.setdefault(query_id, set()).add(text)
    assert set(spellings) == set(pq.read_table(sample / "qrels.parquet")["query_id"].to_pylist())
    assert all(len({normalise(text) for text in texts}) == 1 for texts in spellings.values())
    assert sum(len(texts) for texts in spellings.values()) > 2 * QUERIES
    assert log.num_rows >= 10 * QUERIES


def test_the_head_is_heavier_than_the_tail(log: pa.Table) -> None:
    ids = [i for i in log["query_id"].to_pylist() if i is not None and i.startswith("q")]
    counts = sorted(Counter(ids).values(), reverse=True)
    assert sum(counts[: QUERIES // 10]) > 3 * sum(counts[-QUERIES // 2 :])


@pytest.mark.parametrize("queries", [1, 2, 17, 400])
def test_zipf_counts_add_up(queries: int) -> None:
    counts = zipf_counts(queries)
    assert sum(counts) == queries * ROWS_PER_QUERY
    assert counts == sorted(counts, reverse=True)
    assert min(counts) >= 1


def test_each_kind_of_dirt_is_in_the_file(
    harvested: pa.Table, log: pa.Table, tmp_path: Path
) -> None:
    summary = write_sample(tmp_path / "s", docs=DOCS, queries=QUERIES, harvest=harvested)
    query_ids = log["query_id"].to_pylist()
    raw = log["query"].cast(pa.binary()).to_pylist()
    kinds = Counter(dirt(query_id, text) for query_id, text in zip(query_ids, raw, strict=True))
    del kinds["clean"]
    assert kinds == summary.dirty_rows
    assert min(summary.dirty_rows.values()) >= 3
    dirty_ids = [i for i in query_ids if i is not None and i.startswith("x")]
    assert len(set(dirty_ids)) == len(dirty_ids) == sum(kinds.values()) - kinds["null_query_id"]


def dirt(query_id: str | None, query: bytes | None) -> str:
    """The kind of a row, judged from what is in the file alone."""
    if query_id is None:
        return "null_query_id"
    if query is None:
        return "null_query"
    if query == b"":
        return "empty"
    if len(query) >= 100_000:
        return "over_long"
    try:
        return "clean" if query.decode().strip() else "blank"
    except UnicodeDecodeError:
        return "invalid_utf8"


def test_days_hold_their_own_rows(sample: Path) -> None:
    for day in (1, 2, 3):
        part = sample / "query_log" / f"date=2026-01-0{day}" / "part-0.parquet"
        table = pq.ParquetFile(part).read()
        assert {moment.day for moment in table["ts"].to_pylist()} == {day}
        assert table.schema.field("ts").type == pa.timestamp("us", tz="UTC")
        assert set(table["segment"].to_pylist()) == {"web", "mobile", "api"}


# --- the folder ------------------------------------------------------------------------------


def test_the_same_arguments_give_the_same_bytes(
    harvested: pa.Table, sample: Path, tmp_path: Path
) -> None:
    write_sample(tmp_path / "again", docs=DOCS, queries=QUERIES, harvest=harvested)
    assert contents(tmp_path / "again") == contents(sample)
    write_sample(tmp_path / "other", docs=DOCS, queries=QUERIES, seed=1, harvest=harvested)
    assert contents(tmp_path / "other")["corpus.parquet"] != contents(sample)["corpus.parquet"]


def test_a_sample_is_replaced_and_nothing_is_left_beside_it(
    harvested: pa.Table, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "out"
    write_sample(out, docs=DOCS, queries=QUERIES, harvest=harvested)
    summary = write_sample(out, docs=100, queries=20, harvest=harvested)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert pq.read_table(out / "corpus.parquet").num_rows == summary.documents == 100
    assert summary.log_rows == 20 * ROWS_PER_QUERY + sum(summary.dirty_rows.values())


def test_a_sample_from_before_there_were_clicks_is_replaced(
    harvested: pa.Table, tmp_path: Path
) -> None:
    write_sample(tmp_path / "s", docs=100, queries=20, harvest=harvested)
    (tmp_path / "s" / "clicks.parquet").unlink()
    write_sample(tmp_path / "s", docs=100, queries=20, harvest=harvested)
    assert (tmp_path / "s" / "clicks.parquet").is_file()


def test_a_folder_that_is_not_a_sample_is_refused(harvested: pa.Table, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.txt"):
        write_sample(tmp_path, harvest=harvested)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_sample_with_something_added_is_refused(harvested: pa.Table, tmp_path: Path) -> None:
    write_sample(tmp_path / "s", docs=100, queries=20, harvest=harvested)
    (tmp_path / "s" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="something else"):
        write_sample(tmp_path / "s", docs=100, queries=20, harvest=harvested)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"queries": 10**6}, r"give \d{5}: ask for fewer"),
        ({"docs": 10**6}, r"give \d{5}: ask for fewer"),
        ({"docs": 10, "queries": 400}, r"have \d{3} relevant ones"),
        ({"docs": -1}, "docs=-1"),
        ({"test_share": 1.5}, "test_share=1.5"),
    ],
)
def test_what_cannot_be_given_is_refused_with_the_numbers(
    harvested: pa.Table, tmp_path: Path, asked: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write_sample(tmp_path / "s", harvest=harvested, **asked)  # type: ignore[arg-type]
    assert not (tmp_path / "s").exists()


def test_the_summary_counts_and_the_readme_names_the_versions(
    harvested: pa.Table, tmp_path: Path
) -> None:
    summary = write_sample(tmp_path, docs=DOCS, queries=QUERIES, harvest=harvested)
    qrels = pq.read_table(tmp_path / "qrels.parquet").to_pydict()
    test_ids = {
        i for i, side in zip(qrels["query_id"], qrels["split"], strict=True) if side == "test"
    }
    assert isinstance(summary, SampleSummary)
    assert (summary.documents, summary.queries, summary.days) == (DOCS, QUERIES, 3)
    assert summary.judgements == len(qrels["doc_id"])
    assert summary.test_queries == len(test_ids)
    assert summary.skipped_modules == len(json.loads(harvested.schema.metadata[b"skipped"]))
    readme = (tmp_path / "README.txt").read_text()
    assert all(f"{name} {version}" in readme for name, version in summary.packages.items())
