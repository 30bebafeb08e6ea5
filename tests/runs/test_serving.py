"""Serving: every query of a run under its key, once, in order, and found however it is typed."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from boto3.dynamodb.types import TypeDeserializer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from jobs.__main__ import app
from rerank_batch.data.query_text import match_key
from rerank_batch.errors import ConfigError, InputError, RunConflict
from rerank_batch.runs import Run, publish_run
from rerank_batch.runs.export.serving import export_serving, look_up, look_up_run
from tests.support.helpers import finished_run, result_row

HITS = [("d1", 0.9, 0.25), ("d2", 0.8, 0.75)]


def row(n: int, query: str, weight: float = 1.0) -> dict[str, Any]:
    hits = [(f"{query[:5]}{name}", before, after) for name, before, after in HITS]
    return {**result_row(n, hits), "query": query, "weight": weight}


def run_of(folder: Path, queries: list[str]) -> Run:
    """A run in blocks of three queries."""
    rows = [row(n, query) for n, query in enumerate(queries)]
    return finished_run(folder, [rows[n : n + 3] for n in range(0, len(rows), 3)])


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)


@given(st.lists(TEXTS.map(match_key).filter(bool), min_size=1, max_size=25, unique_by=match_key))
@settings(max_examples=12, deadline=None)
def test_every_query_is_a_row_in_the_order_of_keys_and_is_found(
    tmp_path_factory: pytest.TempPathFactory, queries: list[str]
) -> None:
    """However small the parts are in which it is sorted."""
    folder = tmp_path_factory.mktemp("serving")
    run = run_of(folder / "root", queries)
    for held in (4, 1_000):
        out = folder / f"{held}.parquet"
        done = export_serving(run, "serving", out, rows_in_memory=held, rows_per_group=3)
        assert (done.rows, done.bytes, done.merged) == (len(queries), out.stat().st_size, 0)
        keys = pq.read_table(out, columns=["key"]).column("key").to_pylist()
        assert keys == sorted(match_key(query) for query in queries)
    assert (folder / "4.parquet").stat().st_size > 0
    for query in queries:
        found = look_up(
            str(folder / "4.parquet"), f"  {query.upper() if query.isascii() else query} "
        )
        assert found is not None and found["query"] == query
        assert found["doc_ids"] == [f"{query[:5]}d2", f"{query[:5]}d1"]
        assert found["scores"] == [0.75, 0.25]
        assert found == look_up_run(run, query)
    assert look_up(str(folder / "4.parquet"), "no such query at all") is None


def test_a_look_up_reads_one_row_group_of_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [f"query {n:04d}" for n in range(600)]
    run = finished_run(tmp_path, [[row(n, query) for n, query in enumerate(queries)]])
    out = tmp_path / "serving.parquet"
    export_serving(run, "serving", out, rows_per_group=50)
    read: list[int] = []
    real = pq.ParquetFile.read_row_group

    def counted(self: Any, group: int, *args: Any, **kwargs: Any) -> Any:
        read.append(group)
        return real(self, group, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    assert look_up(str(out), "QUERY  0412") is not None
    assert set(read) == {8}


def test_keys_too_long_for_statistics_are_found(tmp_path: Path) -> None:
    long = ["a" * 9_000, "b", "c" * 9_000]
    run = run_of(tmp_path, long)
    out = tmp_path / "serving.parquet"
    export_serving(run, "serving", out, rows_per_group=1)
    assert all(look_up(str(out), query) is not None for query in long)
    assert look_up(str(out), "a" * 8_999) is None


def test_of_queries_with_one_key_the_heaviest_is_served(tmp_path: Path) -> None:
    rows = [row(0, "River", 1.0), row(1, "river", 5.0), row(2, "RIVER", 2.0), row(3, "stone")]
    run = finished_run(tmp_path, [rows])
    out = tmp_path / "serving.parquet"
    done = export_serving(run, "serving", out, rows_in_memory=1)
    assert (done.rows, done.merged) == (2, 2)
    found = look_up(str(out), "rIVER")
    assert found is not None and found["query"] == "river"


def test_dynamodb_reads_what_the_run_says_and_is_told_what_it_cannot_hold(tmp_path: Path) -> None:
    run = run_of(tmp_path, ["stone", "x" * 3_000, 'a "river" ü'])
    done = export_serving(run, "dynamodb", tmp_path / "items.jsonl")
    assert (done.rows, done.too_large) == (2, 1)
    read = TypeDeserializer().deserialize
    lines = (tmp_path / "items.jsonl").read_bytes().decode().rstrip("\n").split("\n")
    items = [read({"M": json.loads(line)["Item"]}) for line in lines]
    assert [item["key"] for item in items] == ['a "river" ü', "stone"]
    assert items[1]["doc_ids"] == ["stoned2", "stoned1"]
    assert [float(score) for score in items[1]["scores"]] == [0.75, 0.25]


def parse_resp(raw: bytes) -> list[list[bytes]]:
    """Redis' protocol as a server reads it: arrays of strings that say how long they are."""
    commands = []
    while raw:
        head, raw = raw.split(b"\r\n", 1)
        assert head[:1] == b"*"
        words = []
        for _ in range(int(head[1:])):
            length, raw = raw.split(b"\r\n", 1)
            assert length[:1] == b"$"
            size = int(length[1:])
            words.append(raw[:size])
            assert raw[size : size + 2] == b"\r\n"
            raw = raw[size + 2 :]
        commands.append(words)
    return commands


