"""Columns of the log: a query's values weigh together what the plan says of the query."""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.config import QueriesConfig
from rerank_batch.data.plan import make_plan
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.evaluation.segments import columns as module
from rerank_batch.evaluation.segments.columns import NOT_UTF8, check_segments, read_segments
from rerank_batch.evaluation.segments.groupings import ColumnValues
from tests.support.helpers import broken_strings, write_parquet

Row = dict[str, Any]
KINDS = {
    "query_id": pa.string(),
    "query": pa.string(),
    "count": pa.float64(),
    "channel": pa.string(),
    "shop": pa.int64(),
}


def row(query_id: str | None, query: str | None, channel: str | None = "web", **more: Any) -> Row:
    return {"query_id": query_id, "query": query, "channel": channel, **more}


def write_log(folder: Path, *files: Sequence[Row], under: str = "{}.parquet") -> QueriesConfig:
    for number, rows in enumerate(files):
        named = {name for each in rows for name in each}
        kinds = pa.schema([field for field in KINDS.items() if field[0] in named])
        write_parquet(folder / under.format(number), list(rows), schema=kinds)
    return QueriesConfig(path=str(folder))


def found(values: ColumnValues) -> list[tuple[int, str | None, float]]:
    """Entries as (query, value, weight)."""
    entries = zip(values.query, values.value, values.weight, strict=True)
    return [(int(query), values.values[value], float(weight)) for query, value, weight in entries]


# --- the same rows as the plan ---------------------------------------------------------------

LOGS = st.lists(
    st.builds(
        row,
        st.none() | st.sampled_from(["", *map(str, range(6))]),
        st.sampled_from(["sort", " SORT", "find", "", " ", None, "ﬁnd", "x" * 40, "x" * 50]),
        st.sampled_from(["web", "app", None, "ﬁnd"]),
        shop=st.none() | st.integers(-1, 12),
        count=st.sampled_from([1.0, 2.5, 0.1, 0.0, -1.0, math.nan, None]),
    ),
    max_size=25,
)
CLEAN = row("clean", "clean", shop=1, count=2.0)


