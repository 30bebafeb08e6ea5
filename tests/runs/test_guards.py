"""Guards: each one trips on a run made for it, and then nothing but an override moves latest."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch.config import parse_config
from rerank_batch.errors import ConfigError, GuardsFailed, RunConflict
from rerank_batch.runs import Run, guards, latest_run, publish_run, read_latest
from rerank_batch.runs.decisions import read_override
from rerank_batch.runs.guards import publish_unless_held_back
from rerank_batch.storage import Root, open_root
from tests.support.helpers import overwrite, reject_table, result_row, result_table, spec

TOTALS: dict[str, Any] = {
    "log_rows": 100,
    "rejects": {"empty_query": 3},
    "judged": 4,
    "metrics": {"retrieval": {"nDCG@10": 0.9}, "reranked": {"nDCG@10": 0.5}},
}
LIST = [f"d{n:02d}" for n in range(10)]


def night(
    root: Root,
    day: int,
    lists: Sequence[Sequence[str]] = (LIST,) * 4,
    asked: Any = None,
    asks: str = "query",
    **totals: Any,
) -> Run:
    """A run that is complete and not published: query n has the documents ``lists[n]``."""
    what = spec(created=f"2026-01-{day:02d}", planned=len(lists), block_rows=2)
    what = replace(what, config={**what.config, "guards": asked or {}})
    run = Run.create(root, f"night-{day}", what)
    run.claim()
    for start, stop in run.blocks():
        rows = [
            result_row(n, [(name, 1.0, -float(place)) for place, name in enumerate(lists[n])])
            for n in range(start, stop)
        ]
        for row in rows:
            row["query"] = f"{asks} {row['qidx']}"
        run.writer().write(start, stop, result_table(rows), reject_table(), {}, {}, {})
    run.finish({"queries": len(lists), **TOTALS, **totals})
    return run


def moved(name: str) -> list[str]:
    """A list of which six documents are those of `LIST`."""
    return [*LIST[:6], *(f"{name}{n}" for n in range(4))]


TRIPS = {
    "max_rejects, a number": ({"max_rejects": 2}, {}, "3 of 100 log rows are rejected, at most 2"),
    "max_rejects, a share": ({"max_rejects": 0.02}, {}, "at most 0.02 may be"),
    "min_queries": ({"min_queries": 5}, {}, "4 queries have results, at least 5 must"),
    "max_queries": ({"max_queries": 3}, {}, "4 queries have results, at most 3 may"),
    "measure": ({"measure": {"nDCG@10": 0.51}}, {}, "0.5000 over 4 judged queries, at least 0.51"),
    "measure of nothing": (
        {"measure": {"nDCG@10": 0.1}},
        {"metrics": {}},
        "no query of the run is",
    ),
    "overlap": (
        {"min_overlap_at_10": 0.9},
        {"lists": [moved("x")] * 4},
        "0.6000 with night-1 over 4",
    ),
}


@pytest.mark.parametrize(("asked", "made", "words"), TRIPS.values(), ids=TRIPS)
def test_a_run_that_fails_a_guard_is_complete_and_readers_keep_the_one_before(
    tmp_path: Path, asked: dict[str, Any], made: dict[str, Any], words: str
) -> None:
    root = open_root(str(tmp_path))
    assert publish_unless_held_back(night(root, 1, asked=asked and {})).published
    run = night(root, 2, asked=asked, **made)
    outcome = publish_unless_held_back(run)
    assert run.state() == "complete"
    assert latest_run(root, "nightly").run_id == "night-1" == outcome.latest
    (failed,) = outcome.guards
    assert not failed.passed and words in failed.words
    with pytest.raises(GuardsFailed, match=f"guards.{failed.name}") as told:
        guards.refuse_if_held_back(root.uri, run.run_id, outcome)
    assert f"runs publish {root.uri} night-2 --force" in str(told.value)


def test_a_run_that_holds_every_guard_is_published(tmp_path: Path) -> None:
    root = open_root(str(tmp_path))
    asked = {
        "max_rejects": 3,
        "min_queries": 4,
        "max_queries": 4,
        "measure": {"nDCG@10": 0.5},
        "min_overlap_at_10": 0.6,
    }
    first = publish_unless_held_back(night(root, 1, asked=asked))
    assert first.published
    assert "no run was published before" in first.guards[-1].words
    second = publish_unless_held_back(night(root, 2, [moved("x")] * 4, asked))
    assert second.published and len(second.guards) == 5
    assert latest_run(root, "nightly").run_id == "night-2"


@pytest.mark.parametrize(
    "later",
    [
        {"asked": {}},
        {"asked": {"min_queries": 1}},
        {"published": "night-3"},
    ],
    ids=["guards taken out", "guards loosened", "another night published"],
)
def test_a_verdict_is_given_once(tmp_path: Path, later: dict[str, Any]) -> None:
    root = open_root(str(tmp_path))
    run = night(root, 2, asked={"min_queries": 5})
    first = publish_unless_held_back(run)
    if "asked" in later:
        changed = replace(run.spec, config={**run.spec.config, "guards": later["asked"]})
        overwrite(root, "runs/night-2/spec.json", json.dumps(changed.to_json()).encode())
    else:
        publish_unless_held_back(night(root, 3))
    again = publish_unless_held_back(Run.open(root, "night-2"))
    assert not again.published
    assert again.guards == first.guards
    with pytest.raises(GuardsFailed):  # nor by any other way to publish
        publish_run(Run.open(root, "night-2"))


def test_a_driver_that_dies_before_the_verdict_leaves_it_to_the_next(tmp_path: Path) -> None:
    """The guards are those that the run began with."""
    root = open_root(str(tmp_path))
    night(root, 2, asked={"min_queries": 5})
    assert not publish_unless_held_back(Run.open(root, "night-2")).published
    assert read_latest(root, "nightly") is None


def test_a_last_run_that_cannot_be_read_or_asked_other_queries_holds_the_next_back(
    tmp_path: Path,
) -> None:
    root = open_root(str(tmp_path))
    publish_unless_held_back(night(root, 1))
    root.delete(["runs/night-1/spec.json"])
    (gone,) = publish_unless_held_back(night(root, 2, asked={"min_overlap_at_10": 0.0})).guards
    assert not gone.passed and "no run night-1" in gone.words

    other = open_root(str(tmp_path / "other"))
    publish_unless_held_back(night(other, 1))
    asked = {"min_overlap_at_10": 0.0}
    (none,) = publish_unless_held_back(night(other, 2, asked=asked, asks="another")).guards
    assert not none.passed and none.words == "no query in common with night-1"


lists = st.lists(st.sampled_from([f"d{n}" for n in range(30)]), unique=True, max_size=14)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(lists, lists), min_size=1, max_size=5))
def test_overlap_is_the_mean_share_of_the_first_ten(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[list[str], list[str]]]
) -> None:
    root = open_root(str(tmp_path_factory.mktemp("overlap")))
    old = night(root, 1, [before for before, _ in pairs])
    new = night(root, 2, [after for _, after in pairs])
    shares = [
        len({*a[:10]} & {*b[:10]}) / max(len(a[:10]), len(b[:10]), 1) if a or b else 1.0
        for a, b in pairs
    ]
    found = guards.overlap_at_10(new, old)
    assert found.queries == len(pairs)
    assert found.mean == pytest.approx(sum(shares) / len(shares))


# --- the command line ------------------------------------------------------------------------


def test_no_command_publishes_a_run_that_failed_but_the_one_that_says_force(nights: Any) -> None:
    root = nights.root
    assert nights("rerank", "--run-id", "first").exit_code == 0
    tripped = nights("rerank", "--run-id", "second", "--set", "guards.min_queries=41")
    assert tripped.exit_code == GuardsFailed.exit_code == 16
    assert "guards.min_queries: 40 queries have results, at least 41 must" in tripped.output
    for again in (
        ("rerank", "--resume", "second"),
        ("rerank", "--resume", "second", "--set", "guards.min_queries=41"),
        ("runs", "publish", root.uri, "second"),
    ):
        told = nights(*again)
        assert told.exit_code == 16, told.output
        assert "runs publish" in told.output
    assert latest_run(root, "test").run_id == "first"
    assert "held back" in nights("runs", "list", root.uri).output

    forced = nights("runs", "publish", root.uri, "second", "--force")
    assert forced.exit_code == 0, forced.output
    run = latest_run(root, "test")
    assert run.run_id == "second"
    override = read_override(run)
    assert override is not None and override.who in forced.output
    assert nights("rerank", "--resume", "second").exit_code == 0
    assert override.who in " ".join(nights("runs", "show", root.uri, "second").output.split())


def test_an_unfinished_run_is_not_published_even_by_force(nights: Any, tmp_path: Path) -> None:
    run = Run.create(nights.root, "begun", spec())
    told = nights("runs", "publish", nights.root.uri, run.run_id, "--force")
    assert told.exit_code == RunConflict.exit_code, told.output


# --- configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"min_queries": 3, "max_queries": 2}, "min_queries (3) is more than max_queries (2)"),
        ({"measure": {"RR@10": 0.5}}, "RR@10 is not among evaluation.measures (nDCG@10)"),
        ({"max_rejects": 1.5}, "a whole number of rows, or a share"),
        ({"min_overlap": 0.5}, "did you mean 'min_overlap_at_10'?"),
    ],
)
def test_guards_that_could_never_hold_are_refused(section: dict[str, Any], words: str) -> None:
    raw = {
        "corpus": {"path": "c"},
        "qrels": {"path": "q"},
        "index": {"path": "i", "encoder": "e"},
        "evaluation": {"measures": ["nDCG@10"]},
    }
    with pytest.raises(ConfigError) as told:
        parse_config({**raw, "guards": section})
    assert words in str(told.value)
    parse_config({**raw, "guards": {"measure": {"nDCG@10": 0.5}}})
    with pytest.raises(ConfigError, match=r"guards\.measure needs judgements"):
        parse_config({**raw, "qrels": None, "guards": {"measure": {"nDCG@10": 0.5}}})
