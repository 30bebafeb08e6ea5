"""A bucket behind a bad network: every answer is true, every failure is bounded and clear."""

import json
import re
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rerank_batch.errors import StorageError
from rerank_batch.storage import Root, open_root, s3, sha256_file
from tests.chaos import fault_proxy
from tests.chaos.fault_proxy import FAULTS, FaultProxy
from tests.chaos.s3_server import S3Server, free_base
from tests.conftest import BUCKET, forget_clients
from tests.storage.conftest import Through
from tests.storage.test_base import VERBS, all_at_once

pytestmark = pytest.mark.usefixtures("waits")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    file = tmp_path / "local"
    file.write_bytes(Random(0).randbytes(300_000))
    return file


# --- true answers ------------------------------------------------------------------------------


# The one that needs the read-back always runs; the others when there is time.
SOME_FAULTS = [
    fault if fault == "lost" else pytest.param(fault, marks=pytest.mark.slow) for fault in FAULTS
]


@pytest.mark.parametrize("fault", SOME_FAULTS)
def test_a_creation_is_reported_exactly_as_it_went(
    store: S3Server, bucket: Root, through: Through, fault: str
) -> None:
    """Every third object exists already."""
    mine = {f"k/{n:02d}": f"mine {n} {uuid.uuid4().hex}".encode() for n in range(60)}
    for key in list(mine)[::3]:
        assert bucket.create_once(key, b"theirs")
    with through(seed=3, **{fault: 0.3 if fault != "slow" else 0.05}) as proxy:
        won = {key: bucket.create_once(key, body) for key, body in mine.items()}
    assert proxy.counts[fault] > 0 or fault == "truncate"
    assert won == {key: bucket.read(key) == body for key, body in mine.items()}
    assert sum(won.values()) == 40


def test_of_two_writers_with_lost_answers_exactly_one_is_told_it_won(
    bucket: Root, through: Through
) -> None:
    with through(seed=5, lost=0.4, reset=0.1) as proxy:
        for number in range(12):
            key, bodies = f"k/{number}", [uuid.uuid4().hex.encode() for _ in range(2)]
            won = all_at_once([lambda k=key, b=b: bucket.create_once(k, b) for b in bodies])
            assert sum(won) == 1
            assert bucket.read(key) == bodies[won.index(True)]
    assert proxy.counts["lost"] > 0


@pytest.mark.parametrize("fault", SOME_FAULTS)
def test_a_swap_is_neither_lost_nor_done_twice(bucket: Root, through: Through, fault: str) -> None:
    bodies = [json.dumps({"n": n, "nonce": uuid.uuid4().hex}).encode() for n in range(40)]
    with through(seed=7, **{fault: 0.3 if fault != "slow" else 0.05}) as proxy:
        current = None
        for body in bodies:
            assert not bucket.swap("counter", b"stale", expected=b"somebody else's")
            assert bucket.swap("counter", body, expected=current)
            current = body
    assert proxy.counts[fault] > 0
    assert bucket.read("counter") == bodies[-1]


def test_no_increment_of_several_threads_is_lost_through_a_bad_network(
    bucket: Root, through: Through
) -> None:
    """Each body names the one it replaced, so the chain shows every swap that took place."""
    held: dict[str, str | None] = {}

    def count() -> None:
        done = 0
        while done < 4:
            current = bucket.read("counter")
            me, before = uuid.uuid4().hex, json.loads(current)["me"] if current else None
            if bucket.swap("counter", json.dumps({"me": me}).encode(), expected=current):
                held[me] = before
                done += 1

    with through(seed=11, unavailable=0.15, reset=0.15) as proxy:
        all_at_once([count] * 3)
    assert proxy.counts["reset"] and proxy.counts["unavailable"]
    chain, link = [], json.loads(bucket.read("counter") or b"")["me"]
    while link is not None:
        chain.append(link)
        link = held[link]
    assert sorted(chain) == sorted(held)
    assert len(chain) == 12


