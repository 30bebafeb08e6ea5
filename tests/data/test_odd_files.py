"""Files as other systems write them, which were read as something else or ended in a traceback."""

import bz2
import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from rerank_batch.config import (
    ClicksConfig,
    CorpusConfig,
    ExcludeConfig,
    FilterTerm,
    QrelsConfig,
    QueriesConfig,
)
from rerank_batch.data.clicks.log import read_click_log
from rerank_batch.data.corpus import read_corpus
from rerank_batch.data.plan import Plan, make_plan
from rerank_batch.data.qrels import read_qrels
from rerank_batch.errors import InputError
from rerank_batch.retrieval.excluded import read_ids

DOCUMENTS = [b'{"_id": "d1", "text": "river"}\n', b'{"_id": "d2", "text": "stone"}\n']


def folders(root: Path, **texts: str) -> None:
    """A query per folder; the folder is named like ``store=007``."""
    for number, (folder, text) in enumerate(texts.items()):
        file = root / folder.replace("_is_", "=") / "a.parquet"
        file.parent.mkdir(parents=True)
        pq.write_table(pa.table({"query_id": [f"q{number}"], "query": [text]}), file)


def plan(path: Path, **settings: Any) -> Plan:
    return make_plan(QueriesConfig.model_validate({"path": str(path), **settings}))


def ids(made: Plan) -> list[str]:
    return [row["query_id"] for row in made.queries.to_pylist()]


def documents(path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    read = read_corpus(CorpusConfig.model_validate({"path": str(path)}))
    return list(read.documents.column("doc_id").to_pylist())


# --- Parquet ---------------------------------------------------------------------------------


@pytest.mark.parametrize("beside", [False, True])
def test_times_as_spark_writes_them_reach_beyond_2262(tmp_path: Path, beside: bool) -> None:
    last = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC)
    ts = pa.array([last.replace(tzinfo=None)], pa.timestamp("us"))
    table = pa.table({"query_id": ["a"], "query": ["river"], "ts": ts})
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    if beside:
        other = table.set_column(0, "query_id", [["b"]])
        pq.write_table(other, tmp_path / "b.parquet")
    for row in plan(tmp_path).queries.to_pylist():
        assert (row["first_seen"], row["last_seen"]) == (last, last)


def test_an_id_that_is_the_name_of_a_folder_keeps_its_zeros(tmp_path: Path) -> None:
    folders(tmp_path, store_is_007="river", store_is_7="stone", store_is_12="cloud")
    assert ids(plan(tmp_path, id="store")) == ["007", "12", "7"]


@pytest.mark.parametrize(
    ("term", "found"),
    [
        (("month", "==", 1), ["q0"]),
        (("month", "==", "01"), ["q0"]),
        (("month", ">", 1), ["q1"]),
        (("month", "in", [1, 12]), ["q0", "q1"]),
        (("month", "not in", [1]), ["q1"]),
    ],
)
def test_a_filter_finds_folders_with_leading_zeros_by_their_numbers(
    tmp_path: Path, term: FilterTerm, found: list[str]
) -> None:
    folders(tmp_path, month_is_01="river", month_is_12="stone")
    assert ids(plan(tmp_path, filter=[term])) == found


LAST_DAY = datetime.date(9999, 12, 31)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_far_days_beside_times_of_any_unit_are_kept(tmp_path: Path, unit: str) -> None:
    for name, ts in (("a", pa.array([LAST_DAY])), ("b", pa.array([0], pa.timestamp(unit)))):
        rows = {"query_id": [name], "query": [name], "ts": ts}
        pq.write_table(pa.table(rows), tmp_path / f"{name}.parquet")
    years = [row["first_seen"].year for row in plan(tmp_path).queries.to_pylist()]
    assert years == [9999, 1970]


def test_a_time_that_the_other_files_cannot_hold_is_refused(tmp_path: Path) -> None:
    for name, ts, unit in (("a", 2**63 - 1, "ms"), ("b", 0, "us")):
        rows = {"query_id": [name], "query": [name], "ts": pa.array([ts], pa.timestamp(unit))}
        pq.write_table(pa.table(rows), tmp_path / f"{name}.parquet")
    with pytest.raises(InputError, match=r"a\.parquet do not fit .*Write them with one type"):
        plan(tmp_path)
    assert ids(plan(tmp_path, time=None)) == ["a", "b"]


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()])
def test_files_with_views_can_be_filtered(tmp_path: Path, kind: pa.DataType) -> None:
    columns = {"query_id": ["a", "b"], "query": ["river", "stone"]}
    views = {name: pa.array(values).cast(kind) for name, values in columns.items()}
    pq.write_table(pa.table({**views, "n": [1, 2]}), tmp_path / "a.parquet")
    assert ids(plan(tmp_path, filter=[("n", "==", 1)])) == ["a"]


