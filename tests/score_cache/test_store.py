"""The store: no listed pair is lost, whoever else changes the manifest, and whatever breaks."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rerank_batch import tally
from rerank_batch.errors import ConfigError, StorageError
from rerank_batch.score_cache import (
    CachedScores,
    ScoreCache,
    ScoreSegment,
    open_segments,
    store,
    today,
)
from rerank_batch.storage import NodeCache, Published, Root, open_root, sha256_file
from tests.score_cache.pairs import (
    KEYS,
    TWENTY,
    Block,
    Model,
    Row,
    Wrapped,
    ask,
    bad_offset,
    model,
    write,
    write_all,
)
from tests.support.helpers import everything_under, overwrite

SCOPE = "0123456789abcdef"
MANIFEST = f"scores/{SCOPE}/manifest.json"
SEGMENTS = f"scores/{SCOPE}/segments/"


@pytest.fixture(autouse=True)
def no_segment_is_small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So that few pairs show how many segments become; and every test counts its own events."""
    monkeypatch.setattr(store, "_SMALL", 1)
    tally.drain()
    yield
    tally.drain()


@pytest.fixture
def node(tmp_path: Path) -> NodeCache:
    return NodeCache(tmp_path / "node", 1 << 30)


def rows(start: int, count: int, score: float = 1.0) -> list[Row]:
    """Pairs number ``start`` and following, of all that `KEYS` can make."""
    numbers = range(start, start + count)
    return [Row(KEYS[n // len(KEYS)], KEYS[n % len(KEYS)], score + n) for n in numbers]


def add(root: Root, run_id: str, *blocks: Block) -> None:
    with TemporaryDirectory() as folder:
        ScoreCache(root, SCOPE).add(run_id, write_all(Path(folder), blocks))


def found(root: Root, node: NodeCache) -> Model:
    """Everything that a job which starts now would find."""
    return ask(CachedScores(open_segments(root, node, ScoreCache(root, SCOPE).snapshot().segments)))


def manifest(root: Root) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(root.read(MANIFEST) or whole_manifest())
    return value


def listed(root: Root) -> list[str]:
    return [entry["key"] for entry in manifest(root)["segments"]]


def sizes(root: Root) -> list[int]:
    return [sum(entry["days"].values()) for entry in manifest(root)["segments"]]


def check_whole(root: Root) -> None:
    """What is listed is there, once, and as the manifest says."""
    keys = listed(root)
    assert len(keys) == len(set(keys))
    there = root.sizes(SEGMENTS)
    for entry in manifest(root)["segments"]:
        assert there[entry["key"]] == entry["bytes"]


# --- adding ------------------------------------------------------------------------------------


def test_what_runs_add_is_found_and_the_first_score_stays(root: Root, node: NodeCache) -> None:
    empty = ScoreCache(root, SCOPE).snapshot()
    assert (empty.segments, empty.pairs, empty.bytes) == ((), 0, 0)
    assert found(root, node) == {}
    blocks = [Block(rows(0, 60), 3), Block(rows(50, 20, score=9.0), 2), Block(rows(0, 5, 7.0), 1)]
    add(root, "one", *blocks[:2])
    add(root, "two", blocks[2])
    assert found(root, node) == model(blocks)
    snapshot = ScoreCache(root, SCOPE).snapshot()
    assert snapshot.pairs == 70 + 5
    assert snapshot.bytes == sum(root.sizes(SEGMENTS).values())
    assert [each.key for each in snapshot.segments] == listed(root)
    assert all("-one-" in key or "-two-" in key for key in listed(root))
    assert ScoreCache(root, "0" * 16).snapshot().segments == ()


def test_a_bucket_keeps_scores_as_a_folder_does(bucket: Root, node: NodeCache) -> None:
    """Always on S3, whatever else is slow: added, merged, expired, swept and found."""
    blocks = [Block(rows(40 * n, 40 - 5 * n), today() - n) for n in range(5)]
    for number, each in enumerate(blocks):
        add(bucket, f"run-{number}", each)
    assert found(bucket, node) == model(blocks)
    assert len(listed(bucket)) < 4
    ScoreCache(bucket, SCOPE).expire(max_age_days=2)
    assert found(bucket, node) == model(blocks, today() - 2)
    ScoreCache(bucket, SCOPE).sweep(-60)
    assert sorted(bucket.sizes(SEGMENTS)) == sorted(listed(bucket))
    assert found(bucket, node) == model(blocks, today() - 2)
    check_whole(bucket)


def test_a_run_that_adds_again_changes_nothing(root: Root, node: NodeCache) -> None:
    add(root, "one", Block(rows(0, 10), 1))
    add(root, "two", Block(rows(10, 10), 1))  # merged with the first
    assert len(listed(root)) == 1
    before = everything_under(root)
    for run_id in ("one", "two"):
        add(root, run_id, Block(rows(0, 60), 2))
    assert everything_under(root) == before
    add(root, "three")
    add(root, "four", Block([], 1))
    assert everything_under(root) == before


@pytest.mark.parametrize("run_id", ["", "../x", "a/b", "Run", "a" * 65])
def test_what_is_no_run_id_reaches_no_storage(root: Root, run_id: str) -> None:
    with pytest.raises(ConfigError, match="is not a run id"):
        add(root, run_id, Block(rows(0, 1), 1))
    assert root.sizes("") == {}


def test_segments_stay_few_and_none_is_merged_more_often_than_that(
    tmp_path: Path, node: NodeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = open_root(str(tmp_path / "root"))
    random = Random(3)
    merged = 0
    merge = store.merge

    def counting(*arguments: Any) -> Any:
        nonlocal merged
        days = merge(*arguments)
        merged += sum(days.values())
        return days

    monkeypatch.setattr(store, "merge", counting)
    blocks: list[Block] = []
    for number in range(48):
        start = sum(len(each.rows) for each in blocks)
        blocks.append(Block(rows(start, random.randint(1, 8)), 1))
        add(root, f"run-{number}", blocks[-1])
        for place, size in enumerate(sizes(root)):
            assert size > sum(sizes(root)[place + 1 :])
    assert found(root, node) == model(blocks)
    pairs = sum(sizes(root))
    assert pairs == sum(len(each.rows) for each in blocks) > 200
    assert merged < pairs * 8  # once when it is added, and once for every doubling
    check_whole(root)


def test_small_segments_are_merged_whatever_their_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_SMALL", 100)
    root = open_root(str(tmp_path / "root"))
    for number, count in enumerate((90, 1, 2)):
        add(root, f"run-{number}", Block(rows(number * 90, count), 1))
    assert sizes(root) == [93]


# --- others at the same time ---------------------------------------------------------------------


def test_jobs_that_add_at_once_lose_nothing(tmp_path: Path, node: NodeCache) -> None:
    """Eight jobs, and each of their runs is added by two drivers."""
    root = open_root(str(tmp_path / "root"))
    blocks = {f"run-{n}": Block(rows(n * 12, 12), 1) for n in range(20)}
    jobs: list[list[str]] = [[] for _ in range(8)]
    for number in range(20):
        jobs[number % 8].append(f"run-{number}")
        jobs[(number + 3) % 8].append(f"run-{number}")
    ready = threading.Barrier(len(jobs), timeout=30)

    def work(run_ids: list[str]) -> None:
        ready.wait()
        for run_id in run_ids:
            add(open_root(root.uri), run_id, blocks[run_id])

    with ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(work, jobs))
    assert found(root, node) == model(blocks.values())
    assert sorted(manifest(root)["added"]) == sorted(blocks)
    assert ScoreCache(root, SCOPE).snapshot().pairs == 240, "no run is in it twice"
    check_whole(root)


class LostAnswers(Wrapped):
    """Swaps happen, but every second time nobody says so."""

    swaps = 0

    def swap(self, key: str, data: bytes, expected: bytes | None) -> bool:
        swapped: bool = self._root.swap(key, data, expected)
        self.swaps += swapped
        return swapped and self.swaps % 2 == 0


def test_a_swap_whose_answer_is_lost_is_not_done_twice(tmp_path: Path, node: NodeCache) -> None:
    root = open_root(str(tmp_path / "root"))
    unsure: Any = LostAnswers(root)
    blocks = [Block(rows(0, 40), 1), Block(rows(40, 30), 2), Block(rows(70, 10), 3)]
    for number, each in enumerate(blocks):
        add(unsure, f"run-{number}", each)
        assert ScoreCache(root, SCOPE).snapshot().pairs == len(model(blocks[: number + 1]))
    assert found(root, node) == model(blocks)
    ScoreCache(unsure, SCOPE).expire(max_age_days=today() - 2)
    ScoreCache(unsure, SCOPE).sweep(-60)
    assert found(root, node) == model(blocks, 2)
    assert manifest(root)["added"] == ["run-0", "run-1", "run-2"]
    assert manifest(root)["dropped"] == []
    assert unsure.swaps > 5
    assert sorted(root.sizes(SEGMENTS)) == sorted(listed(root))


class Busy:
    """A root over a folder without its syncs, in which others act while somebody works: before
    the next call but ``calls``."""

    def __init__(self, folder: Path) -> None:
        self.uri = str(folder)
        self._folder = folder
        self.manifest: dict[str, bytes] = {}
        self.meanwhile: list[Callable[[], None]] = []
        self.calls = 0

    def _others(self) -> None:
        self.calls -= 1
        if self.calls < 0:
            others, self.meanwhile = self.meanwhile, []
            for other in others:
                other()

    def local(self, key: str) -> Path:
        return self._folder / key.rpartition("/")[2]

    def path(self, key: str) -> str:
        return str(self.local(key))

    def read(self, key: str) -> bytes | None:
        self._others()
        return self.manifest.get(key)

    def size(self, key: str) -> int | None:
        return self.local(key).stat().st_size if self.local(key).exists() else None

    def sizes(self, prefix: str) -> dict[str, int]:
        return {f"{prefix}{f.name}": f.stat().st_size for f in self._folder.glob("*.arrow")}

    def publish(self, key: str, local: Path) -> Published:
        self._others()
        self.local(key).write_bytes(local.read_bytes())
        return Published(local.stat().st_size, sha256_file(local))

    def swap(self, key: str, data: bytes, expected: bytes | None) -> bool:
        self._others()
        if self.manifest.get(key) != expected:
            return False
        self.manifest[key] = data
        return True

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.local(key).unlink(missing_ok=True)

    def stale_uploads(self, prefix: str, older_than_s: float) -> list[str]:
        return []


# Pairs of their own for every run, so that there is no doubt which of them have to be there.
BLOCKS = [Block(rows(16 * n, 1 + 5 * n % 16), 1 + n % 4) for n in range(10)]

STEP = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 9)),
    st.tuples(st.just("add"), st.integers(0, 9)),
    st.tuples(st.just("expire"), st.integers(1, 3)),
    st.tuples(st.just("sweep"), st.just(3600)),
)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_all(tmp_path_factory.mktemp("pieces"), BLOCKS)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(STEP, st.lists(STEP, max_size=2), st.integers(0, 6)), max_size=8))
def test_whatever_happens_in_whatever_order_what_was_added_is_found(
    pieces: list[Path], history: list[tuple[tuple[str, int], list[tuple[str, int]], int]]
) -> None:
    """Steps in the middle of other steps."""
    with TemporaryDirectory() as folder:
        root: Any = Busy(Path(folder))
        cache = ScoreCache(root, SCOPE)
        added: set[int] = set()
        oldest = 0

        def step(what: str, number: int) -> None:
            nonlocal oldest
            if what == "add":
                cache.add(f"run-{number}", [pieces[number]])
                added.add(number)
            elif what == "expire":
                cache.expire(max_age_days=today() - number)
                oldest = max(oldest, number)
            else:
                cache.sweep(number)

        for first, others, calls in history:
            root.meanwhile = [lambda other=other: step(*other) for other in others]
            root.calls = calls
            step(*first)
            root.meanwhile = []
        cache.expire(max_age_days=today() - oldest)
        kept = model([BLOCKS[number] for number in sorted(added)], oldest)
        assert found(root, NodeCache(Path(folder) / "node", 1)) == kept
        assert cache.snapshot().pairs == len(kept)
        check_whole(root)
        cache.sweep(-60)
        assert sorted(root.sizes(SEGMENTS)) == sorted(listed(root))


