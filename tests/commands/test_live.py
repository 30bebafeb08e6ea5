"""What a person and a machine see of a run's progress."""

import io
import json
from types import SimpleNamespace

import pytest
from rich.console import Console as RichConsole

from jobs import live
from jobs.console import Console
from jobs.live import as_table, as_text
from rerank_batch.progress import CallReport, Snapshot, StageProgress
from rerank_batch.progress.messages import write
from rerank_batch.progress.pairs import Pairs
from rerank_batch.ray_backend import run_progress
from rerank_batch.ray_backend.run_progress import RunProgress, places_of

LINES = (
    StageProgress("encode", 10_000_000, 1.0, 12_345.6, 0.0),
    StageProgress("retrieve", 4_096, 0.2501, 54.2, 1_100.0),
    StageProgress("rerank 1", 4_096, 0.3812, 1_102.4, 192.0, pairs=123_456_789, known=1_024),
    StageProgress("rerank-2", 0, 0.0, None, None, pairs=0),
    StageProgress("assemble", 0, 0.0, None, None),
)
WHOLE = Snapshot(4_096, 16_322, 75.0, 192.0, LINES)


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_a_line_for_each_stage_within_its_width(width):
    out = io.StringIO()
    console = RichConsole(file=out, width=width, force_terminal=True, color_system=None)
    console.print(as_table(WHOLE, "waiting for 2 of 4 CPUs that the cluster has lost"))
    first, *rows, remark = out.getvalue().splitlines()
    assert len(rows) == len(LINES)
    assert max(map(len, [first, *rows])) <= width
    assert "…" not in out.getvalue()
    assert first.rstrip() == "queries 4,096 of 16,322  0:01:15  0:03:12 left"
    assert rows[2].split()[:2] == ["rerank", "1"]
    tail = ["38%", "4,096", "123,456,789", "pairs", "1,102/s", "0:03:12"]
    assert rows[2].split()[-6:] == tail
    assert remark.startswith("waiting for 2 of 4 CPUs")


def test_a_log_has_one_line_with_every_stage():
    assert as_text(WHOLE) == (
        "queries: 4,096 of 16,322 after 75 s, 192 s left; "
        "encode 100%, 10,000,000 at 12,345.6/s; "
        "retrieve 25%, 4,096 at 54.2/s, 1100 s left; "
        "rerank 1 38%, 4,096 and 123,456,789 pairs (1,024 known) at 1,102.4 pairs/s, 192 s left; "
        "rerank-2 0%, 0 and 0 pairs; "
        "assemble 0%, 0"
    )


def stage(name, *numbers):
    scorers = tuple(SimpleNamespace(number=number) for number in numbers)
    return SimpleNamespace(name=name, kwargs={"scorers": scorers} if numbers else {})


def test_each_reranker_of_a_cascade_has_a_line():
    places = places_of([stage("encode"), stage("rerank", 1, 2), stage("rerank-3", 3)])
    assert [place.name for place in places] == ["encode", "rerank 1", "rerank 2", "rerank-3"]


def test_a_log_in_json_tells_the_stages_inside_a_block(monkeypatch, capsys):
    """A run of one large block, of which nothing is committed yet."""
    half = CallReport(0, 100, False, 10.0, {1: Pairs(requested=5_000, known=0, scored=2_500)})
    monkeypatch.setattr(
        run_progress, "actor_messages", lambda: {("rerank", "actor"): write([half])}
    )
    monkeypatch.setattr(live, "_DRAW_SECONDS", 0.01)
    monkeypatch.setattr(live, "LINE_EVERY_SECONDS", 0)
    run = SimpleNamespace(blocks=lambda: [(0, 100)])
    lines: list[str] = []
    progress = RunProgress(run, [0], [stage("rerank", 1)])
    with Console(log_format="json").run_progress(progress.look):
        while not lines:
            lines = capsys.readouterr().err.splitlines()
    event = json.loads(lines[0])
    assert (event["event"], event["done"], event["total"]) == ("progress", 0, 100)
    (told,) = event["stages"]
    assert (told["stage"], told["queries"], told["pairs"]) == ("rerank", 0, 2_500)
    assert told["share"] == 0.5
    assert told["per_second"] == pytest.approx(250, rel=0.05)
    assert told["seconds_left"] == event["seconds_left"] == pytest.approx(10, rel=0.05)
