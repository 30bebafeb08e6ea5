"""What every root keeps, folder or bucket: one winner, nothing lost, no half objects."""

import json
import pickle
import re
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rerank_batch.errors import ConfigError, StorageError
from rerank_batch.storage import Root, open_file, open_root, sha256_file
from rerank_batch.storage.folder import Folder
from tests.chaos.s3_server import S3Server

ODD_KEYS = [
    "a b",
    "a+b",
    "a%20b",
    "a=b/c=d",
    "a&b<c>d",
    "what?no#yes",
    "日本/ü-e\u0301",
    "quote'\"s",
    "x;y,z:@(1)!~$*[0]{2}",
    "a..b/c...",
    "long/" + "x" * 200,
    "_under/-dash.",
]


def all_at_once(actions: list[Callable[[], Any]]) -> list[Any]:
    barrier = threading.Barrier(len(actions))

    def start(action: Callable[[], Any]) -> Any:
        barrier.wait()
        return action()

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(start, actions))


# --- the verbs -------------------------------------------------------------------------------


def test_what_was_created_can_be_read_and_has_its_size(root: Root) -> None:
    assert root.read("a/b.json") is None
    assert root.size("a/b.json") is None
    assert root.create_once("a/b.json", b"one")
    assert root.read("a/b.json") == b"one"
    assert root.size("a/b.json") == 3
    assert root.read("a/b") is None


def test_an_empty_object_is_there(root: Root) -> None:
    assert root.create_once("empty", b"")
    assert root.read("empty") == b""
    assert root.size("empty") == 0
    assert not root.create_once("empty", b"more")
    assert root.swap("empty", b"full", expected=b"")
    assert root.read("empty") == b"full"


def test_creating_again_is_refused_and_changes_nothing(root: Root) -> None:
    assert root.create_once("a", b"one")
    assert not root.create_once("a", b"two")
    assert root.read("a") == b"one"


def rounds(root: Root) -> int:
    """SeaweedFS answers writers that meet after a second or more."""
    return 25 if isinstance(root, Folder) else 3


def test_one_of_eight_threads_creates(root: Root) -> None:
    for number in range(rounds(root)):
        key = f"commits/{number}.json"
        bodies = [f"writer {w}".encode() for w in range(8)]
        won = all_at_once([lambda k=key, b=b: root.create_once(k, b) for b in bodies])
        assert sum(won) == 1
        assert root.read(key) == bodies[won.index(True)]


def test_swap_replaces_only_what_it_expects(root: Root) -> None:
    assert not root.swap("latest", b"one", expected=b"zero")
    assert root.read("latest") is None
    assert root.swap("latest", b"one", expected=None)
    assert not root.swap("latest", b"two", expected=None)
    assert root.swap("latest", b"two", expected=b"one")
    assert not root.swap("latest", b"three", expected=b"one")
    assert root.read("latest") == b"two"


def test_one_of_eight_threads_swaps(root: Root) -> None:
    current = None
    for number in range(rounds(root)):
        bodies = [f"{number} by {w}".encode() for w in range(8)]
        won = all_at_once([lambda b=b, c=current: root.swap("latest", b, c) for b in bodies])
        assert sum(won) == 1
        current = bodies[won.index(True)]
        assert root.read("latest") == current


def increment(root: Root, key: str) -> int:
    """One more, whoever else is counting; how many tries it took."""
    for tries in range(1, 500):
        current = root.read(key)
        number = json.loads(current)["n"] if current else 0
        body = json.dumps({"n": number + 1, "nonce": uuid.uuid4().hex}).encode()
        if root.swap(key, body, expected=current):
            return tries
    raise AssertionError("never got through")


def test_a_counter_of_eight_threads_loses_nothing(root: Root) -> None:
    def count() -> int:
        return sum(increment(root, "counter") for _ in range(6))

    tries = all_at_once([count] * 8)
    assert json.loads(root.read("counter") or b"{}")["n"] == 48
    assert sum(tries) > 48, "the threads never met, so this showed nothing"


