"""What keeps Ray from starting is said at once, and by its name."""

import os
import shutil
import socket
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rerank_batch.config import ComputeConfig
from rerank_batch.errors import ComputeError, ConfigError, StorageError
from rerank_batch.ray_backend import start as ray_start
from rerank_batch.ray_backend.start import check_ray, check_scratch, connected, without_stderr

Usage = namedtuple("Usage", "total used free")


def nobody(text: str) -> None:
    raise AssertionError(f"said {text!r}")


@contextmanager
def listener(answer: bytes | None) -> Iterator[int]:
    """Something that takes calls and says the same to each; nothing for None."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        calls: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    call, _ = server.accept()
                except OSError:
                    return
                calls.append(call)
                if answer is not None:
                    call.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        for call in calls:
            call.close()


@pytest.fixture(autouse=True)
def no_ray_address(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def reach(address, seconds=1.0, say=nobody):
    return check_ray(ComputeConfig(address=address, connect_seconds=seconds), say)


def test_a_dead_cluster_is_given_up_and_named(monkeypatch):
    began = time.monotonic()
    with pytest.raises(ComputeError) as error:
        reach("127.0.0.1:9")
    assert time.monotonic() - began < 3
    said = str(error.value)
    for words in ("at 127.0.0.1:9 cannot be reached", "connection refused", "RAY_ADDRESS"):
        assert words in said
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:9")
    with pytest.raises(ComputeError, match=r"at ray://127\.0\.0\.1:9 cannot be reached"):
        reach(None)
    with pytest.raises(ComputeError, match=r"no-such\.invalid has no address"):
        reach("no-such.invalid:6379")


@pytest.mark.parametrize(
    ("answer", "why"), [(None, "no answer"), (b"HTTP/1.0 400 Bad request\r\n", "is no Ray")]
)
def test_what_listens_but_is_no_ray_is_given_up_as_well(answer, why):
    began = time.monotonic()
    with listener(answer) as port, pytest.raises(ComputeError, match=why):
        reach(f"127.0.0.1:{port}")
    assert time.monotonic() - began < 4


def test_a_server_that_greets_as_ray_does_is_left_to_ray():
    with listener(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])) as port:
        assert reach(f"127.0.0.1:{port}", seconds=30) > 20


def test_what_is_waited_for_is_said(monkeypatch):
    monkeypatch.setattr(ray_start, "_NOTE_AFTER_SECONDS", 0.1)
    said: list[str] = []
    with pytest.raises(ComputeError):
        reach("127.0.0.1:9", say=said.append)
    assert said == ["waiting for the Ray cluster at 127.0.0.1:9"]


def test_a_cluster_that_answers_and_then_blocks_is_given_up(monkeypatch):
    monkeypatch.setattr(ray_start, "_NOTE_AFTER_SECONDS", 0.1)
    said: list[str] = []
    with pytest.raises(ComputeError, match="lets nobody join"):
        connected(threading.Event().wait, "somewhere:1", 0.5, said.append)
    assert said == ["waiting for the Ray cluster at somewhere:1"]
    assert connected(lambda: 5, "somewhere:1", 30, nobody) == 5
    with pytest.raises(ValueError, match="other version"):
        connected(lambda: int("other version"), "somewhere:1", 30, nobody)


@pytest.mark.parametrize(
    "address", ["head", "head:", ":1", "head:port", "head:70000", "ray://head"]
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(ConfigError, match="is no address of a Ray cluster; write HOST:PORT"):
        reach(address)


def test_other_forms_of_an_address_are_left_to_ray():
    for address in ("auto", "http://head:8265"):
        assert reach(address, seconds=30) > 20


def test_a_line_is_heard_though_ray_s_are_not(capfd):
    with without_stderr(True) as aloud:
        os.write(2, b"from Ray\n")
        aloud(lambda text: os.write(2, text.encode()))("from us\n")
        os.write(2, b"from Ray\n")
    assert capfd.readouterr().err == "from us\n"


# --- the folder of a Ray that is started here ---------------------------------------------------


@pytest.fixture
def scratch(tmp_path_factory, monkeypatch):
    """A short TMPDIR, as that of pytest may be too long itself."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    folder = tmp_path_factory.mktemp("s")
    monkeypatch.setattr(ray_start, "_LONGEST_SOCKET", len(os.fsencode(folder)) + 80)
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def free(monkeypatch, scratch, of_shm, of_tmp):
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda path: Usage(0, 0, of_shm if str(path) == "/dev/shm" else of_tmp),
    )


def test_a_folder_with_room_is_taken(scratch, monkeypatch):
    free(monkeypatch, scratch, 1 << 30, 1 << 30)
    check_scratch(100 << 20)
    assert not list((scratch / "ray").iterdir()), "nothing is left behind"


def test_a_folder_with_a_long_name_is_named(tmp_path, monkeypatch):
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path / ("x" * 90)))
        with pytest.raises(ComputeError) as error:
            check_ray(ComputeConfig(address="local"), nobody)
        assert f"its sockets lie under {name}" in str(error.value)
        assert "set TMPDIR or RAY_TMPDIR to a shorter path" in str(error.value)


def test_the_length_is_that_of_ray_s_own_sockets():
    from ray._private.utils import validate_socket_filepath

    longest = ray_start._LONGEST_SOCKET
    validate_socket_filepath("x" * longest)
    with pytest.raises(OSError):
        validate_socket_filepath("x" * (longest + 1))


def test_a_full_disk_is_named(scratch, monkeypatch):
    free(monkeypatch, scratch, 1 << 30, 1 << 20)
    with pytest.raises(StorageError, match=r"has 1 MB free and Ray needs 34 MB"):
        check_scratch(100 << 20)

    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(StorageError, match=r"is full \(No space left on device\); free space"):
        check_scratch(100 << 20)


def test_shared_memory_that_is_too_small_is_taken_from_the_disk(scratch, monkeypatch):
    free(monkeypatch, scratch, 64 << 20, 200 << 20)
    check_scratch(100 << 20)
    with pytest.raises(StorageError, match=r"/dev/shm is too small"):
        check_scratch(300 << 20)


def test_a_folder_that_cannot_be_made_is_named(scratch, monkeypatch):
    file = scratch / "file"
    file.touch()
    monkeypatch.setenv("TMPDIR", str(file))
    with pytest.raises(ComputeError, match=r"cannot be written to \(Not a directory\); set TMPDIR"):
        check_scratch(100 << 20)


def test_ray_gets_a_home_where_there_is_none_to_write_to(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HF_HOME", "")
    monkeypatch.delenv("HF_HOME")
    private = str(tmp_path / f"rerank_batch-{os.getuid()}")
    home = tmp_path / "home"
    (home / ".cache/huggingface").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    ray_start._have_a_home()
    assert os.environ["HOME"] == str(home)
    monkeypatch.setattr(os, "access", lambda *_: False)
    ray_start._have_a_home()
    assert os.environ["HOME"] == private
    assert os.environ["HF_HOME"] == str(home / ".cache/huggingface")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(ray_start, "home", lambda: None)
    ray_start._have_a_home()
    assert os.environ["HOME"] == private