@pytest.mark.parametrize("fault", SOME_FAULTS)
def test_what_is_published_through_a_bad_network_comes_back_byte_by_byte(
    bucket: Root, through: Through, local: Path, tmp_path: Path, fault: str
) -> None:
    checksum = sha256_file(local)
    back = tmp_path / "back"
    with through(seed=2, **{fault: 0.3}) as proxy:
        for number in range(8):
            stored = bucket.publish(f"p/{number}", local)
            assert (stored.bytes, stored.sha256) == (300_000, checksum)
            back.write_bytes(bucket.read(f"p/{number}") or b"")
            assert sha256_file(back) == checksum
            assert bucket.size(f"p/{number}") == 300_000
        assert bucket.sizes("p/") == {f"p/{n}": 300_000 for n in range(8)}
        assert bucket.folders("") == ["p"]
        bucket.delete([f"p/{n}" for n in range(8)])
    assert proxy.counts[fault] > 0
    assert bucket.sizes("") == {}


@pytest.mark.slow
def test_a_list_of_several_pages_is_complete_through_a_bad_network(
    store: S3Server, prefix: str, through: Through, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of S3 holds a thousand."""
    client, folder = store.client(), prefix.rpartition("/")[2]
    keys = [f"k/{n:04d}" for n in range(1005)]

    def put(key: str) -> None:
        client.put_object(Bucket=BUCKET, Key=f"{folder}/{key}", Body=b"x")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, keys))
    bucket = open_root(prefix)
    with through(seed=1, unavailable=0.3, truncate=0.3):
        assert list(bucket.sizes("")) == keys
        bucket.delete(keys)
    assert bucket.sizes("") == {}


# --- bounded failures --------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["unavailable", "reset"])
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "path"])
def test_a_store_that_never_answers_ends_in_an_error_after_bounded_tries(
    bucket: Root, through: Through, local: Path, waits: list[float], verb: str, fault: str
) -> None:
    forget_clients()
    key = "k 0123" if verb == "drop_upload" else "k/"
    with through(seed=1, **{fault: 1.0}) as proxy, pytest.raises(StorageError) as error:
        VERBS[verb](bucket, key.rstrip("/") if verb == "publish" else key, local)
    assert s3.TRIES <= proxy.counts["requests"] <= s3.TRIES + 1
    assert sum(waits) <= 140, "seconds that boto3 would have waited, at most"
    assert "store" in str(error.value)
    assert "tries" in str(error.value)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "path"])
def test_a_store_that_is_down_is_named(
    bucket: Root, local: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = f"http://127.0.0.1:{free_base()}"
    monkeypatch.setenv(s3.ENDPOINT, endpoint)
    with pytest.raises(StorageError, match=f"nothing answers at {endpoint} .*after 8 tries"):
        VERBS[verb](bucket, "k 0123" if verb == "drop_upload" else "k", local)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "path"])
@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "canary"}, r"the secret key does not fit|access is denied"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, r"the access key is unknown|access is denied"),
        (
            {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
            "no credentials found. Set AWS_PROFILE or AWS_ACCESS_KEY_ID",
        ),
        ({"AWS_SECRET_ACCESS_KEY": None}, "missing: AWS_SECRET_ACCESS_KEY"),
    ],
    ids=["wrong secret", "unknown key", "no credentials", "half of them"],
)
def test_bad_credentials_are_told_in_words_and_not_repeated(
    bucket: Root,
    local: Path,
    verb: str,
    variables: dict[str, str | None],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    forget_clients()
    with pytest.raises(StorageError, match=complaint) as error:
        VERBS[verb](bucket, "k 0123" if verb == "drop_upload" else "k", local)
    message = str(error.value)
    assert BUCKET in message or "no S3 client" in message
    assert not any(secret in message for secret in ("canary", "testsecret", "Signature="))


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("path", "size")])
def test_a_bucket_that_does_not_exist_is_a_storage_error(
    store: S3Server, local: Path, verb: str
) -> None:
    with pytest.raises(StorageError, match=r"s3://nowhere.*the bucket does not exist"):
        VERBS[verb](open_root("s3://nowhere/x"), "k 0123" if verb == "drop_upload" else "k", local)


# --- servers that do not keep conditions -------------------------------------------------------


@contextmanager
def simple_store(*kept: str) -> Iterator[str]:
    """A store that honours the given conditional headers and ignores all others."""
    objects: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status: int, body: bytes = b"", etag: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if etag:
                self.send_header("ETag", etag)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def tag(self, key: str) -> str:
            return f'"{abs(hash(objects[key])):x}"'

        def error(self, status: int, code: str) -> None:
            self.answer(status, f"<Error><Code>{code}</Code></Error>".encode())

        def do_GET(self) -> None:
            if self.path not in objects:
                return self.error(404, "NoSuchKey")
            return self.answer(200, objects[self.path], self.tag(self.path))

        do_HEAD = do_GET

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            absent, match = self.headers["If-None-Match"], self.headers["If-Match"]
            if absent and "If-None-Match" in kept and self.path in objects:
                return self.error(412, "PreconditionFailed")
            if match and "If-Match" in kept and match != self.tag(self.path):
                return self.error(412, "PreconditionFailed")
            objects[self.path] = body
            return self.answer(200, etag=self.tag(self.path))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            place = self.path.partition("?")[0]
            for key in re.findall("<Key>(.*?)</Key>", body):
                objects.pop(f"{place}/{key}", None)
            self.answer(200, b"<DeleteResult></DeleteResult>")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
    assert objects == {}, "the check leaves nothing behind"


@pytest.mark.parametrize("kept", [(), ("If-Match",), ("If-None-Match",)])
def test_a_store_that_ignores_a_condition_is_refused(
    bucket: Root, kept: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with simple_store(*kept) as endpoint:
        monkeypatch.setenv(s3.ENDPOINT, endpoint)
        with pytest.raises(StorageError, match="does not keep conditional writes") as error:
            bucket.check_writes()
    assert bucket.uri in str(error.value)


def test_the_same_store_with_both_conditions_is_accepted(
    bucket: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    with simple_store("If-None-Match", "If-Match") as endpoint:
        monkeypatch.setenv(s3.ENDPOINT, endpoint)
        bucket.check_writes()


# --- uploads -----------------------------------------------------------------------------------


@pytest.fixture
def parts_of_5_mib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_ONE_PUT", 5 << 20)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    file = tmp_path / "large"
    file.write_bytes(Random(1).randbytes((12 << 20) + 7))
    return file


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> list[fault_proxy.Head]:
    """Heads of the requests that pass through a proxy."""
    seen: list[fault_proxy.Head] = []
    read_head = fault_proxy.read_head

    async def read_and_note(reader: Any) -> fault_proxy.Head:
        head = await read_head(reader)
        if not head.first[0].startswith("HTTP"):
            seen.append(head)
        return head

    monkeypatch.setattr(fault_proxy, "read_head", read_and_note)
    return seen


@pytest.mark.usefixtures("parts_of_5_mib")
def test_a_large_file_goes_in_parts_with_a_checksum_each(
    store: S3Server,
    bucket: Root,
    through: Through,
    large: Path,
    tmp_path: Path,
    heads: list[fault_proxy.Head],
) -> None:
    with through():
        stored = bucket.publish("d/large", large)
    assert (stored.bytes, stored.sha256) == (large.stat().st_size, sha256_file(large))
    parts = [head for head in heads if head.first[0] == "PUT"]
    assert len(parts) == 3
    assert all("partNumber=" in head.first[1] for head in parts)
    assert all("x-amz-checksum-sha256" in head.headers for head in parts)
    (tmp_path / "back").write_bytes(bucket.read("d/large") or b"")
    assert sha256_file(tmp_path / "back") == stored.sha256
    assert bucket.stale_uploads("", -60) == []


def test_a_small_file_and_every_commit_goes_with_its_sha256(
    bucket: Root, through: Through, local: Path, heads: list[fault_proxy.Head]
) -> None:
    with through():
        bucket.publish("small", local)
        bucket.create_once("once", b"1")
        bucket.swap("once", b"2", expected=b"1")
    puts = [head for head in heads if head.first[0] == "PUT"]
    assert len(puts) == 3
    assert all("x-amz-checksum-sha256" in head.headers for head in puts)


@pytest.mark.usefixtures("parts_of_5_mib")
@pytest.mark.slow
@pytest.mark.parametrize("fault", ["unavailable", "reset", "lost"])
def test_a_large_file_arrives_whole_through_a_bad_network(
    bucket: Root, through: Through, large: Path, tmp_path: Path, fault: str
) -> None:
    with through(seed=4, **{fault: 0.3}) as proxy:
        stored = bucket.publish("d/large", large)
    assert proxy.counts[fault] > 0
    (tmp_path / "back").write_bytes(bucket.read("d/large") or b"")
    assert sha256_file(tmp_path / "back") == stored.sha256 == sha256_file(large)


class AfterSome(dict[str, float]):
    """Rates of a network that fails for good after some requests."""

    proxy: FaultProxy

    def __init__(self, good: int) -> None:
        super().__init__()
        self.good = good

    def get(self, fault: str, default: Any = 0.0) -> float:  # type: ignore[override]
        return float(fault == "unavailable" and self.proxy.counts["requests"] > self.good)


@pytest.mark.usefixtures("parts_of_5_mib")
@pytest.mark.parametrize("good", [0, 1, 2, 4])
def test_an_upload_that_breaks_leaves_no_object(
    bucket: Root, through: Through, large: Path, good: int
) -> None:
    """Before it began, at the first part, at the second, at the end."""
    rates = AfterSome(good)
    with through() as proxy:
        rates.proxy = proxy
        proxy.rates = rates
        with pytest.raises(StorageError, match=r"cannot write s3://store/.*/d/large"):
            bucket.publish("d/large", large)
    assert bucket.read("d/large") is None
    assert bucket.sizes("") == {}
    left = bucket.stale_uploads("", -60)
    for upload in left:
        bucket.drop_upload(upload)
    assert bucket.stale_uploads("", -60) == []


def test_a_small_upload_that_breaks_leaves_what_was_there(
    bucket: Root, through: Through, local: Path
) -> None:
    bucket.create_once("old", b"old")
    for key in ("old", "new"):
        with through(reset=1.0), pytest.raises(StorageError, match=f"cannot write .*/{key}"):
            bucket.publish(key, local)
    assert bucket.read("old") == b"old"
    assert bucket.read("new") is None


@pytest.mark.parametrize("large_parts", [False, True])
def test_a_byte_that_changes_on_its_way_is_never_stored(
    bucket: Root,
    through: Through,
    large: Path,
    local: Path,
    tmp_path: Path,
    large_parts: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = large if large_parts else local
    if large_parts:
        monkeypatch.setattr(s3, "_ONE_PUT", 5 << 20)
    honest, flipped = fault_proxy.exactly, []

    async def flip_one(reader: Any, size: int) -> Any:
        first = size > 100_000 and len(flipped) < 1
        async for part in honest(reader, size):
            if first:
                flipped.append(size)
                part, first = bytes([part[0] ^ 1]) + part[1:], False
            yield part

    monkeypatch.setattr(fault_proxy, "exactly", flip_one)
    with through():
        try:
            bucket.publish("d/file", file)
            refused = False
        except StorageError:
            refused = True
    assert flipped
    found = bucket.read("d/file")
    if found is None:
        assert refused
    else:
        (tmp_path / "back").write_bytes(found)
        assert sha256_file(tmp_path / "back") == sha256_file(file)


def test_a_part_of_a_delete_that_fails_is_an_error(
    bucket: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing:
        def delete_objects(self, **_: Any) -> dict[str, Any]:
            return {"Errors": [{"Key": "x/k", "Code": "AccessDenied"}]}

    monkeypatch.setattr(s3, "client", lambda: Refusing())
    with pytest.raises(StorageError, match="cannot delete x/k: AccessDenied"):
        bucket.delete(["k"])


@pytest.mark.slow
def test_more_than_a_thousand_keys_go_in_several_requests(
    bucket: Root, through: Through, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_DELETE_AT_ONCE", 3)
    keys = [f"k/{n}" for n in range(7)]
    for key in keys:
        bucket.create_once(key, b"")
    with through() as proxy:
        bucket.delete(iter(keys))
    assert proxy.counts["requests"] == 3
    assert bucket.sizes("") == {}
