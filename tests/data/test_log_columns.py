"""Times and weights of a log: read in the unit that is said, and left alone where nobody named
them and they are something else."""

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_batch.config import (
    CorpusConfig,
    QueriesConfig,
    digest,
    load_config,
    parse_config,
    results_settings,
)
from rerank_batch.data.corpus import Corpus, corpus_fingerprint, read_corpus
from rerank_batch.data.plan import Plan, make_plan
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.remarks import LEFT_ALONE

FIRST = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
LAST = FIRST + datetime.timedelta(seconds=60)
SECONDS = [1_767_225_600, 1_767_225_660]
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
NAMED: dict[str, dict[str, Any]] = {"ts": {"time": "ts"}, "count": {"weight": "count"}}


def plan(folder: Path, settings: dict[str, Any] | None = None, **columns: Any) -> Plan:
    """The plan of two rows of one query, ``river``, with more columns."""
    folder.mkdir(exist_ok=True)
    rows = {"query_id": ["a", "a"], "query": ["river", "river"], **columns}
    pq.write_table(pa.table(rows), folder / "log.parquet")
    return make_plan(QueriesConfig.model_validate({"path": str(folder), **(settings or {})}))


def only(made: Plan) -> dict[str, Any]:
    (planned,) = made.queries.to_pylist()
    return dict(planned)


def seen(made: Plan) -> tuple[Any, Any]:
    return only(made)["first_seen"], only(made)["last_seen"]


# --- times -----------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.float64(), pa.decimal128(21, 2)])
@pytest.mark.parametrize("named", [False, True])
def test_numbers_are_times_in_the_unit_that_is_said(
    tmp_path: Path, unit: str, kind: pa.DataType, named: bool
) -> None:
    ts = pa.array([second * UNITS[unit] for second in SECONDS]).cast(kind, safe=False)
    settings = {"time_unit": unit, **(NAMED["ts"] if named else {})}
    made = plan(tmp_path, settings, ts=ts)
    assert seen(made) == (FIRST, LAST)
    assert made.remarks == ()


def test_parts_of_a_second_are_kept(tmp_path: Path) -> None:
    made = plan(tmp_path, {"time_unit": "s"}, ts=[SECONDS[0] + 0.25, float("nan")])
    assert seen(made)[0] == FIRST + datetime.timedelta(milliseconds=250)
    made = plan(tmp_path, {"time_unit": "ns"}, ts=[SECONDS[0] * 10**9 + 1_999, None])
    assert seen(made)[0] == FIRST + datetime.timedelta(microseconds=1)


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.uint64(), pa.float64()])
def test_numbers_without_a_unit_are_no_times(tmp_path: Path, kind: pa.DataType) -> None:
    """Seconds that are taken for microseconds are times of 1970."""
    ts = pa.array(SECONDS).cast(kind)
    made = plan(tmp_path, ts=ts)
    assert seen(made) == (None, None)
    (remark,) = made.remarks
    assert (remark.section, remark.kind, remark.count) == ("queries", LEFT_ALONE, 2)
    assert f"'ts' of {tmp_path} is left alone" in remark.text
    assert "queries.time_unit to s, ms, us or ns" in remark.text
    assert "queries.time: null" in remark.text
    with pytest.raises(InputError, match=r"column 'ts' holds .*\. Set queries\.time_unit to s, ms"):
        plan(tmp_path, NAMED["ts"], ts=ts)


DAY = datetime.date(2026, 1, 1)
TYPED = {
    "with a zone": pa.array([FIRST, LAST]),
    "of another zone": pa.array([FIRST, LAST], pa.timestamp("ms", "Asia/Tokyo")),
    "without a zone": pa.array([FIRST, LAST]).cast(pa.timestamp("us")),
    "in nanoseconds": pa.array([FIRST, LAST], pa.timestamp("ns", "UTC")),
    "in seconds": pa.array([FIRST, LAST], pa.timestamp("s", "UTC")),
    "text with a zone": ["2026-01-01T00:00:00Z", "2026-01-01 02:01:00+02:00"],
    "coded text": pa.array(["2026-01-01T00:00Z", "2026-01-01T00:01Z"]).dictionary_encode(),
}


