"""The S3 server and the fault proxy do what the chaos tests take for granted."""

import http.client
import io
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import boto3
import pyarrow.fs
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError

from tests.chaos.fault_proxy import FAULTS, FaultProxy
from tests.chaos.s3_server import S3Server, is_free

BUCKET = "data"
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


def body_of(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        server.create_bucket(BUCKET)
        yield server


@contextmanager
def proxy_before(port, **rates):
    """A proxy that must come to its end without an error of its own."""
    with FaultProxy(port, seed=1, rates=rates) as proxy:
        yield proxy
    assert proxy.errors == []
    assert not any(thread.name == "fault-proxy" for thread in threading.enumerate())


def stored(server, key):
    return server.client().get_object(Bucket=BUCKET, Key=key)["Body"].read()


# --- the server


def test_objects_survive_kill_and_restart(tmp_path):
    with S3Server(tmp_path / "s3") as server:
        server.create_bucket(BUCKET)
        client, endpoint = server.client(), server.endpoint
        bodies = {f"k{n:02d}": body_of(1000 + 5000 * n, seed=n) for n in range(50)}
        for key, body in bodies.items():
            client.put_object(Bucket=BUCKET, Key=key, Body=body)
        server.kill()
        with pytest.raises(BotoCoreError):
            client.get_object(Bucket=BUCKET, Key="k00")
        server.restart()
        assert server.endpoint == endpoint
        assert {key: stored(server, key) for key in bodies} == bodies
        client.put_object(Bucket=BUCKET, Key="later", Body=b"later")
        assert stored(server, "later") == b"later"
    assert all(is_free(server.base + n) for n in range(5))


def test_a_wrong_secret_is_refused(server, tmp_path):
    stranger = S3Server(tmp_path, secret_key="another")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        stranger.client(server.endpoint).list_objects_v2(Bucket=BUCKET)


def test_its_environment_is_all_a_client_needs(server, monkeypatch):
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    names = [bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]]
    assert BUCKET in names


@pytest.mark.skipif(sys.platform != "linux", reason="what ties the server to its parent is Linux's")
def test_the_server_dies_with_a_parent_that_is_killed(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from tests.chaos.s3_server import S3Server\n"
        "server = S3Server(Path(sys.argv[1])); server.start()\n"
        "print(server.base, server.process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "s3")], stdout=subprocess.PIPE, text=True
    ) as parent:
        orphan = S3Server(tmp_path / "s3")
        orphan.base, number = map(int, parent.stdout.readline().split())
        assert not is_free(orphan.port)
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while not is_free(orphan.port) and time.monotonic() < deadline:
        time.sleep(0.02)
    died = is_free(orphan.port)
    if not died:
        os.kill(number, signal.SIGKILL)
    orphan.stop()  # nothing but its sockets is left
    assert died


def test_a_server_that_cannot_start_says_why(tmp_path, monkeypatch):
    command = ["sh", "-c", "echo no such luck >&2; exit 3"]
    monkeypatch.setattr(S3Server, "_command", lambda *_: command)
    with pytest.raises(RuntimeError, match=r"(?s)ended with 3.*no such luck"):
        S3Server(tmp_path).start()


# --- the proxy without faults


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_bodies_pass_unchanged(server, size):
    body = body_of(size)
    with proxy_before(server.port) as proxy:
        client = server.client(proxy.endpoint)
        started = time.monotonic()
        client.put_object(Bucket=BUCKET, Key="plain", Body=body, ChecksumAlgorithm="SHA256")
        # Boto waits a second for "100 Continue" before it sends a body without.
        assert time.monotonic() - started < 0.9
        got = client.get_object(Bucket=BUCKET, Key="plain", ChecksumMode="ENABLED")
        assert got["Body"].read() == body == stored(server, "plain")
        head = client.head_object(Bucket=BUCKET, Key="plain")
        assert head["ContentLength"] == size
        assert client.delete_object(Bucket=BUCKET, Key="plain")
        with pytest.raises(ClientError, match="NoSuchKey"):
            client.get_object(Bucket=BUCKET, Key="plain")
        assert proxy.counts == {"requests": 5, **dict.fromkeys(FAULTS, 0)}


