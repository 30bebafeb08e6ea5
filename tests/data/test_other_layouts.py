"""Collections as others write them: MTEB, re-uploads of BEIR, TREC-COVID; ids are text, exactly."""

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rerank_batch.config import CorpusConfig, QrelsConfig, QueriesConfig, parse_config
from rerank_batch.data.collection import with_collection_paths
from rerank_batch.data.corpus import corpus_fingerprint, read_corpus
from rerank_batch.data.plan import make_plan
from rerank_batch.data.qrels import read_qrels
from rerank_batch.errors import InputError
from tests.support.helpers import write_parquet

Pack = Callable[[bytes], bytes]


def zstd(raw: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(raw)
    return bytes(sink.getvalue())


PACKS: dict[str, Pack] = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstd}


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def queries_of(path: str, **settings: Any) -> dict[str, str]:
    plan = make_plan(QueriesConfig(path=path, **settings)).queries
    return dict(zip(plan["query_id"].to_pylist(), plan["query"].to_pylist(), strict=True))


def qrels_of(path: str, **settings: Any) -> dict[str, dict[str, int]]:
    return read_qrels(QrelsConfig(path=path, **settings))


# --- whole collections, by `collection` and by the path of the folder ---------------------------

DOCUMENTS = [{"id": f"00{n}", "title": f"title {n}", "text": f"document {n}"} for n in range(2)]
QUERIES = [{"id": "07", "text": "alpha"}, {"id": "7", "text": "beta"}]
JUDGED = [
    {"query-id": "07", "corpus-id": "001", "score": 1.0},
    {"query-id": "7", "corpus-id": "000", "score": 2.0},
]
EXPECTED = (["000", "001"], {"07": "alpha", "7": "beta"}, {"07": {"001": 1}, "7": {"000": 2}})


def mteb_v2(folder: Path) -> None:
    for part, rows in (("corpus", DOCUMENTS), ("queries", QUERIES), ("qrels", JUDGED)):
        write_parquet(folder / part / "test-00000-of-00001.parquet", rows)


def beir_with_id(folder: Path) -> None:
    write(folder / "corpus.jsonl", lines(DOCUMENTS))
    write(folder / "queries.jsonl", lines(QUERIES))
    write(folder / "qrels/test.tsv", "query_id\tcorpus_id\tscore\n07\t001\t1.0\n7\t000\t2.0\n")


def jsonl_throughout(folder: Path) -> None:
    write(folder / "corpus.jsonl.zst", zstd(lines(DOCUMENTS)))
    write(folder / "queries.jsonl.bz2", bz2.compress(lines(QUERIES)))
    write(folder / "qrels/test.jsonl.gz", gzip.compress(lines(JUDGED)))


def with_tsv(folder: Path) -> None:
    write_parquet(folder / "corpus.parquet", DOCUMENTS)
    write(folder / "queries.tsv", "query_id\tquery\n07\talpha\n7\tbeta\n")
    write(folder / "qrels.tsv.gz", gzip.compress(b"qid\tdocid\trel\n07\t001\t1\n7\t000\t2\n"))


def with_topics(folder: Path) -> None:
    write(folder / "corpus.jsonl.gz", gzip.compress(lines(DOCUMENTS)))
    topics = "".join(
        f'<topic number="{row["id"]}"><query>{row["text"]}</query></topic>' for row in QUERIES
    )
    write(folder / "queries.xml", f"<topics>{topics}</topics>")
    write(folder / "qrels.txt.gz", gzip.compress(b"07 0 001 1\n7 0 000 2\n"))


@pytest.mark.parametrize("by", ["collection", "folder"])
@pytest.mark.parametrize("layout", [mteb_v2, beir_with_id, jsonl_throughout, with_tsv, with_topics])
def test_a_collection_of_others_is_read(
    tmp_path: Path, layout: Callable[[Path], None], by: str
) -> None:
    layout(tmp_path)
    index = {"path": ".index", "encoder": "sentence-transformers:package:minilm"}
    paths = {part: {"path": str(tmp_path)} for part in ("corpus", "queries", "qrels")}
    found: dict[str, Any] = paths if by == "folder" else {"collection": str(tmp_path)}
    config = with_collection_paths(parse_config({"index": index, **found}))
    assert config.queries
    assert config.qrels
    documents = read_corpus(config.corpus).documents["doc_id"].to_pylist()
    assert (
        documents,
        queries_of(config.queries.path),
        qrels_of(config.qrels.path),
    ) == EXPECTED