def test_sizes_are_those_of_all_objects_under_a_prefix_in_order(root: Root) -> None:
    assert root.sizes("runs/") == {}
    for key in ("runs/b", "runs/a/2", "runs/a/1", "jobs/x", "runs-2/y", "runs/a-b", "runs/B"):
        assert root.create_once(key, key.encode())
    root.swap("runs/c", b"", expected=None)
    expected = {"runs/B": 6, "runs/a-b": 8, "runs/a/1": 8, "runs/a/2": 8, "runs/b": 6, "runs/c": 0}
    assert list(root.sizes("runs/").items()) == list(expected.items())
    assert root.sizes("runs/a/") == {"runs/a/1": 8, "runs/a/2": 8}
    assert list(root.sizes("")) == sorted([*expected, "jobs/x", "runs-2/y"])


def filled_folders(root: Root, prefix: str) -> list[str]:
    """SeaweedFS goes on naming folders whose last object was deleted; S3 itself does not."""
    found = root.folders(prefix)
    if isinstance(root, Folder):
        return found
    return [name for name in found if root.sizes(f"{prefix}{name}/")]


def test_folders_are_the_names_that_have_something_below_them(root: Root) -> None:
    assert root.folders("") == []
    for key in ("b/1/x", "a/y", "b/2/x", "b/file", "bb/x", "top"):
        root.create_once(key, b"")
    assert root.folders("") == ["a", "b", "bb"]
    assert root.folders("b/") == ["1", "2"]
    assert root.folders("a/") == []
    assert root.folders("nothing/") == []
    root.delete(["b/1/x"])
    assert filled_folders(root, "b/") == ["2"]


def test_publishing_copies_a_file_over_what_was_there(root: Root, tmp_path: Path) -> None:
    local = tmp_path / "local"
    for body in (b"one", b"another", b""):
        local.write_bytes(body)
        stored = root.publish("data/x.parquet", local)
        assert (stored.bytes, stored.sha256) == (len(body), sha256_file(local))
        assert root.read("data/x.parquet") == body
    assert local.exists()


def test_what_was_deleted_is_gone_and_deleting_again_is_no_error(root: Root) -> None:
    keys = [f"d/{n}/x" for n in range(5)]
    for key in keys:
        root.create_once(key, b"")
    root.delete(["d/0/x", "never/was", "d/1/x"])
    assert list(root.sizes("")) == keys[2:]
    root.delete(keys)
    root.delete(keys)
    root.delete([])
    assert root.sizes("") == {}
    assert filled_folders(root, "") == []
    assert root.create_once(keys[0], b"again")


def test_deleted_objects_that_were_swapped_leave_nothing_behind(root: Root) -> None:
    root.swap("lease/x", b"1", expected=None)
    root.swap("lease/x", b"2", expected=b"1")
    root.delete(["lease/x"])
    assert filled_folders(root, "") == []
    assert root.stale_uploads("", -1) == []


def begin_upload(root: Root, store: S3Server | None, key: str) -> None:
    """What a writer that was killed leaves behind."""
    if store is None:
        target = Path(root.path(key))
        target.parent.mkdir(parents=True, exist_ok=True)
        (target.parent / f".{target.name}.0123").write_bytes(b"half")
    else:
        bucket, _, name = root.path(key).removeprefix("s3://").partition("/")
        store.client().create_multipart_upload(Bucket=bucket, Key=name)


@pytest.mark.parametrize("key", ["runs/r1/data", "runs/r1/odd name+é.parquet"])
def test_uploads_that_nobody_ended_are_found_by_age_and_dropped(
    root: Root, request: pytest.FixtureRequest, key: str
) -> None:
    store = None if isinstance(root, Folder) else request.getfixturevalue("store")
    root.create_once("runs/r1/whole", b"")
    begin_upload(root, store, key)
    begin_upload(root, store, "runs/r2/data")
    time.sleep(0.01)
    assert root.read(key) is None
    assert root.stale_uploads("", 3600) == []
    assert len(root.stale_uploads("", -60)) == 2
    (mine,) = root.stale_uploads("runs/r1/", -60)
    root.drop_upload(mine)
    assert root.stale_uploads("runs/r1/", -60) == []
    assert len(root.stale_uploads("", -60)) == 1
    assert root.read("runs/r1/whole") == b""