def test_redis_sets_a_value_for_each_key_whatever_is_in_it(tmp_path: Path) -> None:
    nasty = "del *3\u00a0$ ünï"
    run = run_of(tmp_path, ["stone", nasty])
    export_serving(run, "redis", tmp_path / "out.resp", prefix="r:")
    commands = parse_resp((tmp_path / "out.resp").read_bytes())
    assert [words[0] for words in commands] == [b"SET", b"SET"]
    values = {words[1].decode(): json.loads(words[2]) for words in commands}
    assert values["r:stone"] == {
        "query": "stone",
        "results": [["stoned2", 0.75], ["stoned1", 0.25]],
    }
    assert values[f"r:{nasty}"]["query"] == nasty


def test_what_is_refused_leaves_no_file(tmp_path: Path) -> None:
    run = run_of(tmp_path / "root", ["stone"])
    other = Run.create(run.root, "run-2", run.spec)
    with pytest.raises(RunConflict, match="not finished"):
        export_serving(other, "serving", tmp_path / "out.parquet")
    compared = Run(run.root, run.run_id, replace(run.spec, systems=["a", "b"]))
    with pytest.raises(ConfigError, match="compares systems"):
        export_serving(compared, "serving", tmp_path / "out.parquet")
    assert not [path for path in tmp_path.iterdir() if path.name != "root"]
    with pytest.raises(InputError, match="was not written by"):
        look_up(run.results_paths()[0], "stone")


def test_the_commands(tmp_path: Path) -> None:
    run = run_of(tmp_path / "root", random.Random(0).sample([f"query {n}" for n in range(9)], 9))
    publish_run(run)
    root, out = str(tmp_path / "root"), str(tmp_path / "serving.parquet")

    def command(*words: str) -> Any:
        return CliRunner().invoke(app, words)

    done = command("runs", "export", root, run.run_id, "--format", "serving", "--out", out)
    assert done.exit_code == 0, done.output
    assert f"{Path(out).stat().st_size:,} bytes" in " ".join(done.output.split())
    for where in (out, root):
        found = command("lookup", where, "Query 3")
        assert found.exit_code == 0, found.output
        assert "queryd2" in found.output and run.run_id in found.output
    missing = command("lookup", out, "query 99")
    assert missing.exit_code == InputError.exit_code
    told = command("lookup", root, "query 3", "--job", "other")
    assert told.exit_code == RunConflict.exit_code