# --- getting old -------------------------------------------------------------------------------


def test_old_scores_go_and_only_segments_that_hold_some_are_written_again(
    root: Root, node: NodeCache
) -> None:
    now = today()
    old = Block(rows(0, 120), now - 9)
    mixed = [Block(rows(120, 50), now - 9), Block(rows(150, 50, score=5.0), now - 3)]
    young = Block(rows(200, 20), now)
    add(root, "old", old)
    add(root, "mixed", *mixed)
    add(root, "young", young)
    assert sizes(root) == [120, 80, 20]
    keys = listed(root)
    ScoreCache(root, SCOPE).expire(max_age_days=9)
    ScoreCache(root, SCOPE).expire()
    assert listed(root) == keys
    ScoreCache(root, SCOPE).expire(max_age_days=8)
    assert found(root, node) == model([Block(rows(170, 30, score=5.0), now), young])
    assert listed(root)[1:] == keys[2:]
    assert len(listed(root)) == 2
    assert [each["key"] for each in manifest(root)["dropped"]] == keys[:2]
    assert [each["days"] for each in manifest(root)["segments"]] == [
        {str(now - 3): 30},
        {str(now): 20},
    ]


def test_the_oldest_days_go_until_the_rest_fits(
    root: Root, node: NodeCache, caplog: pytest.LogCaptureFixture
) -> None:
    blocks = [Block(rows(60 * n, 60), n + 1) for n in range(4)]
    add(root, "one", *blocks)
    cache = ScoreCache(root, SCOPE)
    (before,) = listed(root)
    cache.expire(max_bytes=cache.snapshot().bytes)
    assert listed(root) == [before]
    cache.expire(max_bytes=cache.snapshot().bytes - 1)
    assert found(root, node) == model(blocks, 2)
    limit = int(cache.snapshot().bytes * 0.7)
    cache.expire(max_bytes=limit)
    assert cache.snapshot().bytes <= limit
    assert found(root, node) == model(blocks, 4) or found(root, node) == model(blocks, 3)
    assert not caplog.records
    cache.expire(max_bytes=10)
    assert found(root, node) == {}
    assert "alone need more than 10 bytes" in caplog.text


