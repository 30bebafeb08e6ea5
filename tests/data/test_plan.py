"""The plan: every log row in exactly one place, and the same plan whatever the order."""

import datetime
import math
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch import schema
from rerank_batch.config import QueriesConfig
from rerank_batch.data import parquet as tables
from rerank_batch.data import plan as plan_module
from rerank_batch.data.plan import QUERY_CUT, Plan, make_plan
from rerank_batch.errors import InputError
from tests.support.helpers import broken_strings, write_parquet

Row = dict[str, Any]
SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("query", pa.string()),
        ("ts", pa.timestamp("us", tz="UTC")),
        ("count", pa.float64()),
    ]
)


def row(query_id: str | None, query: str | None, **more: Any) -> Row:
    return {"query_id": query_id, "query": query, **more}


def write_log(folder: Path, *files: Sequence[Row]) -> Path:
    for number, rows in enumerate(files):
        names = {name for r in rows for name in r} or {"query_id", "query"}
        kinds = pa.schema([field for field in SCHEMA if field.name in names])
        write_parquet(folder / f"{number}.parquet", list(rows), schema=kinds)
    return folder


def plan(folder: Path, *files: Sequence[Row], judged: Sequence[str] = (), **config: Any) -> Plan:
    write_log(folder, *files)
    return make_plan(QueriesConfig(path=str(folder), **config), judged)


def only(made: Plan) -> Row:
    (planned,) = made.queries.to_pylist()
    return dict(planned)


def same(one: Plan, other: Plan) -> bool:
    return (
        one.queries.equals(other.queries)
        and one.rejects.equals(other.rejects)
        and one.log_rows == other.log_rows
    )


# --- every row in one place ------------------------------------------------------------------

