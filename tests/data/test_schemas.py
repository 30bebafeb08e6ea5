"""Several files with several schemas: read as one table, or refused with the names of two."""

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rerank_batch.config import ClicksConfig, CorpusConfig, OutcomesConfig, QueriesConfig
from rerank_batch.data.clicks import read_clicks
from rerank_batch.data.corpus import corpus_fingerprint, read_corpus
from rerank_batch.data.outcomes import read_outcomes
from rerank_batch.data.parquet import ParquetTable
from rerank_batch.data.plan import Plan, make_plan
from rerank_batch.data.values import as_strings
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.evaluation.segments.columns import check_segments, read_segments
from rerank_batch.remarks import IN_SOME_FILES

NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)


def write(folder: Path, *files: dict[str, Any], names: str = "abcdef") -> Path:
    """One file per mapping of columns, in the order of their names."""
    for name, columns in zip(names, files, strict=False):
        file = folder / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), file)
    return folder


def nulls(number: int = 1) -> pa.Array:
    """What pandas makes of a column without any value: nulls of no type."""
    return pa.nulls(number)


def values(folder: Path, column: str, filter: tuple[Any, ...] = ()) -> list[Any]:
    table = ParquetTable(str(folder), "queries")
    table.column(column, required=False)
    return [row["x"] for b in table.batches({"x": column}, filter) for row in b.to_pylist()]


def texts(folder: Path, column: str) -> list[str | None]:
    batches = ParquetTable(str(folder), "queries").batches({"x": column})
    return [text for b in batches for text in as_strings(b.column("x"), "x")[0].to_pylist()]


# --- types that are one kind -----------------------------------------------------------------

WORDS = pa.array(["river", None, "stone"])


@pytest.mark.parametrize("first", range(7))
def test_every_way_to_write_a_text_is_one_kind(tmp_path: Path, first: int) -> None:
    ways = [
        WORDS,
        WORDS.cast(pa.large_string()),
        WORDS.cast(pa.string_view()),
        WORDS.dictionary_encode(),
        WORDS.cast(pa.binary()),
        WORDS.cast(pa.large_binary()),
        nulls(3),
    ]
    files = [{"x": way} for way in (*ways[first:], *ways[:first])]
    folder = write(tmp_path, *files, names="abcdefg")
    found = [text for text in texts(folder, "x") if text is not None]
    assert found == ["river", "stone"] * 6


def test_numbers_of_any_width_go_together_and_keep_their_digits(tmp_path: Path) -> None:
    """2**53 + 1 is no float64: an id of that many digits must not come to another one's place."""
    odd = 2**53 + 1
    files: list[dict[str, Any]] = [
        {"x": nulls()},
        {"x": pa.array([7], pa.int32())},
        {"x": pa.array([odd], pa.int64())},
        {"x": pa.array([2**63 + 1], pa.uint64())},
        {"x": pa.array([0.5, 7.0])},
    ]
    assert values(write(tmp_path, *files), "x") == [None, 7, odd, 2**63 + 1, 0.5, 7.0]


def test_times_of_any_unit_and_days_go_together(tmp_path: Path) -> None:
    naive = NOON.replace(tzinfo=None)
    units = [{"x": pa.array([naive], pa.timestamp(unit))} for unit in ("ns", "s", "us", "ms")]
    days = {"x": pa.array([naive.date()])}
    midnight = naive.replace(hour=0)
    assert values(write(tmp_path / "t", days, *units), "x") == [midnight, *[naive] * 4]
    zones = [{"x": pa.array([NOON], pa.timestamp("us", zone))} for zone in ("UTC", "Asia/Tokyo")]
    assert values(write(tmp_path / "z", *zones), "x") == [NOON, NOON]


def test_lists_go_together_where_their_values_do(tmp_path: Path) -> None:
    files = [{"x": pa.array([[]], pa.list_(pa.null()))}, {"x": [["a"]]}]
    assert values(write(tmp_path, *files), "x") == [[], ["a"]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param([1], ["007"], id="integers and text"),
        pytest.param(["007"], [1], id="text and integers"),
        pytest.param([1.5], ["007"], id="floats and text"),
        pytest.param([True], [1], id="bools and integers"),
        pytest.param([["a"]], ["a"], id="lists and text"),
        pytest.param([["a"]], [[1]], id="lists of text and of integers"),
        pytest.param([NOON], [NOON.replace(tzinfo=None)], id="a zone and none"),
        pytest.param([NOON], [NOON.date()], id="a zone and days"),
        pytest.param([NOON], [1], id="times and integers"),
        pytest.param([{"a": 1}], ["a"], id="structs and text"),
    ],
)
def test_what_is_of_different_kinds_is_refused_with_the_column_and_two_files(
    tmp_path: Path, one: list[Any], other: list[Any]
) -> None:
    folder = write(tmp_path, {"x": nulls()}, {"x": one}, {"x": one}, {"x": other})
    told = r"queries: column 'x' is .* in .*b\.parquet and .* in .*d\.parquet"
    with pytest.raises(InputError, match=told):
        ParquetTable(str(folder), "queries").column("x")
    with pytest.raises(InputError, match=told):
        values(folder, "x")