def test_segments_that_left_the_manifest_stay_for_a_while(
    root: Root, node: NodeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store, "time", SimpleNamespace(time=lambda: time.time() - 7200))
        add(root, "one", Block(rows(0, 10), 1))
    snapshot = ScoreCache(root, SCOPE).snapshot()
    add(root, "two", Block(rows(10, 10), 2))
    now = manifest(root)["dropped"][0]["at"]
    stray = {
        f"{SEGMENTS}{int(now) - 7200}-merged-0.arrow": True,
        f"{SEGMENTS}{int(now)}-run-0.arrow": False,
        f"{SEGMENTS}notes.txt": False,
    }
    for key in stray:
        root.create_once(key, key.encode())
    cache = ScoreCache(root, SCOPE)
    assert cache.sweep(3600) == [key for key, old in stray.items() if old]
    # A job that began before the merge goes on with what it saw.
    assert len(open_segments(root, node, snapshot.segments)) == 1
    dropped = [each["key"] for each in manifest(root)["dropped"]]
    assert sorted(cache.sweep(-60)) == sorted([*dropped, f"{SEGMENTS}{int(now)}-run-0.arrow"])
    assert manifest(root)["dropped"] == []
    assert sorted(root.sizes(SEGMENTS)) == sorted([*listed(root), f"{SEGMENTS}notes.txt"])
    assert len(found(root, node)) == 20
    before = everything_under(root)
    assert cache.sweep(-60) == []
    assert everything_under(root) == before