def test_a_good_place_passes_the_check_of_writes_and_keeps_nothing_of_it(root: Root) -> None:
    root.create_once("mine", b"")
    root.check_writes()
    assert list(root.sizes("")) == ["mine"]
    assert filled_folders(root, "") == []
    assert root.stale_uploads("", -60) == []


@pytest.mark.parametrize("key", ODD_KEYS)
def test_keys_may_hold_odd_characters(root: Root, tmp_path: Path, key: str) -> None:
    local = tmp_path / "local"
    local.write_bytes(b"published")
    assert root.create_once(f"in/{key}", b"one")
    assert not root.create_once(f"in/{key}", b"two")
    assert root.swap(f"in/{key}", b"three", expected=b"one")
    root.publish(f"in/{key}.p", local)
    assert root.sizes("in/") == {f"in/{key}": 5, f"in/{key}.p": 9}
    assert root.size(f"in/{key}") == 5
    with open_file(root.path(f"in/{key}.p")) as source:
        assert source.read() == b"published"
    root.delete([f"in/{key}", f"in/{key}.p"])
    assert root.sizes("in/") == {}


def test_paths_are_absolute_and_say_where_the_object_is(root: Root, tmp_path: Path) -> None:
    root.create_once("a/b", b"x")
    with open_file(root.path("a/b")) as source:
        assert source.read() == b"x"
    local = root.local("a/b")
    if isinstance(root, Folder):
        assert root.path("a/b") == str(tmp_path / "root" / "a" / "b") == str(local)
    else:
        assert root.path("a/b") == f"{root.uri}/a/b"
        assert local is None


# --- what must not happen ----------------------------------------------------------------------

VERBS: dict[str, Callable[[Root, str, Path], object]] = {
    "read": lambda root, key, local: root.read(key),
    "create_once": lambda root, key, local: root.create_once(key, b""),
    "swap": lambda root, key, local: root.swap(key, b"new", root.read(key)),
    "sizes": lambda root, key, local: root.sizes(key),
    "folders": lambda root, key, local: root.folders(key),
    "publish": lambda root, key, local: root.publish(key, local),
    "size": lambda root, key, local: root.size(key),
    "delete": lambda root, key, local: root.delete([key]),
    "stale_uploads": lambda root, key, local: root.stale_uploads(key, 0),
    "drop_upload": lambda root, key, local: root.drop_upload(
        key if isinstance(root, Folder) else f"{key} 0123"
    ),
    "path": lambda root, key, local: root.path(key),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/hostname", "a/..", ".."])
def test_a_key_that_leaves_the_root_is_refused(
    root: Root, tmp_path: Path, verb: str, key: str
) -> None:
    (tmp_path / "x").write_bytes(b"outside")
    with pytest.raises(StorageError, match="outside the root"):
        VERBS[verb](root, key, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"outside"


@pytest.mark.parametrize("uri", ["gs://bucket/runs", "http://host/runs", "s3a://bucket/x"])
def test_other_schemes_are_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(uri) + r".*folders or s3://bucket/prefix"):
        open_root(uri)


@pytest.mark.parametrize("uri", ["s3://", "s3:///prefix"])
def test_a_uri_without_a_bucket_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="names no bucket; write s3://bucket/prefix"):
        open_root(uri)


def test_a_root_travels_without_credentials_and_works_where_it_arrives(
    root: Root, request: pytest.FixtureRequest
) -> None:
    secrets = [b"AWS_SECRET"]
    if not isinstance(root, Folder):
        store = request.getfixturevalue("store")
        secrets += [store.access_key.encode(), store.secret_key.encode()]
    root.create_once("a", b"one")
    root.sizes("")
    with open_file(root.path("a")) as source:
        source.read()
    packed = pickle.dumps(root)
    assert len(packed) < 500
    assert [secret for secret in secrets if secret in packed] == []
    assert pickle.loads(packed).read("a") == b"one"
    assert pickle.loads(packed).uri == root.uri


def test_a_checksum_covers_every_byte(tmp_path: Path) -> None:
    file = tmp_path / "big"
    body = bytearray((1 << 20) + 7)
    file.write_bytes(body)
    before = sha256_file(file)
    body[-1] = 1
    file.write_bytes(body)
    assert sha256_file(file) != before