def test_a_column_that_is_not_read_may_be_anything(tmp_path: Path) -> None:
    files = [{"x": ["a"], "y": [1]}, {"x": ["b"], "y": ["one"]}, {"x": ["c"]}]
    folder = write(tmp_path, *files)
    assert values(folder, "x") == ["a", "b", "c"]
    with pytest.raises(InputError, match="'y' is int64"):
        values(folder, "x", (("y", "==", 1),))


def test_a_file_without_rows_has_no_say(tmp_path: Path) -> None:
    empty: dict[str, Any] = {"x": pa.array([], pa.int64()), "more": pa.array([], pa.string())}
    table = ParquetTable(str(write(tmp_path, empty, {"x": ["007"]}, {"y": nulls(0)})), "queries")
    assert table.column("x") == "x"
    assert table.columns == ["x"]
    assert table.remarks == ()
    assert [b.to_pylist() for b in table.batches({"x": "x"})] == [[{"x": "007"}]]


# --- columns that some files lack ------------------------------------------------------------


def test_a_required_column_that_a_file_lacks_is_refused_with_both_files(tmp_path: Path) -> None:
    for first, second in ((["x"], ["y"]), (["y"], ["x"]), (["x", "y"], ["y"])):
        folder = tmp_path / "".join([*first, "-", *second])
        write(folder, *({name: ["a"] for name in names} for names in (first, second)))
        lacking, having = ("a", "b") if "x" not in first else ("b", "a")
        told = rf"{lacking}\.parquet lacks 'x', which .*{having}\.parquet has"
        with pytest.raises(InputError, match=told):
            ParquetTable(str(folder), "corpus").column(None, "x")
        with pytest.raises(InputError, match=told):
            list(ParquetTable(str(folder), "corpus").batches({"x": "x"}))


def test_an_optional_column_that_some_files_lack_is_null_there_and_remarked_on(
    tmp_path: Path,
) -> None:
    folder = write(tmp_path, {"id": ["1"]}, {"id": ["2"], "x": ["two"]}, {"id": ["3"]})
    table = ParquetTable(str(folder), "corpus")
    assert table.column(None, "x", required=False) == "x"
    rows = [row for b in table.batches({"id": "id", "x": "x"}) for row in b.to_pylist()]
    assert [row["x"] for row in rows] == [None, "two", None]
    (remark,) = table.remarks
    assert (remark.section, remark.kind, remark.count) == ("corpus", IN_SOME_FILES, 2)
    assert "column 'x' is in 1 of 3 files; " in remark.text
    assert "a.parquet lacks it" in remark.text


@pytest.mark.parametrize(
    ("term", "kept"),
    [
        (("n", ">=", 2), "bc"),
        (("n", ">=", 2.5), "c"),
        (("n", "==", 2), "b"),
        (("n", "in", [2, 3]), "bc"),
        (("n", "!=", 2), "c"),
        (("n", "not in", [2]), "acd"),
    ],
)
def test_a_filter_reads_a_column_of_several_types_or_of_some_files(
    tmp_path: Path, term: tuple[Any, ...], kept: str
) -> None:
    two = pa.array([2], pa.int32())
    files = [{"x": ["a"]}, {"x": ["b"], "n": two}, {"x": ["c"], "n": [3.0]}, {"x": ["d"]}]
    files[3]["n"] = nulls()
    folder = write(tmp_path, *files)
    assert "".join(values(folder, "x", (term,))) == kept
    table = ParquetTable(str(folder), "queries")
    list(table.batches({"x": "x"}, (term,)))
    (remark,) = table.remarks
    assert (remark.kind, remark.count) == (IN_SOME_FILES, 1)
    assert "column 'n' is in 3 of 4 files" in remark.text
    assert "only 'not in' lets them pass" in remark.text