@pytest.mark.parametrize("ts", TYPED.values(), ids=TYPED)
@pytest.mark.parametrize("settings", [{}, NAMED["ts"], {"time_unit": "s"}], ids=str)
def test_times_that_say_what_they_are_need_no_unit(
    tmp_path: Path, ts: Any, settings: dict[str, Any]
) -> None:
    made = plan(tmp_path, settings, ts=ts)
    assert seen(made) == (FIRST, LAST)
    assert made.remarks == ()


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_a_day_is_its_midnight(tmp_path: Path, kind: pa.DataType) -> None:
    assert seen(plan(tmp_path, ts=pa.array([DAY, None], kind))) == (FIRST, FIRST)


NO_TIMES = {
    "text without a zone": ["2026-01-01T00:00:00", "2026-01-01T00:01:00"],
    "words": ["yesterday", "soon"],
    "one word": ["2026-01-01T00:00:00Z", "soon"],
    "nothing": ["", ""],
    "bools": [True, False],
    "lists": [[1], [2]],
    "hours": pa.array([1, 2], pa.time32("s")),
}


@pytest.mark.parametrize("ts", NO_TIMES.values(), ids=NO_TIMES)
def test_a_ts_that_holds_something_else_is_left_alone_or_refused_where_it_is_named(
    tmp_path: Path, ts: Any
) -> None:
    made = plan(tmp_path, ts=ts)
    assert seen(made) == (None, None)
    assert [(remark.kind, remark.count) for remark in made.remarks] == [(LEFT_ALONE, 2)]
    assert "queries have no times" in made.remarks[0].text
    with pytest.raises(InputError, match="column 'ts' holds no timestamps"):
        plan(tmp_path, NAMED["ts"], ts=ts)


BEYOND: dict[str, tuple[Any, dict[str, Any]]] = {
    "seconds": ([SECONDS[0], 2**62], {"time_unit": "s"}),
    "milliseconds": ([SECONDS[0] * 1000, -(2**62)], {"time_unit": "ms"}),
    "unsigned": (pa.array([SECONDS[0], 2**63 + 5], pa.uint64()), {"time_unit": "s"}),
    "unsigned nanoseconds": (
        pa.array([SECONDS[0] * 10**9, 2**63 + 5], pa.uint64()),
        {"time_unit": "ns"},
    ),
    "floats": ([SECONDS[0], 1e300], {"time_unit": "s"}),
    "infinite": ([SECONDS[0], float("inf")], {"time_unit": "s"}),
    "timestamps in seconds": (pa.array([SECONDS[0], 2**50], pa.timestamp("s")), {}),
    "timestamps": (pa.array([SECONDS[0] * 10**6, 2**62], pa.timestamp("us", "UTC")), {}),
    "days": (pa.array([20454, 2**31 - 1], pa.date32()), {}),
}


@pytest.mark.parametrize(("ts", "settings"), BEYOND.values(), ids=BEYOND)
def test_a_time_beyond_the_calendar_is_a_reject_of_a_named_column(
    tmp_path: Path, ts: Any, settings: dict[str, Any]
) -> None:
    made = plan(tmp_path, {**settings, **NAMED["ts"]}, ts=ts)
    assert made.reject_counts() == {"bad_time": 1}
    assert seen(made) == (FIRST, FIRST)
    made = plan(tmp_path, settings, ts=ts)
    assert (made.reject_counts(), seen(made)) == ({}, (None, None))
    (remark,) = made.remarks
    assert (remark.kind, remark.count) == (LEFT_ALONE, 1)
    assert "beyond the years 1 to 9999" in remark.text


# --- weights ---------------------------------------------------------------------------------