# --- damage ------------------------------------------------------------------------------------

DAMAGE = [b"", b'{"segments": [', b"[]", b"null", b"\xff\xfe", b"{}", b'"text"', b"7"]
INSIDE = f"{SEGMENTS}1-x-0.arrow"
OUTSIDE = [
    "runs/run-1/final.json",
    f"{SEGMENTS}../../../runs/x.arrow",
    f"{SEGMENTS}deeper/x.arrow",
    f"{SEGMENTS}..",
    SEGMENTS,
    MANIFEST,
    "/etc/x.arrow",
    "",
]


def entry(**other: Any) -> dict[str, Any]:
    return {"key": INSIDE, "bytes": 9, "sha256": "0", "days": {"1": 1}, **other}


PARTS: list[dict[str, Any]] = [
    *[{name: value} for name in ("segments", "added", "dropped") for value in (None, 7, "x", {})],
    *[{"segments": [value]} for value in (None, 7, "x", {}, [])],
    *[{"dropped": [value]} for value in (None, 7, "x", {}, {"key": INSIDE, "at": "then"})],
    *[{"segments": [entry(days=days)]} for days in ({}, {"1": 0}, {"x": 1}, {"1": None}, [1], 7)],
    {"segments": [entry(bytes=0)]},
    {"segments": [entry(bytes=float("inf"))]},
    {"segments": [entry(), entry()]},
    {"segments": [entry()], "dropped": [{"key": INSIDE, "at": 1}]},
    *[{"segments": [entry(key=key)]} for key in OUTSIDE],
    *[{"dropped": [{"key": key, "at": 1}]} for key in OUTSIDE],
]


def whole_manifest(**parts: Any) -> bytes:
    return json.dumps({"segments": [], "added": [], "dropped": [], **parts}).encode()


@pytest.mark.parametrize("body", [*DAMAGE, *[whole_manifest(**parts) for parts in PARTS]])
def test_a_damaged_manifest_is_an_error_that_says_what_to_do(tmp_path: Path, body: bytes) -> None:
    root = open_root(str(tmp_path / "root"))
    root.create_once(MANIFEST, body)
    root.create_once("runs/run-1/final.json", b"precious")
    before = everything_under(root)
    cache = ScoreCache(root, SCOPE)
    for act in (
        cache.snapshot,
        lambda: add(root, "one", Block(rows(0, 1), 1)),
        lambda: cache.expire(1, 1),
        lambda: cache.sweep(-60),
    ):
        with pytest.raises(StorageError, match=rf"{MANIFEST} is damaged: .*no result is lost"):
            act()
    assert everything_under(root) == before


