"""The cache of a node: one download, checked, within its size, and nothing stale or broken."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pyarrow as pa
import pytest

from rerank_batch.errors import ConfigError, IndexMismatch, StorageError
from rerank_batch.storage import NodeCache, Root, Wanted, inputs, open_root
from tests.storage.conftest import Through

SIZE = 3 << 20


def body_of(number: int, size: int = SIZE) -> bytes:
    return Random(number).randbytes(size)


def wanted(key: str, body: bytes) -> Wanted:
    return Wanted(key, len(body), hashlib.sha256(body).hexdigest())


def put(root: Root, number: int, size: int = SIZE) -> Wanted:
    body = body_of(number, size)
    assert root.create_once(f"shards/{number}.faiss", body)
    return wanted(f"shards/{number}.faiss", body)


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return NodeCache(tmp_path / "cache", 100 << 20)


def cached(cache: NodeCache) -> list[str]:
    """Names of whole objects; everything else the cache keeps must be small."""
    files = [f for f in cache.folder.rglob("*") if f.is_file()]
    objects = [f for f in files if len(f.name) == 64]
    assert all(f.stat().st_size < 200 for f in files if f not in objects)
    return sorted(f.name for f in objects)


def test_files_of_a_folder_are_used_where_they_are(tmp_path: Path, cache: NodeCache) -> None:
    root = open_root(str(tmp_path / "index"))
    small = NodeCache(cache.folder, 1)
    assert small.fetch(root, [put(root, 1)]) == [tmp_path / "index" / "shards" / "1.faiss"]
    assert not cache.folder.exists()


def test_its_room_is_its_limit_or_what_the_disk_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it holds already counts as room: it would be thrown out for something else."""
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda there: usage if there.exists() else None)
    assert NodeCache(tmp_path / "not" / "there", 5).room() == 5
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / ("ab" * 32)).write_bytes(bytes(234))
    assert NodeCache(tmp_path, 1 << 60).room() == 1234


def test_objects_come_as_files_in_the_order_asked(bucket: Root, cache: NodeCache) -> None:
    some = [put(bucket, number) for number in (3, 1, 2)]
    files = cache.fetch(bucket, [*some, some[0]])
    assert [file.read_bytes() for file in files] == [body_of(n) for n in (3, 1, 2, 3)]
    assert cached(cache) == sorted(each.sha256 for each in some)
    assert cache.fetch(bucket, []) == []


def test_what_is_there_is_not_fetched_again(
    bucket: Root, cache: NodeCache, through: Through
) -> None:
    some = [put(bucket, number) for number in (1, 2)]
    files = cache.fetch(bucket, some)
    with through() as proxy:
        assert cache.fetch(bucket, some) == files
        assert cache.fetch(bucket, [wanted("elsewhere", body_of(1))]) == files[:1]
    assert proxy.counts["requests"] == 0


_FETCH = """
import sys, time
from pathlib import Path
from rerank_batch.storage import NodeCache, Wanted, open_root
folder, uri, me, racers = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
root, wanted = open_root(uri), [Wanted(k, int(b), h) for k, b, h in
                                (each.split(",") for each in sys.argv[5:])]
(folder / f"ready-{me}").touch()
while len(list(folder.glob("ready-*"))) < racers:
    time.sleep(0.001)
for file in NodeCache(folder / "cache", 100 << 20).fetch(root, wanted):
    print(file.stat().st_ino)
"""


def test_eight_processes_at_once_download_once(
    bucket: Root, cache: NodeCache, through: Through, tmp_path: Path
) -> None:
    some = [put(bucket, number) for number in (1, 2)]
    with through() as proxy:
        NodeCache(tmp_path / "alone", 100 << 20).fetch(bucket, some)
        alone = proxy.counts["requests"]
    with through() as proxy:
        told = [f"{each.key},{each.bytes},{each.sha256}" for each in some]
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", _FETCH, str(tmp_path), bucket.uri, str(me), "8", *told],
                stdout=subprocess.PIPE,
                text=True,
            )
            for me in range(8)
        ]
        inodes = {racer.communicate()[0] for racer in racers}
    assert [racer.returncode for racer in racers] == [0] * 8
    assert len(inodes) == 1
    assert 0 < proxy.counts["requests"] <= alone
    assert [f.read_bytes() for f in cache.fetch(bucket, some)] == [body_of(1), body_of(2)]