@given(LOGS, st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_weights_of_a_querys_values_add_up_to_its_weight_in_the_plan(
    rows: list[Row], dedupe: bool, several_files: bool
) -> None:
    """Of a log as dirty as it may be: broken rows, and ids that stand for several texts."""
    rows = [CLEAN, *rows]
    half = len(rows) // 2 if several_files else 0
    with tempfile.TemporaryDirectory() as folder:
        config = write_log(Path(folder), *(part for part in (rows[:half], rows[half:]) if part))
        setting = {"dedupe": dedupe, "duplicates": "first", "max_chars": 45, "weight": "count"}
        config = config.model_copy(update=setting)
        planned = make_plan(config).queries
        columns = read_segments(config, ["channel", "shop"], planned["query_ids"].to_pylist())
    for name in ("channel", "shop"):
        entries = found(columns[name])
        assert len({entry[:2] for entry in entries}) == len(entries)
        for place, weight in enumerate(planned["weight"].to_pylist()):
            mine = [each[2] for each in entries if each[0] == place]
            assert math.fsum(mine) == pytest.approx(weight)
    there = {None if each["channel"] is None else each["channel"] for each in rows}
    assert set(columns["channel"].values) <= there


def test_a_query_has_the_values_of_all_its_ids_with_their_weights(tmp_path: Path) -> None:
    rows = [row("1", "sort", "web"), row("1", "sort", "app"), row("1", "Sort", "web")]
    rows += [row("2", "SORT", "app"), row("3", "find", None), row("4", "other", "tv")]
    rows += [row("1", None, "broken")]
    config = write_log(tmp_path, rows)
    columns = read_segments(config, ["channel"], [["3"], ["1", "2"], [], ["gone"]])
    assert found(columns["channel"]) == [(0, None, 1.0), (1, "app", 2.0), (1, "web", 2.0)]
    assert columns["channel"].values == (None, "app", "web")


def test_of_an_id_with_several_texts_the_first_counts_as_in_the_plan(tmp_path: Path) -> None:
    one = [row("1", None, "tv"), row("1", "sort"), row("1", "find", "tv"), row("1", "sort")]
    other = [row("1", "find"), row("1", "sort", "app"), row("2", "x")]
    config = write_log(tmp_path, one, other).model_copy(update={"duplicates": "first"})
    assert make_plan(config).queries["query"].to_pylist() == ["sort", "x"]
    columns = read_segments(config, ["channel"], [["1"], ["2"]])
    assert found(columns["channel"]) == [(0, "app", 1.0), (0, "web", 2.0), (1, "web", 1.0)]


def test_partitions_of_the_folder_are_columns_too(tmp_path: Path) -> None:
    files = [[row("1", "sort")], [row("1", "sort"), row("2", "find")]]
    config = write_log(tmp_path, *files, under="date=2026-01-0{}/part.parquet")
    columns = read_segments(config, ["date", "channel"], [["1"], ["2"]])
    assert found(columns["date"]) == [
        (0, "2026-01-00", 1.0),
        (0, "2026-01-01", 1.0),
        (1, "2026-01-01", 1.0),
    ]
    assert found(columns["channel"]) == [(0, "web", 2.0), (1, "web", 1.0)]


def test_the_filter_of_the_log_holds_here_as_well(tmp_path: Path) -> None:
    rows = [row("1", "sort", "web", shop=1), row("1", "sort", "app", shop=2)]
    config = write_log(tmp_path, rows).model_copy(update={"filter": (("shop", ">", 1),)})
    assert found(read_segments(config, ["channel"], [["1"]])["channel"]) == [(0, "app", 1.0)]


def test_a_segment_may_be_a_column_that_is_read_for_something_else(tmp_path: Path) -> None:
    config = write_log(tmp_path, [row("1", "sort", count=2.0), row("1", "sort", count=3.0)])
    columns = read_segments(config, ["count", "query"], [["1"]])
    assert found(columns["count"]) == [(0, "2", 2.0), (0, "3", 3.0)]
    assert found(columns["query"]) == [(0, "sort", 5.0)]


def test_a_value_that_is_no_text_is_told_apart_from_none(tmp_path: Path) -> None:
    channels = broken_strings([b"web", b"\xff\xfe", None])
    table = pa.table({"query_id": ["1"] * 3, "query": ["sort"] * 3, "channel": channels})
    pq.write_table(table, tmp_path / "log.parquet")
    config = QueriesConfig(path=str(tmp_path))
    entries = found(read_segments(config, ["channel"], [["1"]])["channel"])
    assert entries == [(0, None, 1.0), (0, NOT_UTF8, 1.0), (0, "web", 1.0)]


def test_a_log_without_any_of_the_queries_has_no_values(tmp_path: Path) -> None:
    config = write_log(tmp_path, [row("1", "sort")])
    for ids in ([["2"]], [[]], []):
        columns = read_segments(config, ["channel"], ids)
        assert columns["channel"].values == ()
        assert len(columns["channel"].query) == 0
    assert read_segments(config, [], [["1"]]) == {}


def test_compacting_on_the_way_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spelt = ["web", "app", None]
    files = [
        [row(f"{n % 7}", f"query {n % 7}", spelt[n % 3]) for n in range(k, 99, 4)] for k in range(4)
    ]
    config = write_log(tmp_path, *files)
    ids = [[f"{n}"] for n in range(7)]
    whole = read_segments(config, ["channel"], ids)
    monkeypatch.setattr(module, "_COMPACT_ROWS", 5)
    again = read_segments(config, ["channel"], ids)
    assert found(whole["channel"]) == found(again["channel"])
    assert sum(weight for _, _, weight in found(again["channel"])) == 99


# --- what cannot be read ---------------------------------------------------------------------


def test_a_column_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    config = write_log(tmp_path, [row("1", "sort")], under="day={}/log.parquet")
    with pytest.raises(ConfigError) as error:
        check_segments(config, ["channel", "chanel", "device"])
    assert "no column 'chanel', 'device'; it has query_id, query, channel, day" in str(error.value)
    with pytest.raises(ConfigError, match="no column 'device'"):
        read_segments(config, ["device"], [["1"]])


@pytest.mark.parametrize(
    ("file", "text", "format"),
    [
        ("log.jsonl", '{"_id": "1", "text": "sort"}\n', "beir"),
        ("log.tsv", "1\tsort\n", "tsv"),
        ("topics.txt", "<top>\n<num> 1\n<title> sort\n</top>\n", "trec-topics"),
    ],
)
def test_only_parquet_logs_have_columns(tmp_path: Path, file: str, text: str, format: str) -> None:
    (tmp_path / file).write_text(text)
    config = QueriesConfig(path=str(tmp_path / file), format=format)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"Parquet log; .*{file} is {format}"):
        check_segments(config, ["channel"])
    check_segments(config, [])


def test_segments_need_a_log() -> None:
    with pytest.raises(ConfigError, match=r"needs queries\.path"):
        check_segments(None, ["channel"])
    check_segments(None, [])


def test_a_log_that_is_not_there_is_told_as_everywhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        check_segments(QueriesConfig(path=str(tmp_path / "nowhere")), ["channel"])


def test_a_column_of_lists_is_no_segment(tmp_path: Path) -> None:
    write_parquet(tmp_path / "log.parquet", [{"query_id": "1", "query": "sort", "tags": ["a"]}])
    with pytest.raises(ConfigError, match="column 'tags' of the log is list"):
        read_segments(QueriesConfig(path=str(tmp_path)), ["tags"], [["1"]])