def test_folders_are_columns_whatever_the_files_hold(tmp_path: Path) -> None:
    names = [f"day=2026-01-0{day}/part" for day in (1, 2, 3)]
    files = [{"x": ["a"]}, {"x": WORDS.slice(0, 1).dictionary_encode(), "n": [5]}, {"x": ["c"]}]
    for name, columns in zip(names, files, strict=True):
        write(tmp_path, columns, names=[name])  # type: ignore[arg-type]
    assert ParquetTable(str(tmp_path), "queries").columns == ["x", "n", "day"]
    assert values(tmp_path, "day") == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert values(tmp_path, "x", (("day", ">", "2026-01-01"),)) == ["river", "c"]
    write(tmp_path, {"x": ["top"]})
    assert values(tmp_path, "day")[0] is None


# --- the plan --------------------------------------------------------------------------------


def plan(folder: Path, **settings: Any) -> Plan:
    return make_plan(QueriesConfig.model_validate({"path": str(folder), **settings}))


def weights(made: Plan) -> dict[str, float]:
    return {row["query_id"]: row["weight"] for row in made.queries.to_pylist()}


def test_three_files_with_three_schemas_are_one_log(tmp_path: Path) -> None:
    """The first knows neither times nor weights, the second no weight, the last has it all."""
    naive = NOON.replace(tzinfo=None)
    first = {"query_id": ["a", "b"], "query": ["river", "stone"], "count": nulls(2)}
    second = {
        "query_id": pa.array(["c"]).dictionary_encode(),
        "query": pa.array(["garden"], pa.large_string()),
        "ts": pa.array([naive], pa.timestamp("ns")),
    }
    third = {
        "query": ["winter", "river"],
        "ts": pa.array([naive, naive], pa.timestamp("s")),
        "count": [900, 5],
        "query_id": ["d", "a"],
    }
    made = plan(write(tmp_path, first, second, third))
    assert weights(made) == {"a": 6.0, "b": 1.0, "c": 1.0, "d": 900.0}
    assert made.rejects.num_rows == 0
    seen = {row["query_id"]: row["first_seen"] for row in made.queries.to_pylist()}
    assert seen == {"a": NOON, "b": None, "c": NOON, "d": NOON}
    told = {remark.text.split("'")[1]: remark for remark in made.remarks}
    assert set(told) == {"ts", "count"}
    assert "'ts' is in 2 of 3 files" in told["ts"].text
    assert "'count' is in 1 of 3 files" in told["count"].text
    assert "each row of it weighs 1" in told["count"].text
    assert {remark.section for remark in made.remarks} == {"queries"}


def test_weights_of_every_width_add_up(tmp_path: Path) -> None:
    counts = [pa.array([2], pa.int32()), pa.array([2**40]), pa.array([0.5]), nulls()]
    files = [{"query_id": ["a"], "query": ["river"], "count": count} for count in counts]
    for order in (files, files[::-1]):
        folder = tmp_path / str(order is files)
        assert weights(plan(write(folder, *order))) == {"a": 2 + 2**40 + 0.5 + 1}


def test_ids_of_two_kinds_are_refused(tmp_path: Path) -> None:
    files = [
        {"query_id": [1, 2], "query": ["river", "stone"]},
        {"query_id": ["007", "008"], "query": ["garden", "winter"]},
    ]
    with pytest.raises(
        InputError, match=r"'query_id' is int64 in .*a\.parquet and string in .*b\."
    ):
        plan(write(tmp_path, *files))


def test_a_usual_column_that_does_not_fit_together_is_refused_or_switched_off(
    tmp_path: Path,
) -> None:
    """Times with a zone and times without: which hour the latter mean nobody says."""
    file = {"query_id": ["a"], "query": ["river"]}
    times: list[Any] = [[NOON], [NOON.replace(tzinfo=None)]]
    folder = write(tmp_path, *({**file, "ts": ts} for ts in times))
    with pytest.raises(InputError, match=r"'ts' is timestamp.* in .*a\.parquet.* or say null"):
        plan(folder)
    assert weights(plan(folder, time=None)) == {"a": 2.0}


def test_files_of_one_schema_are_planned_as_before_and_without_a_remark(tmp_path: Path) -> None:
    file = {"query_id": ["a", "b"], "query": ["river", "stone"], "count": [2, 3], "ts": [NOON] * 2}
    made = plan(write(tmp_path, file, file))
    assert made.remarks == ()
    seen = {"first_seen": NOON, "last_seen": NOON, "flags": []}
    assert made.queries.to_pylist() == [
        {"qidx": n, "query_id": name, "query_ids": [name], "query": text, "weight": weight, **seen}
        for n, (name, text, weight) in enumerate([("a", "river", 4.0), ("b", "stone", 6.0)])
    ]