def test_chunked_uploads_pass_on_a_connection_that_stays_open(server):
    body = body_of(300_000)
    with proxy_before(server.port) as proxy:
        link = http.client.HTTPConnection(urlsplit(proxy.endpoint).netloc, timeout=5)
        sockets = set()
        for key in ("first", "second"):
            where = {"Bucket": BUCKET, "Key": key}
            # Signed for the proxy: a server that sees another Host refuses it.
            url = server.client(proxy.endpoint).generate_presigned_url("put_object", Params=where)
            pieces = (body[at : at + 7001] for at in range(0, len(body), 7001))
            path = url.removeprefix(proxy.endpoint)
            link.request("PUT", path, body=pieces, encode_chunked=True,
                         headers={"Transfer-Encoding": "chunked"})  # fmt: skip
            sockets.add(link.sock.getsockname())
            answer = link.getresponse()
            assert (answer.status, answer.read()) == (200, b"")
            assert stored(server, key) == body
        assert len(sockets) == 1
        link.close()


def test_it_adds_next_to_no_delay(server):
    with proxy_before(server.port) as proxy:
        client = server.client(proxy.endpoint)
        client.put_object(Bucket=BUCKET, Key="quick", Body=b"quick")
        times = []
        for _ in range(15):
            started = time.monotonic()
            client.get_object(Bucket=BUCKET, Key="quick")["Body"].read()
            times.append(time.monotonic() - started)
        assert min(times) < 0.03  # Nagle's algorithm alone would cost 0.04


def test_a_multipart_upload_passes_unchanged(server):
    body = body_of(12 * 2**20)
    with proxy_before(server.port) as proxy:
        parts = TransferConfig(multipart_threshold=5 * 2**20, multipart_chunksize=5 * 2**20)
        server.client(proxy.endpoint).upload_fileobj(io.BytesIO(body), BUCKET, "big", Config=parts)
        assert proxy.counts["requests"] == 5  # create, three parts, complete
        assert stored(server, "big") == body


def test_pyarrow_writes_and_reads_through_it(server):
    body = body_of(3_000_000)
    with proxy_before(server.port) as proxy:
        files = pyarrow.fs.S3FileSystem(
            endpoint_override=proxy.endpoint.removeprefix("http://"),
            scheme="http",
            access_key=server.access_key,
            secret_key=server.secret_key,
            region="us-east-1",
        )
        with files.open_output_stream(f"{BUCKET}/arrow") as out:
            out.write(body)
        with files.open_input_file(f"{BUCKET}/arrow") as file:
            assert file.read() == body
        assert stored(server, "arrow") == body
        assert proxy.counts["requests"] >= 3


ANSWERS = {
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"4;x=y\r\nabcd\r\n10\r\n0123456789abcdef\r\n0\r\nTrailer: t\r\n\r\n",
    "to the end": b"HTTP/1.1 200 OK\r\n\r\nabcd" + bytes(range(256)) * 1000,
    "no content": b"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
    "head": b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n",
    "interim": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
}


@contextmanager
def server_that_says(answer: bytes, closes: bool = False, times: int = 1):
    """Takes requests without bodies, one a connection; yields its port and what it was sent."""
    asked = []

    def serve():
        for _ in range(times):
            link, _ = listener.accept()
            with link:
                link.settimeout(5)
                asked.append(link.recv(65536))
                link.sendall(answer)
                if not closes:
                    with suppress(ConnectionResetError):
                        link.recv(1)  # until the proxy has had enough

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], asked
        thread.join()