WEIGHTS = {
    "integers": pa.array([2, 3], pa.int32()),
    "floats": [2.0, 3.0],
    "wide": pa.array([2, 3], pa.uint64()),
    "decimals": pa.array([2, 3]).cast(pa.decimal128(21, 2)),
    "text": ["2", "3.0"],
    "coded": pa.array([2, 3]).dictionary_encode(),
}


@pytest.mark.parametrize("count", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("settings", [{}, NAMED["count"]], ids=str)
def test_numbers_are_weights(tmp_path: Path, count: Any, settings: dict[str, Any]) -> None:
    made = plan(tmp_path, settings, count=count)
    assert only(made)["weight"] == 5.0
    assert made.remarks == ()


@pytest.mark.parametrize("bad", [0, -1, 0.0, float("nan"), float("inf"), None])
def test_a_count_that_would_reject_rows_is_left_alone_unless_it_is_named(
    tmp_path: Path, bad: float | None
) -> None:
    """A count of results, say: that a query found nothing is no reason to leave it out."""
    made = plan(tmp_path, count=[7, bad])
    assert (only(made)["weight"], made.reject_counts()) == (2.0, {})
    (remark,) = made.remarks
    assert (remark.kind, remark.count) == (LEFT_ALONE, 1)
    assert "each row weighs 1" in remark.text
    assert "Name it with queries.weight" in remark.text
    made = plan(tmp_path, NAMED["count"], count=[7, bad])
    assert (only(made)["weight"], made.reject_counts()) == (7.0, {"bad_weight": 1})
    assert made.remarks == ()


@pytest.mark.parametrize("count", [["many", "few"], ["1", "few"], [[1], [2]], [FIRST, LAST]])
def test_a_count_of_no_numbers_is_left_alone_or_refused_where_it_is_named(
    tmp_path: Path, count: Any
) -> None:
    made = plan(tmp_path, count=count)
    assert only(made)["weight"] == 2.0
    assert [remark.kind for remark in made.remarks] == [LEFT_ALONE]
    with pytest.raises(InputError, match="column 'count' holds no numbers"):
        plan(tmp_path, NAMED["count"], count=count)


def test_only_rows_that_pass_the_filter_say_whether_a_column_fits(tmp_path: Path) -> None:
    settings = {"filter": [["shop", "==", "mine"]]}
    made = plan(tmp_path, settings, count=[5, 0], shop=["mine", "theirs"])
    assert (only(made)["weight"], made.remarks) == (5.0, ())


# --- switched off ----------------------------------------------------------------------------


def test_a_null_that_is_written_out_switches_a_column_off(tmp_path: Path) -> None:
    columns = {"ts": [FIRST, LAST], "count": [2, 3]}
    made = plan(tmp_path, {"time": None, "weight": None}, **columns)
    assert (seen(made), only(made)["weight"], made.remarks) == ((None, None), 2.0, ())
    made = plan(tmp_path, {"time": None}, **columns)
    assert (seen(made), only(made)["weight"]) == ((None, None), 5.0)


def corpus(folder: Path, titles: Any, **settings: Any) -> Corpus:
    table = pa.table({"doc_id": ["a", "b"], "text": ["one", "two"], "title": titles})
    pq.write_table(table, folder / "corpus.parquet")
    return read_corpus(CorpusConfig(path=str(folder), **settings))


def test_titles_are_switched_off_likewise_in_parquet_and_in_json(tmp_path: Path) -> None:
    titles = ["river", "stone"]
    assert corpus(tmp_path, titles).documents["title"].to_pylist() == titles
    assert corpus(tmp_path, titles, title=None).documents["title"].to_pylist() == ["", ""]
    file = tmp_path / "corpus.jsonl"
    file.write_text(json.dumps({"_id": "a", "text": "one", "title": "river"}))
    read = read_corpus(CorpusConfig(path=str(file), title=None))
    assert read.documents["title"].to_pylist() == [""]
    for path in (tmp_path / "corpus.parquet", file):
        off, on = (CorpusConfig(path=str(path), **more) for more in ({"title": None}, {}))
        assert corpus_fingerprint(off) != corpus_fingerprint(on)


@pytest.mark.parametrize("title", [[["a"], ["b"]], [{"de": "a"}, None], [1.5, 2.0], [True, False]])
def test_a_title_that_is_no_text_is_left_alone(tmp_path: Path, title: Any) -> None:
    read = corpus(tmp_path, title)
    assert read.documents["title"].to_pylist() == ["", ""]
    assert [(remark.section, remark.kind) for remark in read.remarks] == [("corpus", LEFT_ALONE)]
    assert "corpus.title: null" in read.remarks[0].text
    columns = corpus_fingerprint(CorpusConfig(path=str(tmp_path)))["columns"]
    assert columns == ["doc_id", None, "text"]
    assert corpus(tmp_path, title, title=None).remarks == ()


# --- logs that are no tables -----------------------------------------------------------------


def test_of_json_lines_named_keys_are_read_and_others_are_not(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    rows = [{"_id": "a", "text": "river", "ts": second, "count": 3} for second in SECONDS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = make_plan(QueriesConfig(path=str(file)))
    assert (only(made)["weight"], seen(made)) == (2.0, (None, None))
    named = QueriesConfig(path=str(file), time="ts", time_unit="s", weight="count")
    assert (only(make_plan(named))["weight"], seen(make_plan(named))) == (6.0, (FIRST, LAST))
    with pytest.raises(InputError, match=r"queries\.time_unit"):
        make_plan(QueriesConfig(path=str(file), time="ts"))
    with pytest.raises(InputError, match=r"no line of .* has 'when', which is named"):
        make_plan(QueriesConfig(path=str(file), time="when"))
    file.write_text(json.dumps(rows[0]) + "\n" + json.dumps({**rows[1], "ts": "soon"}) + "\n")
    with pytest.raises(InputError, match=r"'ts' of .*log\.jsonl holds values of several kinds"):
        make_plan(named)


def test_topics_and_lines_have_no_times(tmp_path: Path) -> None:
    file = tmp_path / "log.tsv"
    file.write_text("a\triver\n")
    with pytest.raises(InputError, match=r"tsv has no times and no weights; leave out queries\."):
        make_plan(QueriesConfig(path=str(file), weight="count"))
    assert only(make_plan(QueriesConfig(path=str(file), weight=None)))["weight"] == 1.0


# --- the configuration -----------------------------------------------------------------------

RAW: dict[str, Any] = {
    "corpus": {"path": "c"},
    "queries": {"path": "q"},
    "index": {"path": "i", "encoder": "sentence-transformers:m"},
}


@pytest.mark.parametrize(
    ("section", "key"), [("corpus", "title"), ("queries", "time"), ("queries", "weight")]
)
def test_null_and_nothing_stay_apart_through_copies_and_json(
    tmp_path: Path, section: str, key: str
) -> None:
    usual = parse_config(RAW)
    off = parse_config({**RAW, section: {"path": "c", key: None}})
    named = parse_config({**RAW, section: {"path": "c", key: "x"}})
    prints = {digest(results_settings(config)) for config in (usual, off, named)}
    assert len(prints) == 3
    for config in (usual, off, named):
        again = parse_config(json.loads(json.dumps(config.model_dump(mode="json"))))
        assert getattr(again, section) == getattr(config, section)
        again = config.model_copy(update={"root": "elsewhere"})
        assert digest(results_settings(again)) == digest(results_settings(config))
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(RAW))
    by_override = load_config(file, [f"{section}.{key}=null"])
    assert digest(results_settings(by_override)) == digest(results_settings(off))


def test_a_unit_changes_the_run_and_is_one_of_four() -> None:
    def identity(**more: Any) -> str:
        return digest(results_settings(parse_config({**RAW, "queries": {"path": "q", **more}})))

    assert len({identity(), identity(time_unit="s"), identity(time_unit="ms")}) == 3
    assert identity(time_unit=None) == identity()
    with pytest.raises(ConfigError, match=r"queries\.time_unit: .*'us' or 'ns' \(got 'min'\)"):
        identity(time_unit="min")