def test_the_key_of_beir_goes_before_another_and_an_index_stays_the_same(tmp_path: Path) -> None:
    rows = [{"_id": "a", "id": 1, "text": "alpha"}, {"_id": "b", "id": 2, "text": "beta"}]
    path = write(tmp_path / "corpus.jsonl", lines(rows))
    config = CorpusConfig(path=path)
    assert read_corpus(config).documents["doc_id"].to_pylist() == ["a", "b"]
    assert corpus_fingerprint(config)["columns"] == ["_id", "title", "text"]
    assert read_corpus(CorpusConfig(path=path, id="id")).documents["doc_id"].to_pylist() == [
        "1",
        "2",
    ]


@pytest.mark.parametrize("rows", [[{"key": "a", "text": "x"}], [{"id": "a", "text": "x"}, {}]])
def test_a_row_without_an_id_key_is_named(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = write(tmp_path / "x.jsonl", lines(rows))
    with pytest.raises(InputError, match=f"document {len(rows)} lacks '_?id'"):
        read_corpus(CorpusConfig(path=path))
    with pytest.raises(InputError, match=f"query {len(rows)} lacks '_?id'"):
        queries_of(path)


# --- judgements --------------------------------------------------------------------------------

NAMES = [
    ("query-id", "corpus-id", "score"),
    ("query_id", "corpus_id", "score"),
    ("query_id", "doc_id", "relevance"),
    ("Query-ID", "Doc-ID", "Grade"),
    ("qid", "docid", "rel"),
]
GRADED = {"007": {"01": 1, "1": 0}, "7": {"01": -2}}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("form", ["tsv", "blanks", "jsonl", "parquet"])
def test_judgements_with_the_names_of_others(
    tmp_path: Path, names: tuple[str, str, str], form: str
) -> None:
    rows = [("007", "01", "1.0"), ("007", "1", "0"), ("7", "01", "-2.00")]
    if form in ("jsonl", "parquet"):
        names = (names[0].lower(), names[1].lower(), names[2].lower())
        table = [dict(zip(names, row, strict=True)) for row in rows]
        if form == "parquet":
            path = str(write_parquet(tmp_path / "q.parquet", table))
        else:
            path = write(tmp_path / "q.jsonl", lines(table))
    else:
        tab = "\t" if form == "tsv" else " "
        path = write(tmp_path / "q.tsv", "".join(f"{tab.join(row)}\n" for row in [names, *rows]))
    assert qrels_of(path) == GRADED


@pytest.mark.parametrize(
    "text",
    [
        "score\tcorpus-id\tquery-id\n1.0\t01\t007\n0\t1\t007\n-2\t01\t7\n",
        "query-id\tcorpus-id\tscore\tnote\n007\t01\t1\tx\n007\t1\t0\t\n7\t01\t-2\ty\n",
        "query_id\titeration\tdoc_id\trelevance\n007\t0\t01\t1\n007\t0\t1\t0\n7\t0\t01\t-2\n",
        "\n007 0 01 1.0\n007 0 1 0.0\n7 0 01 -2.0\n",
        '{"query-id": "007", "corpus-id": "01", "score": 1.0}\n'
        '{"query-id": "007", "corpus-id": 1, "score": 0}\n'
        '{"query-id": 7, "corpus-id": "01", "score": "-2"}\n',
    ],
)
@pytest.mark.parametrize("packed", PACKS)
def test_judgements_in_other_orders_and_packed(tmp_path: Path, text: str, packed: str) -> None:
    assert qrels_of(write(tmp_path / f"q.txt{packed}", PACKS[packed](text.encode()))) == GRADED


def test_a_heading_tells_an_id_with_blanks(tmp_path: Path) -> None:
    text = "query-id\tcorpus-id\tscore\nwhat is\td 1\t1\n"
    assert qrels_of(write(tmp_path / "q.tsv", text)) == {"what is": {"d 1": 1}}


@pytest.mark.parametrize("grade", ["0.5", "1.50", "-0.1"])
@pytest.mark.parametrize("form", ["{q}\t{d}\t{g}", "{q} 0 {d} {g}", '{{"qid": "{q}", ...}}'])
def test_half_a_grade_is_refused_with_its_line(tmp_path: Path, grade: str, form: str) -> None:
    if "qid" in form:
        text = (
            f'{{"qid": "q", "docid": "a", "rel": 1}}\n{{"qid": "q", "docid": "b", "rel": {grade}}}'
        )
    else:
        rows = [("q", "a", "1"), ("q", "b", grade)]
        text = "\n".join(form.format(q=q, d=d, g=g) for q, d, g in rows)
    place = "judgement 2" if "qid" in form else "line 2"
    with pytest.raises(InputError, match=f"{place} grades document b .* as {grade}, which is no"):
        qrels_of(write(tmp_path / "q.txt", text))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("query-id\tcorpus-id\tlabel\nq\td\t1\n", "line 1 is neither"),
        ("query-id\tcorpus-id\tscore\nq\td\n", "line 2 has 2 fields, the heading 3"),
        ("query-id\tcorpus-id\tscore\nq\t\t1\n", "line 2 has a judgement with an empty field"),
        (
            '{"query": "q", "corpus-id": "d", "score": 1}\n',
            "judgement 1 lacks query_id or query-id",
        ),
        ('{"qid": true, "docid": "d", "rel": 1}\n', "judgement 1: an id is true"),
        ('{"qid": null, "docid": "d", "rel": 1}\n', "judgement 1 has a judgement with an empty"),
        ('{"qid": "q", "docid": "d", "rel": "good"}\n', "as good, which is no integer"),
    ],
)
def test_judgements_that_cannot_be_read_are_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        qrels_of(write(tmp_path / "q.tsv", text))