# --- the corpus ------------------------------------------------------------------------------


def test_titles_that_only_later_files_have_are_read(tmp_path: Path) -> None:
    files = [
        {"doc_id": ["a"], "text": ["first"]},
        {"doc_id": ["b"], "text": ["second"], "title": ["garden"]},
        {"doc_id": ["c"], "text": ["third"], "title": nulls()},
    ]
    for order in (files, files[::-1]):
        folder = write(tmp_path / str(order is files), *order)
        corpus = read_corpus(CorpusConfig(path=str(folder)))
        assert corpus.documents["title"].to_pylist() == ["", "garden", ""]
        (remark,) = corpus.remarks
        assert (remark.section, remark.kind, remark.count) == ("corpus", IN_SOME_FILES, 1)
        columns = corpus_fingerprint(CorpusConfig(path=str(folder)))["columns"]
        assert columns == ["doc_id", "title", "text"]


def test_documents_with_ids_of_two_kinds_are_refused(tmp_path: Path) -> None:
    files: list[dict[str, Any]] = [
        {"doc_id": [42], "text": ["first"]},
        {"doc_id": ["0042"], "text": ["second"]},
    ]
    with pytest.raises(InputError, match="'doc_id' is int64"):
        read_corpus(CorpusConfig(path=str(write(tmp_path, *files))))


def test_of_json_a_title_may_be_missing_and_an_id_may_not(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_text('{"_id": "a", "text": "one"}\n{"_id": "b", "text": "two", "title": "t"}\n')
    assert read_corpus(CorpusConfig(path=str(file))).documents["title"].to_pylist() == ["", "t"]
    file.write_text('{"_id": "a", "text": "one"}\n{"text": "two"}\n')
    with pytest.raises(InputError, match="document 2 lacks '_id'"):
        read_corpus(CorpusConfig(path=str(file)))


# --- other tables ----------------------------------------------------------------------------


def test_a_segment_that_some_files_lack_has_rows_without_a_value(tmp_path: Path) -> None:
    files: list[dict[str, Any]] = [
        {"query_id": ["1"], "query": ["sort"]},
        {"query_id": ["1"], "query": ["sort"], "channel": ["web"]},
    ]
    config = QueriesConfig(path=str(write(tmp_path, *files)))
    (remark,) = check_segments(config, ["channel"])
    assert remark.kind == IN_SOME_FILES
    found = read_segments(config, ["channel"], [["1"]])["channel"]
    assert (found.values, found.weight.tolist()) == ((None, "web"), [1.0, 1.0])
    write(tmp_path, {"query_id": ["2"], "query": ["find"], "channel": [3]}, names="c")
    with pytest.raises((InputError, ConfigError), match="'channel' is string"):
        check_segments(config, ["channel"])


def test_impressions_of_a_file_without_a_count_are_one_each(tmp_path: Path) -> None:
    shown = {"query_id": ["q"] * 2, "doc_id": ["d"] * 2, "position": [1, 1], "clicked": [1, 0]}
    folder = write(tmp_path, shown, {**shown, "count": [5, 15]})
    labels = read_clicks(ClicksConfig(path=str(folder)))
    assert (labels.facts.impressions, labels.facts.clicks, labels.facts.rejects) == (22, 6, {})
    (remark,) = labels.remarks
    assert "each row of it counts once" in remark.text
    write(tmp_path, {**shown, "query": ["x"] * 2, "query_id": [1, 1]}, names="c")
    with pytest.raises(InputError, match="'query_id' is string"):
        read_clicks(ClicksConfig(path=str(folder)))
    write(tmp_path, {**{k: v for k, v in shown.items() if k != "query_id"}}, names="c")
    with pytest.raises(InputError, match=r"c\.parquet lacks 'query_id'"):
        read_clicks(ClicksConfig(path=str(folder)))


def test_outcomes_are_numbers_of_any_width(tmp_path: Path) -> None:
    names = {"query_id": ["q"], "system": ["best"], "outcome": ["solved"]}
    files = [{**names, "value": [1]}, {**names, "value": [0.5]}]
    found = read_outcomes(OutcomesConfig(path=str(write(tmp_path, *files))))
    assert found.table["value"].to_pylist() == [1.0, 0.5]
    assert found.remarks == ()