SPELLINGS = [
    "how to sort",
    "How  to sort",
    "\thow to\u00a0sort ",
    "ｈｏｗ ｔｏ ｓｏｒｔ",
    "HOW TO\u3000SORT",
]
TEXTS = st.one_of(
    st.sampled_from([*SPELLINGS, "", " ", "\u3000\u00a0", None, "sort", "ﬁt", "fit", "x" * 50]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
DIRTY_LOGS = st.lists(
    st.builds(row, st.none() | st.sampled_from(["", *map(str, range(12))]), TEXTS), max_size=25
)
CLEAN = row("clean", "a clean row")
DAYS = [datetime.datetime(2026, 1, day, tzinfo=datetime.UTC) for day in range(1, 6)]


def one_spelling_per_id(rows: Sequence[Row]) -> list[Row]:
    """The log without rows whose id stood for another text before."""
    first: dict[str | None, str | None] = {}
    return [r for r in rows if first.setdefault(r["query_id"], r["query"]) == r["query"]]


@given(DIRTY_LOGS, st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_log_row_is_planned_or_rejected_and_never_both(
    rows: list[Row], several_files: bool
) -> None:
    rows = [CLEAN, *one_spelling_per_id(rows)]
    half = len(rows) // 2 if several_files else 0
    files = [part for part in (rows[:half], rows[half:]) if part]
    with tempfile.TemporaryDirectory() as folder:
        made = plan(Path(folder), *files)
    made.queries.validate(full=True)
    assert made.queries.schema == schema.PLAN
    assert made.rejects.schema == schema.REJECTS
    assert made.log_rows == len(rows)
    planned = math.fsum(made.queries["weight"].to_pylist())
    assert planned + sum(made.rejects["rows"].to_pylist()) == len(rows)
    assert sum(made.reject_counts().values()) == len(rows) - planned
    assert made.queries["qidx"].to_pylist() == list(range(made.queries.num_rows))
    names = made.queries["query_id"].to_pylist()
    assert names == sorted(set(names))
    aliases = [alias for ids in made.queries["query_ids"].to_pylist() for alias in ids]
    assert len(aliases) == len(set(aliases))
    assert set(aliases) <= {r["query_id"] for r in rows}
    texts = [query.lower() for query in made.queries["query"].to_pylist()]
    assert len(texts) == len(set(texts))


def test_keeping_the_first_of_conflicting_ids_still_accounts_for_every_row(tmp_path: Path) -> None:
    rows = [row("1", "one"), row("1", "uno"), row("1", "un"), row("2", "two")]
    made = plan(tmp_path, rows, duplicates="first")
    planned = sum(made.queries["weight"].to_pylist())
    assert planned + sum(made.rejects["rows"].to_pylist()) == made.log_rows == len(rows)


@pytest.mark.parametrize(
    ("bad", "reason", "named"),
    [
        ((b"\xff1", b"fine", 1.0), "invalid_query_id", None),
        ((None, b"fine", 1.0), "missing_query_id", None),
        ((b"", b"fine", 1.0), "missing_query_id", ""),
        ((b"bad", b"a\xc3(", 1.0), "invalid_utf8", "bad"),
        ((b"bad", None, 1.0), "null_query", "bad"),
        ((b"bad", b"", 1.0), "empty_query", "bad"),
        ((b"bad", b" \t\xc2\xa0\xe3\x80\x80\n", 1.0), "blank_query", "bad"),
        ((b"bad", b"fine", 0.0), "bad_weight", "bad"),
        ((b"bad", b"fine", -1.0), "bad_weight", "bad"),
        ((b"bad", b"fine", float("nan")), "bad_weight", "bad"),
        ((b"bad", b"fine", float("inf")), "bad_weight", "bad"),
        ((b"bad", b"fine", None), "bad_weight", "bad"),
    ],
)
def test_each_kind_of_bad_row_has_its_reason(
    tmp_path: Path, bad: tuple[Any, Any, Any], reason: str, named: str | None
) -> None:
    ids, texts, counts = zip((b"good", b"good query", 2.0), bad, bad, strict=True)
    columns = [broken_strings(ids), broken_strings(texts), pa.array(counts, pa.float64())]
    table = pa.table(columns, names=["query_id", "query", "count"])
    pq.write_table(table, tmp_path / "log.parquet")
    made = make_plan(QueriesConfig(path=str(tmp_path), weight="count"))
    assert only(made)["query_id"] == "good"
    assert made.rejects.to_pylist() == [
        {"qidx": None, "query_id": named, "reason": reason, "rows": 2, "query": None}
    ]
    assert made.reject_counts() == {reason: 2}


def test_rejects_hold_no_query_text(tmp_path: Path) -> None:
    secret = "my private question"
    rows = [CLEAN, row("a", secret, count=0.0), row(None, secret), row("", f"{secret} again")]
    made = plan(tmp_path, [{"count": 1.0, **r} for r in rows], weight="count")
    assert made.log_rows - made.queries.num_rows == 3
    assert "private" not in str(made.rejects.to_pylist())
    assert made.rejects.column_names == ["qidx", "query_id", "reason", "rows", "query"]
    assert made.rejects["query"].null_count == made.rejects.num_rows == 3


def test_rejects_hold_the_query_text_where_that_is_asked(tmp_path: Path) -> None:
    rows = [CLEAN, row("a", "mine", count=0.0), row("a", "mine", count=-1.0), row("b", None)]
    settings = {"weight": "count", "keep_rejected_texts": True}
    made = plan(tmp_path, [{"count": 1.0, **r} for r in rows], **settings)
    kept = {r["query_id"]: (r["reason"], r["rows"], r["query"]) for r in made.rejects.to_pylist()}
    assert kept == {"a": ("bad_weight", 2, "mine"), "b": ("null_query", 1, None)}
    assert made.rejects.schema == schema.REJECTS
    assert made.queries["query"].to_pylist() == ["a clean row"]


def test_the_texts_left_out_by_keeping_the_first_are_kept_where_that_is_asked(
    tmp_path: Path,
) -> None:
    rows = [row("1", "one"), row("1", "uno"), row("2", "two")]
    settings = {"duplicates": "first", "keep_rejected_texts": True}
    (rejected,) = plan(tmp_path, rows, **settings).rejects.to_pylist()
    assert (rejected["query_id"], rejected["query"]) == ("1", "uno")


def test_a_log_without_a_usable_query_is_refused_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of .* can be used \(empty_query, null_query\)"):
        plan(tmp_path, [row("1", ""), row("2", None)])
    with pytest.raises(InputError, match=r"no row of .* passes the filter"):
        plan(tmp_path, [row("1", "one")], filter=[("query_id", "==", "2")])


# --- merging ---------------------------------------------------------------------------------


def test_spellings_of_one_query_become_one_with_all_ids_and_their_weight(tmp_path: Path) -> None:
    rows = [
        row(f"q{number}", text, count=2.0**number, ts=DAYS[(number + 2) % 5])
        for number, text in enumerate(SPELLINGS)
    ]
    planned = only(plan(tmp_path, rows[::-1]))
    assert planned["query_id"] == "q0"
    assert planned["query_ids"] == ["q0", "q1", "q2", "q3", "q4"]
    assert planned["query"] == "how to sort"
    assert planned["weight"] == 31.0
    assert (planned["first_seen"], planned["last_seen"]) == (DAYS[0], DAYS[4])
    assert planned["flags"] == []


def test_rows_of_one_id_and_text_count_each(tmp_path: Path) -> None:
    first = [row("q", "sort", ts=DAYS[day]) for day in (2, 1, 3)]
    second = [row("q", "sort ", ts=time) for time in (DAYS[2], None)]
    planned = only(plan(tmp_path, first, second))
    assert planned["query_ids"] == ["q"]
    assert planned["weight"] == 5.0
    assert (planned["first_seen"], planned["last_seen"]) == (DAYS[1], DAYS[3])


def test_different_queries_stay_apart(tmp_path: Path) -> None:
    made = plan(tmp_path, [row("2", "C"), row("10", "C++"), row("1", "C#"), row("3", "c sharp")])
    assert made.queries["query_id"].to_pylist() == ["1", "10", "2", "3"]
    assert made.queries["query"].to_pylist() == ["C#", "C++", "C", "c sharp"]


def test_a_log_without_times_has_none(tmp_path: Path) -> None:
    planned = only(plan(tmp_path, [row("q", "sort")]))
    assert planned["first_seen"] is None
    assert planned["last_seen"] is None


def test_times_as_pandas_writes_them_are_fine(tmp_path: Path) -> None:
    """Nanoseconds, without a zone: the default of pandas."""
    stamps = pa.array([1_767_225_600_000_000_001], pa.timestamp("ns"))
    table = pa.table({"query_id": ["q"], "query": ["sort"], "ts": stamps})
    pq.write_table(table, tmp_path / "log.parquet")
    assert only(make_plan(QueriesConfig(path=str(tmp_path))))["first_seen"] == DAYS[0]


@pytest.mark.parametrize(("setting", "wanted"), [("time", "timestamps"), ("weight", "numbers")])
def test_a_time_or_weight_of_another_kind_is_an_input_error(
    tmp_path: Path, setting: str, wanted: str
) -> None:
    write_parquet(tmp_path / "log.parquet", [{"query_id": "q", "query": "sort", "note": "soon"}])
    with pytest.raises(InputError, match=f"holds no {wanted}"):
        make_plan(QueriesConfig.model_validate({"path": str(tmp_path), setting: "note"}))


# --- order and batches do not matter -----------------------------------------------------------

SPELLED = st.builds(
    row,
    st.none() | st.sampled_from(list("abcdefgh")),
    TEXTS,
    ts=st.none() | st.sampled_from(DAYS),
    count=st.sampled_from([0.25, 1.0, 3.5, 0.0, float("nan")]),
)
LOGS = st.lists(SPELLED, max_size=20).map(one_spelling_per_id)


@given(LOGS, st.randoms(use_true_random=False), st.integers(0, 20))
@settings(max_examples=50, deadline=None)
def test_the_order_of_rows_and_files_does_not_matter(
    rows: list[Row], random: random.Random, cut: int
) -> None:
    rows = [*rows, {**CLEAN, "ts": None, "count": 1.0}]
    shuffled = random.sample(rows, len(rows))
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        files = [part for part in (shuffled[:cut], shuffled[cut:]) if part]
        settings = {"max_chars": 12, "weight": "count"}
        assert same(plan(Path(one), rows, **settings), plan(Path(two), *files, **settings))


@pytest.mark.parametrize(
    ("spellings", "settings"),
    [
        pytest.param(["How to sort", "how to sort"], {}, id="case"),
        pytest.param(["how to sort", "how to sort it"], {"max_chars": 11}, id="cut or whole"),
    ],
)
def test_the_order_does_not_matter_where_one_id_has_several_spellings(
    tmp_path: Path, spellings: list[str], settings: dict[str, Any]
) -> None:
    rows = [row("q1", text) for text in spellings]
    one = plan(tmp_path / "one", rows, **settings)
    other = plan(tmp_path / "other", rows[::-1], **settings)
    assert same(one, other)


@given(LOGS, st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_cutting_the_log_into_small_batches_changes_nothing(rows: list[Row], batch: int) -> None:
    rows = [*rows, {**CLEAN, "ts": None, "count": 1.0}]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        whole = plan(Path(folder), rows, max_chars=12)
        patch.setattr(tables, "_BATCH_ROWS", batch)
        patch.setattr(plan_module, "_COMPACT_ROWS", 1)
        assert same(plan(Path(folder), rows, max_chars=12), whole)


def test_a_filter_that_empties_some_files_leaves_the_plan_of_the_others(tmp_path: Path) -> None:
    files = [[row("a", "one", count=1.0)], [row("b", "two", count=2.0)], [row("c", "", count=1.0)]]
    made = plan(tmp_path, *files, filter=[("count", ">=", 2)])
    assert only(made)["query_id"] == "b"
    assert made.log_rows == 1
    assert made.rejects.num_rows == 0


# --- settings --------------------------------------------------------------------------------


def test_an_over_long_query_is_cut_and_flagged(tmp_path: Path) -> None:
    made = plan(tmp_path, [row("a", "1234 6789"), row("b", "123456")], max_chars=5)
    assert made.queries["query"].to_pylist() == ["1234", "12345"]
    assert made.queries["flags"].to_pylist() == [[QUERY_CUT], [QUERY_CUT]]
    whole = plan(tmp_path, [row("a", "é" * 5), row("b", "  12  45 ")], max_chars=5)
    assert whole.queries["query"].to_pylist() == ["é" * 5, "12 45"]
    assert whole.queries["flags"].to_pylist() == [[], []]


def test_an_id_with_two_texts_is_refused_by_name_or_the_first_kept(tmp_path: Path) -> None:
    rows = [row("1", "one"), row("2", "two"), row("1", "uno"), row("2", "TWO")]
    with pytest.raises(InputError, match=r"1 query ids of .* different texts, first 1\. .*first$"):
        plan(tmp_path, rows)
    made = plan(tmp_path, rows, duplicates="first")
    assert made.queries["query"].to_pylist() == ["one", "two"]
    assert made.queries["weight"].to_pylist() == [1.0, 2.0]


def test_without_dedupe_every_id_is_a_query_and_may_stand_once(tmp_path: Path) -> None:
    made = plan(tmp_path, [row("2", "Sort"), row("1", "sort")], dedupe=False)
    assert made.queries["query_ids"].to_pylist() == [["2"], ["1"]]
    assert made.queries["query"].to_pylist() == ["Sort", "sort"]
    with pytest.raises(InputError, match="more than once, first 1"):
        plan(tmp_path, [row("1", "sort"), row("1", "sort")], dedupe=False)


def test_without_dedupe_equal_texts_stand_side_by_side(tmp_path: Path) -> None:
    """A block scores a pair once, so that what is not merged costs no more than if it were."""
    rows = [row("4", "sort"), row("3", "zip"), row("2", " sort "), row("1", "zip"), row("0", "map")]
    made = plan(tmp_path, rows, dedupe=False)
    assert made.queries["qidx"].to_pylist() == [0, 1, 2, 3, 4]
    assert made.queries["query_id"].to_pylist() == ["0", "2", "4", "1", "3"]
    assert made.queries["query"].to_pylist() == ["map", "sort", "sort", "zip", "zip"]


def test_judged_only_keeps_queries_and_rejects_that_any_judgement_is_about(tmp_path: Path) -> None:
    rows = [row("a", "one"), row("b", "ONE"), row("c", "two"), row("d", ""), row("e", "")]
    made = plan(tmp_path, rows, judged_only=True, judged=["b", "e", "elsewhere"])
    assert only(made)["query_ids"] == ["a", "b"]
    assert made.rejects["query_id"].to_pylist() == ["e"]
    with pytest.raises(InputError, match="not judged"):
        plan(tmp_path, [row("a", "one")], judged_only=True, judged=["z"])


def test_the_fingerprint_of_a_plan_is_that_of_its_rows(tmp_path: Path) -> None:
    rows = [row("a", "river"), row("b", "stone")]
    one = plan(tmp_path / "one", rows)
    again = plan(tmp_path / "again", rows[::-1])
    other = plan(tmp_path / "other", [rows[0], row("b", "stones")])
    assert one.fingerprint() == again.fingerprint() != other.fingerprint()


# --- the head --------------------------------------------------------------------------------

WEIGHTS = st.lists(st.integers(1, 5), min_size=1, max_size=12)
CUTS = st.fixed_dictionaries(
    {},
    optional={
        "max_queries": st.integers(1, 14),
        "min_weight": st.integers(1, 5),
        "share": st.sampled_from([0.01, 0.3, 0.5, 0.8, 1.0]),
    },
).filter(bool)


@given(WEIGHTS, CUTS, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_head_is_the_heaviest_queries_and_the_tail_is_counted(
    weights: list[int], cut: dict[str, Any], rng: random.Random
) -> None:
    weights = [*weights, 5]  # min_weight always leaves something
    rows = [row(f"q{n:02d}", f"word{n}", count=float(w)) for n, w in enumerate(weights)]
    rows += [row("bad", "", count=1.0)]
    shuffled = rng.sample(rows, len(rows))
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        made = plan(Path(one), rows, head=cut)
        assert same(made, plan(Path(other), shuffled, head=cut))
    head = {r["query_id"]: r["weight"] for r in made.queries.to_pylist()}
    tail = {f"q{n:02d}": w for n, w in enumerate(weights) if f"q{n:02d}" not in head}
    assert all((-h, a) < (-t, b) for a, h in head.items() for b, t in tail.items())
    left_out = made.left_out
    assert (left_out.queries, left_out.weight) == (len(tail), sum(tail.values()))
    assert left_out.rows == len(tail), "left out, not rejected"
    assert made.reject_counts() == {"empty_query": 1}
    lightest, total = min(head.values()), sum(weights)
    held = {
        "max_queries": len(head) <= cut.get("max_queries", 99),
        "min_weight": lightest >= cut.get("min_weight", 0),
        # without its last query the head would be too light
        "share": sum(head.values()) - lightest < cut.get("share", 2) * total,
    }
    assert all(held.values()), held
    if tail:  # and it is no smaller than it has to be
        heaviest = max(tail.values())
        assert (
            len(head) == cut.get("max_queries")
            or heaviest < cut.get("min_weight", 0)
            or sum(head.values()) >= cut.get("share", 2) * total
        )


def test_a_head_without_any_query_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"all left out by queries\.head"):
        plan(tmp_path, [row("1", "one")], head={"min_weight": 2})