@pytest.mark.parametrize("fault", ["truncate", "reset", "unavailable"])
def test_a_download_that_breaks_is_tried_again(
    bucket: Root, cache: NodeCache, through: Through, fault: str
) -> None:
    some = [put(bucket, number) for number in range(4)]
    with through(seed=8, **{fault: 0.3}) as proxy:
        files = cache.fetch(bucket, some)
    assert proxy.counts[fault] > 0
    assert [file.read_bytes() for file in files] == [body_of(n) for n in range(4)]


@pytest.mark.parametrize("change", ["flipped", "shorter", "longer", "empty"])
def test_an_object_that_is_not_what_was_built_is_refused_and_not_kept(
    bucket: Root, cache: NodeCache, change: str
) -> None:
    body = body_of(1)
    said = wanted("shards/1.faiss", body)
    bucket.create_once(
        said.key,
        {
            "flipped": body[:1000] + bytes([body[1000] ^ 1]) + body[1001:],
            "shorter": body[:-1],
            "longer": body + b"x",
            "empty": b"",
        }[change],
    )
    with pytest.raises(IndexMismatch, match=r"s3://store/.*/shards/1\.faiss is not what was built"):
        cache.fetch(bucket, [said])
    assert cached(cache) == []


def test_an_object_that_is_missing_is_named(bucket: Root, cache: NodeCache) -> None:
    with pytest.raises((IndexMismatch, StorageError), match=r"s3://store/.*/shards/1\.faiss"):
        cache.fetch(bucket, [wanted("shards/1.faiss", body_of(1))])
    assert cached(cache) == []


def test_a_failed_download_leaves_no_large_file_of_any_name(
    bucket: Root, cache: NodeCache, through: Through
) -> None:
    said = put(bucket, 1)
    other = put(bucket, 2)
    wrong = Wanted(said.key, said.bytes, other.sha256)
    with pytest.raises(IndexMismatch):
        cache.fetch(bucket, [wrong])
    assert cached(cache) == []


@pytest.mark.parametrize("tampered", ["same size", "shorter", "empty", "gone", "no note"])
def test_a_file_that_was_tampered_with_is_fetched_again(
    bucket: Root, cache: NodeCache, tampered: str
) -> None:
    said = put(bucket, 1)
    (file,) = cache.fetch(bucket, [said])
    body = file.read_bytes()
    note = file.with_name(file.name + ".checked")
    if tampered == "gone":
        file.unlink()
    elif tampered == "no note":
        note.unlink()
    else:
        changed = {"same size": b"\0" * len(body), "shorter": body[:-1], "empty": b""}
        file.write_bytes(changed[tampered])
        if tampered == "same size":
            os.utime(file, ns=(1, 1))
    assert cache.fetch(bucket, [said])[0].read_bytes() == body


def test_a_damaged_note_is_no_reason_to_trust_a_file(bucket: Root, cache: NodeCache) -> None:
    said = put(bucket, 1)
    (file,) = cache.fetch(bucket, [said])
    file.write_bytes(b"\0" * SIZE)
    for note in ("", "{", "[]", "null", '{"mtime_ns": 1}', '{"hashed": "x", "mtime_ns": 1}'):
        file.with_name(file.name + ".checked").write_text(note)
        assert cache.fetch(bucket, [said])[0].read_bytes() == body_of(1)
        file.write_bytes(b"\0" * SIZE)