def test_the_manifest_that_the_damaged_ones_are_made_of_is_whole(tmp_path: Path) -> None:
    root = open_root(str(tmp_path / "root"))
    root.create_once(MANIFEST, whole_manifest(segments=[entry()]))
    assert [each.key for each in ScoreCache(root, SCOPE).snapshot().segments] == [INSIDE]


def break_segment(root: Root, key: str, how: str) -> None:
    body = root.read(key) or b""
    if how == "missing":
        root.delete([key])
    elif how == "shorter":
        overwrite(root, key, body[:-1])
    elif how == "another":
        overwrite(root, key, root.read(listed(root)[0]) or b"")
    else:
        overwrite(root, key, body[:200] + bytes([body[200] ^ 1]) + body[201:])


@pytest.mark.parametrize("how", ["missing", "shorter", "another", "flipped"])
def test_a_run_goes_on_without_a_broken_segment_and_says_so(
    root: Root, node: NodeCache, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    blocks = [Block(rows(0, 50), 1), Block(rows(50, 20), 1), Block(rows(70, 5), 1)]
    for number, each in enumerate(blocks):
        add(root, f"run-{number}", each)
    assert sizes(root) == [50, 20, 5]
    if how == "flipped" and root.local("") is not None:
        how = "missing"  # files of a folder are used where they are, without a look into them
    break_segment(root, listed(root)[1], how)
    with caplog.at_level(logging.WARNING):
        assert found(root, node) == model([blocks[0], blocks[2]])
    assert listed(root)[1] in caplog.text
    assert [count for name, count in tally.drain().counts.items() if "left out" in name] == [1]


@pytest.mark.parametrize("how", ["missing", "shorter", "another", "flipped"])
def test_a_merge_gives_up_a_broken_segment_and_keeps_the_others(
    root: Root, node: NodeCache, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    blocks = [Block(rows(0, 50), 1), Block(rows(50, 20), 1), Block(rows(70, 30), 1)]
    add(root, "run-0", blocks[0])
    add(root, "run-1", blocks[1])
    broken = listed(root)[1]
    break_segment(root, broken, how)
    add(root, "run-2", blocks[2])
    assert found(root, node) == model([blocks[0], blocks[2]])
    assert broken in caplog.text
    assert broken not in listed(root)
    assert tally.drain().counts == {"score cache: a missing or damaged segment was given up": 1}
    check_whole(root)


def test_a_segment_that_turns_out_to_be_damaged_is_asked_no_more(tmp_path: Path) -> None:
    bad = bad_offset(write(tmp_path / "bad", Block(TWENTY, 1)))
    good = write(tmp_path / "good", Block(rows(20, 20), 1))
    scores = CachedScores([ScoreSegment(bad), ScoreSegment(good)])
    for _ in range(3):
        assert ask(scores) == model([Block(rows(20, 20), 1)])
    assert list(tally.drain().counts.values()) == [1]


def test_segments_without_room_on_the_node_are_left_out(
    bucket: Root, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocks = [Block(rows(0, 100), 1), Block(rows(100, 5), 1)]
    for number, each in enumerate(blocks):
        add(bucket, f"run-{number}", each)
    large, small = ScoreCache(bucket, SCOPE).snapshot().segments
    for room, expected in (
        (large.bytes + small.bytes, blocks),
        (large.bytes + small.bytes - 1, blocks[:1]),
        (large.bytes - 1, blocks[1:]),
    ):
        node = NodeCache(tmp_path / str(room), room)
        assert found(bucket, node) == model(expected)
    assert "raise storage.cache_gb" in caplog.text


def test_a_store_that_fails_loses_no_listed_pair(tmp_path: Path, node: NodeCache) -> None:
    """Failing is not missing: what cannot be read now stays listed."""
    root = open_root(str(tmp_path / "root"))
    add(root, "one", Block(rows(0, 20), 1))

    class Failing(Wrapped):
        def size(self, key: str) -> int | None:
            raise StorageError("the store is down")

    failing: Any = Failing(root)
    with pytest.raises(StorageError, match="the store is down"):
        add(failing, "two", Block(rows(20, 20), 1))
    assert found(root, node) == model([Block(rows(0, 40), 1)])
    assert sizes(root) == [20, 20]
    add(root, "three", Block(rows(40, 1), 1))
    assert sizes(root) == [41]