@pytest.mark.parametrize("kind", ANSWERS)
def test_answers_of_any_framing_pass_byte_for_byte(kind):
    answer = ANSWERS[kind]
    request = b"%s /x HTTP/1.1\r\nhOSt:  other:1\r\n\r\n" % (b"HEAD" if kind == "head" else b"GET")
    ends = kind == "to the end"
    times = 1 if ends else 2  # the second shows that the proxy saw where the first one ended
    with (
        server_that_says(answer, closes=ends, times=times) as (port, asked),
        proxy_before(port) as proxy,
        socket.create_connection(("127.0.0.1", urlsplit(proxy.endpoint).port), 3) as link,
    ):
        for _ in range(times):
            link.sendall(request)
            got = b""
            while len(got) < len(answer):
                got += link.recv(65536) or pytest.fail(f"ended after {got!r}")
            assert got == answer
        assert asked == [request] * times
        if ends:
            assert link.recv(1) == b""


# --- the faults


def test_unavailable_is_slow_down_and_nothing_is_stored(server):
    with proxy_before(server.port, unavailable=1.0) as proxy:
        client = server.client(proxy.endpoint)
        for size in (0, 3_000_000):
            with pytest.raises(ClientError, match="SlowDown") as caught:
                client.put_object(Bucket=BUCKET, Key="unavailable", Body=body_of(size))
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        with pytest.raises(ClientError, match="503"):
            client.head_object(Bucket=BUCKET, Key="unavailable")
        with pytest.raises(ClientError, match="SlowDown"):
            client.list_objects_v2(Bucket=BUCKET)
        assert proxy.counts["unavailable"] == proxy.counts["requests"] == 4
    with pytest.raises(ClientError, match="NoSuchKey"):
        stored(server, "unavailable")


def test_reset_is_a_reset_and_nothing_is_stored(server):
    with proxy_before(server.port, reset=1.0) as proxy:
        with pytest.raises(BotoCoreError):
            server.client(proxy.endpoint).put_object(Bucket=BUCKET, Key="reset", Body=b"x" * 99)
        assert proxy.counts["reset"] == proxy.counts["requests"] == 1
        link = socket.create_connection(("127.0.0.1", urlsplit(proxy.endpoint).port), 3)
        with link, pytest.raises(ConnectionResetError):
            link.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            link.recv(1)
    with pytest.raises(ClientError, match="NoSuchKey"):
        stored(server, "reset")


def test_truncate_passes_half_of_what_is_read(server):
    body = body_of(1_000_001)
    with proxy_before(server.port, truncate=1.0) as proxy:
        client = server.client(proxy.endpoint)
        client.put_object(Bucket=BUCKET, Key="long", Body=body)
        client.put_object(Bucket=BUCKET, Key="short", Body=b"x")
        assert client.head_object(Bucket=BUCKET, Key="long")["ContentLength"] == len(body)
        assert client.get_object(Bucket=BUCKET, Key="short")["Body"].read() == b"x"
        assert proxy.counts["truncate"] == 0
        got = b""
        with pytest.raises(BotoCoreError):
            for piece in client.get_object(Bucket=BUCKET, Key="long")["Body"].iter_chunks(1000):
                got += piece
        assert got == body[: len(got)]
        assert len(body) // 2 - 1000 <= len(got) <= len(body) // 2
        assert proxy.counts["truncate"] == 1


def test_truncate_cuts_a_chunked_answer():
    with (
        server_that_says(ANSWERS["chunked"]) as (port, _),
        proxy_before(port, truncate=1.0) as proxy,
    ):
        link = http.client.HTTPConnection(urlsplit(proxy.endpoint).netloc, timeout=3)
        link.request("GET", "/")
        with pytest.raises(http.client.IncompleteRead) as caught:
            link.getresponse().read()
        assert b"abcd0123456789abcdef".startswith(caught.value.partial)
        assert proxy.counts["truncate"] == 1
        link.close()