# --- topics and lines --------------------------------------------------------------------------

COVID = """<?xml version="1.0" encoding="UTF-8"?>
<topics task="COVIDSearch" batch="1">
  <topic number="01">
    <query>fish &amp; chips</query>
    <question>is it <b>good</b>?</question>
    <narrative>all about it</narrative>
  </topic>
  <topic number="2">
    <query>caf\u00e9</query>
    <question>where?</question>
  </topic>
</topics>
"""


@pytest.mark.parametrize("packed", PACKS)
def test_topics_as_xml(tmp_path: Path, packed: str) -> None:
    path = write(tmp_path / f"topics.xml{packed}", PACKS[packed](COVID.encode()))
    assert queries_of(path) == {"01": "fish & chips", "2": "café"}
    assert queries_of(path, text="question") == {"01": "is it good?", "2": "where?"}
    assert queries_of(path, format="trec-topics") == queries_of(path)


@pytest.mark.parametrize(
    "text",
    [
        '<topic number="1"><query>alpha</query></topic>\n'
        '<topic number="2"><query>b</query></topic>',
        "<topics><topic><num>1</num><title>alpha</title></topic>"
        "<topic><num> 2 </num><title>b</title></topic></topics>",
        '<topics><topic number="1">\n alpha\n</topic><topic number="2">b</topic></topics>',
        '<x:topics xmlns:x="u"><x:topic ID="1"><x:Query>alpha</x:Query></x:topic>'
        '<x:topic ID="2"><x:Query><![CDATA[b]]></x:Query></x:topic></x:topics>',
        '<?xml version="1.0"?>\n<!DOCTYPE topics [<!ELEMENT topic ANY>]>\n'
        '<topic number="1"><query>alpha</query></topic><topic number="2"><query>b</query></topic>',
        "<top>\n<num> Number: 1\n<title> alpha\n</top>\n<top>\n<num> Number: 2\n<title> b\n</top>",
    ],
)
def test_topics_in_other_shapes(tmp_path: Path, text: str) -> None:
    assert queries_of(write(tmp_path / "topics", text)) == {"1": "alpha", "2": "b"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('<topics>\n<topic number="1"><query>a & b</query></topic></topics>', "line 2 is no XML"),
        (
            '<topics><topic number="1"><disease>a</disease><gene>b</gene></topic></topics>',
            "no topic .* has <query> or <title>; they have disease, gene. Name one with queries",
        ),
        (
            '<topics><topic number="1"><query>a</query><query>b</query></topic></topics>',
            "topic 1 has more than one <query>",
        ),
    ],
)
def test_topics_that_cannot_be_read_are_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        queries_of(write(tmp_path / "topics.xml", text))


@pytest.mark.parametrize(
    "text",
    [
        "query_id\tquery\n007\talpha\n7\tb\n",
        "query\tquery_id\nalpha\t007\nb\t7\n",
        "qid\tquestion\tnote\n007\talpha\tx\n7\tb\t\n",
        "\n_id\ttext\n007\talpha\n7\tb\n",
        "007\talpha\n7\tb\n",
    ],
)
@pytest.mark.parametrize("packed", PACKS)
def test_lines_of_queries_with_a_heading(tmp_path: Path, text: str, packed: str) -> None:
    path = write(tmp_path / f"queries.tsv{packed}", PACKS[packed](text.encode()))
    assert queries_of(path) == {"007": "alpha", "7": "b"}
    assert queries_of(str(tmp_path)) == {"007": "alpha", "7": "b"}