def test_views_of_bytes_that_are_no_text_are_counted(tmp_path: Path) -> None:
    texts = pa.array([b"river", b"\xff"])
    for kind in (pa.binary_view(), pa.string_view()):
        view = texts.cast(kind, safe=False) if kind == pa.binary_view() else _unchecked(texts)
        pq.write_table(pa.table({"query_id": ["a", "b"], "query": view}), tmp_path / "a.parquet")
        assert plan(tmp_path).reject_counts() == {"invalid_utf8": 1}


def _unchecked(raw: pa.Array) -> pa.Array:
    """Bytes as a column of views of texts that nobody has looked at."""
    texts = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    return pc.cast(texts, options=pc.CastOptions(pa.string_view(), allow_invalid_utf8=True))


@pytest.mark.parametrize("grade", [2**40, -(2**40), 1e300])
def test_a_grade_that_is_none_is_refused(tmp_path: Path, grade: float) -> None:
    rows = {"query_id": ["q"], "doc_id": ["d"], "relevance": [grade]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="document d for query q beyond"):
        read_qrels(QrelsConfig.model_validate({"path": str(tmp_path)}))


@pytest.mark.parametrize("grade", ["99999999999", "1" * 5000, "-" + "9" * 5000])
def test_a_grade_that_is_none_is_refused_in_text(tmp_path: Path, grade: str) -> None:
    file = tmp_path / "qrels.txt"
    file.write_text(f"q 0 d {grade}\n")
    with pytest.raises(InputError, match=r"qrels.txt line 1 grades document d .* beyond"):
        read_qrels(QrelsConfig.model_validate({"path": str(file)}))


def test_a_takedown_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"doc_id": [b"d1", b"\xff"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"'doc_id' of .* is not UTF-8 text"):
        read_ids(ExcludeConfig.model_validate({"path": str(tmp_path)}))


@pytest.mark.parametrize("kind", [pa.decimal128(38, 0), pa.decimal256(50, 2)])
def test_positions_of_clicks_may_be_decimals_of_any_width(
    tmp_path: Path, kind: pa.DataType
) -> None:
    positions = pa.array([Decimal(1), Decimal(2)], kind)
    rows = {"query_id": ["q", "q"], "doc_id": ["a", "b"], "position": positions, "clicked": [1, 0]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    read = read_click_log(ClicksConfig.model_validate({"path": str(tmp_path)}), None)
    assert read.counts["position"].to_list() == [1, 2]


# --- text ------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["BZhang", "PAR1", "PAR1-7", "ARROW1"])
def test_an_id_is_not_taken_for_a_packed_file(tmp_path: Path, first: str) -> None:
    file = tmp_path / "list.txt"
    file.write_text(f"{first}\nd2\n")
    assert read_ids(ExcludeConfig.model_validate({"path": str(file)})) == sorted([first, "d2"])


def test_what_follows_a_bzip2_file_is_not_dropped(tmp_path: Path) -> None:
    packed = [bz2.compress(each) for each in DOCUMENTS]
    file = tmp_path / "corpus.jsonl.bz2"
    assert documents(file, packed[0] + packed[1]) == ["d1", "d2"]
    assert documents(file, bz2.compress(b"") + packed[1]) == ["d2"]
    for content in (packed[0] + DOCUMENTS[1], packed[0][:-4]):
        with pytest.raises(InputError, match="is damaged after line"):
            documents(file, content)


def test_many_blocks_of_bzip2_are_read(tmp_path: Path) -> None:
    texts = b"".join(b'{"_id": "%d", "text": "river %d"}\n' % (n, n * n) for n in range(60_000))
    assert len(documents(tmp_path / "corpus.jsonl.bz2", bz2.compress(texts, 1))) == 60_000


def test_zstd_may_begin_with_a_note(tmp_path: Path) -> None:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(DOCUMENTS[0])
    note = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    content = note + sink.getvalue().to_pybytes()
    assert documents(tmp_path / "corpus.jsonl.zst", content) == ["d1"]


@pytest.mark.parametrize("weight", ["Infinity", "-Infinity", "1e400"])
def test_a_weight_without_bounds_is_rejected(tmp_path: Path, weight: str) -> None:
    file = tmp_path / "log.jsonl"
    lines = [f'{{"_id": "a", "text": "river", "w": {each}}}\n' for each in (weight, "1.5", "2")]
    file.write_text("".join(lines))
    made = plan(file, weight="w")
    assert made.queries.to_pylist()[0]["weight"] == 3.5
    assert made.reject_counts() == {"bad_weight": 1}


def test_a_time_without_bounds_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    lines = [f'{{"_id": "a", "text": "river", "t": {each}}}\n' for each in ("Infinity", "60")]
    file.write_text("".join(lines))
    made = plan(file, time="t", time_unit="s")
    assert made.reject_counts() == {"bad_time": 1}


def test_half_a_character_as_a_weight_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text('{"_id": "a", "text": "river", "w": "\\ud800"}\n')
    with pytest.raises(InputError, match=r"'w' of .*log\.jsonl"):
        plan(file, weight="w")