def test_lost_stores_but_does_not_answer(server):
    body = body_of(2_000_000)
    with proxy_before(server.port, lost=1.0) as proxy:
        client = server.client(proxy.endpoint)
        with pytest.raises(BotoCoreError):
            client.put_object(Bucket=BUCKET, Key="lost", Body=body)
        assert stored(server, "lost") == body
        assert client.get_object(Bucket=BUCKET, Key="lost")["Body"].read() == body
        assert proxy.counts["lost"] == 1
        with pytest.raises(BotoCoreError):
            client.delete_object(Bucket=BUCKET, Key="lost")
        with pytest.raises(ClientError, match="NoSuchKey"):
            stored(server, "lost")
        assert proxy.counts["lost"] == 2


def test_slow_is_slow_and_whole(server):
    with proxy_before(server.port, slow=1.0) as proxy:
        client = server.client(proxy.endpoint)
        started = time.monotonic()
        client.put_object(Bucket=BUCKET, Key="slow", Body=b"slow")
        assert client.get_object(Bucket=BUCKET, Key="slow")["Body"].read() == b"slow"
        assert time.monotonic() - started >= 0.6
        assert proxy.counts["slow"] == 2


def test_rates_change_while_it_runs_and_are_kept(server):
    server.client().put_object(Bucket=BUCKET, Key="some", Body=b"some")

    def failures(proxy, requests):
        client, failed = server.client(proxy.endpoint), []
        for _ in range(requests):
            try:
                client.get_object(Bucket=BUCKET, Key="some")["Body"].read()
                failed.append("")
            except (BotoCoreError, ClientError) as error:
                failed.append(type(error).__name__)
        return failed

    with proxy_before(server.port) as proxy:
        assert set(failures(proxy, 20)) == {""}
        proxy.rates.update(unavailable=0.2, reset=0.2)
        mixed = failures(proxy, 200)
        assert proxy.counts["requests"] == 220
        assert 200 - mixed.count("") == proxy.counts["unavailable"] + proxy.counts["reset"]
        assert 20 <= proxy.counts["unavailable"] <= 60
        assert 20 <= proxy.counts["reset"] <= 60
        proxy.rates = {}
        assert set(failures(proxy, 20)) == {""}
    with proxy_before(server.port) as again:
        failures(again, 20)
        again.rates.update(unavailable=0.2, reset=0.2)
        assert failures(again, 200) == mixed


def test_an_unknown_fault_is_refused():
    with pytest.raises(ValueError, match="unavialable"):
        FaultProxy(1, seed=1, rates={"unavialable": 1.0})


def test_a_server_that_is_down_is_a_closed_connection(tmp_path):
    with S3Server(tmp_path / "s3") as server, proxy_before(server.port) as proxy:
        server.create_bucket(BUCKET)
        client = server.client(proxy.endpoint)
        client.put_object(Bucket=BUCKET, Key="k", Body=b"k")
        server.kill()
        for _ in range(3):
            with pytest.raises(ConnectionClosedError):
                client.put_object(Bucket=BUCKET, Key="k", Body=b"down")
        server.restart()
        assert client.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"k"


def test_many_clients_at_once(server, capfd):
    bodies = {f"many/{n}": body_of(50_000 + n, seed=n) for n in range(60)}
    with proxy_before(server.port) as proxy:
        client = server.client(proxy.endpoint)

        def there_and_back(key):
            for _ in range(200):
                try:
                    client.put_object(Bucket=BUCKET, Key=key, Body=bodies[key])
                    return client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
                except (BotoCoreError, ClientError):
                    pass
            return None

        proxy.rates.update(dict.fromkeys(FAULTS, 0.1))
        with ThreadPoolExecutor(8) as pool:
            assert dict(zip(bodies, pool.map(there_and_back, bodies), strict=True)) == bodies
        assert all(proxy.counts[fault] for fault in FAULTS), proxy.counts
        # Connections that wait and one in the middle of a request do not hold up the end.
        port = urlsplit(proxy.endpoint).port
        with socket.create_connection(("127.0.0.1", port), 3) as link:
            link.sendall(b"PUT /data/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
            time.sleep(0.1)
            started = time.monotonic()
            proxy.stop()
            assert time.monotonic() - started < 1
    assert capfd.readouterr() == ("", "")