def test_a_file_is_hashed_again_once_a_day(
    bucket: Root, cache: NodeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = put(bucket, 1)
    (file,) = cache.fetch(bucket, [said])
    state = file.stat()
    file.write_bytes(b"\0" * SIZE)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    monkeypatch.setattr("rerank_batch.storage.node_cache._CHECK_AGAIN_SECONDS", 0)
    assert cache.fetch(bucket, [said])[0].read_bytes() == body_of(1)


# --- room --------------------------------------------------------------------------------------


def test_what_was_used_longest_ago_goes_and_stays_readable_where_it_is_mapped(
    bucket: Root, tmp_path: Path
) -> None:
    cache = NodeCache(tmp_path / "cache", 3 * SIZE)
    one, two, three, four = (put(bucket, number) for number in (1, 2, 3, 4))
    for each in (one, two, three):
        cache.fetch(bucket, [each])
    assert len(cached(cache)) == 3
    mapped = pa.memory_map(str(cache.fetch(bucket, [two])[0]))
    for age, each in enumerate((one, three, two)):  # two was used last, one first
        note = tmp_path / "cache" / each.sha256[:2] / f"{each.sha256}.checked"
        assert note.exists()
        os.utime(note, (1000 + age, 1000 + age))
    cache.fetch(bucket, [four])
    assert cached(cache) == sorted(each.sha256 for each in (three, two, four))
    cache.fetch(bucket, [three, four])
    cache.fetch(bucket, [one])
    assert two.sha256 not in cached(cache)
    assert mapped.read() == body_of(2)
    assert cache.fetch(bucket, [two])[0].read_bytes() == body_of(2)
    assert len(cached(cache)) == 3


def test_using_a_file_makes_it_the_youngest(bucket: Root, tmp_path: Path) -> None:
    cache = NodeCache(tmp_path / "cache", 2 * SIZE)
    one, two, three = (put(bucket, number) for number in (1, 2, 3))
    for each in (one, two, one, three):
        cache.fetch(bucket, [each])
    assert cached(cache) == sorted((one.sha256, three.sha256))


def test_what_one_call_asks_for_is_there_all_together(bucket: Root, tmp_path: Path) -> None:
    cache = NodeCache(tmp_path / "cache", 3 * SIZE)
    older = [put(bucket, number) for number in (1, 2)]
    cache.fetch(bucket, older)
    for each in older:  # another process goes on using them
        note = cache.folder / each.sha256[:2] / f"{each.sha256}.checked"
        os.utime(note, (2**32, 2**32))
    files = cache.fetch(bucket, [put(bucket, number) for number in (3, 4, 5)])
    assert [file.read_bytes() for file in files] == [body_of(n) for n in (3, 4, 5)]
    assert len(cached(cache)) == 3


def test_an_index_larger_than_the_cache_is_refused_before_any_download(
    bucket: Root, tmp_path: Path, through: Through
) -> None:
    cache = NodeCache(tmp_path / "cache", 2 * SIZE - 1)
    some = [put(bucket, number) for number in (1, 2)]
    with through() as proxy:
        with pytest.raises(ConfigError, match=r"needs 0\.01 GB .* raise storage\.cache_gb"):
            cache.fetch(bucket, some)
        assert proxy.counts["requests"] == 0
    assert cached(cache) == []
    assert len(cache.fetch(bucket, [some[0], some[0]])) == 2, "the same content counts once"


@pytest.mark.parametrize("blocked", ["cache", "cache/sub"])
def test_a_folder_that_cannot_be_written_is_a_storage_error(
    bucket: Root, tmp_path: Path, blocked: str
) -> None:
    (tmp_path / "cache").write_bytes(b"I am no folder")
    cache = NodeCache(tmp_path / blocked, 100 << 20)
    with pytest.raises(StorageError, match=f"the node cache {tmp_path / blocked} cannot be used"):
        cache.fetch(bucket, [put(bucket, 1)])


def test_a_store_that_is_down_is_a_storage_error(
    bucket: Root, cache: NodeCache, through: Through, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the eight tries of `TRIES` Arrow takes close to a minute to give up."""
    monkeypatch.setattr(inputs, "TRIES", 2)
    said = put(bucket, 1)
    with through(unavailable=1.0), pytest.raises(StorageError, match=r"shards/1\.faiss"):
        cache.fetch(bucket, [said])
    assert cached(cache) == []
