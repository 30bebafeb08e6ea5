"""A folder as a root: one winner, no half objects, nothing outside; and finding input files."""

import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rerank_batch.errors import ConfigError, InputError, StorageError
from rerank_batch.storage import Folder, input_files, open_root, sha256_file


@pytest.fixture
def root(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "root"))


def everything_in(folder: Path) -> list[str]:
    """Every file, hidden ones as well."""
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


def all_at_once(actions: list[Callable[[], bool]]) -> list[bool]:
    barrier = threading.Barrier(len(actions))

    def start(action: Callable[[], bool]) -> bool:
        barrier.wait()
        return action()

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(start, actions))


# --- the verbs -------------------------------------------------------------------------------


def test_what_was_created_can_be_read_and_has_its_size(root: Folder) -> None:
    assert root.read("a/b.json") is None
    assert root.size("a/b.json") is None
    assert root.create_once("a/b.json", b"one")
    assert root.read("a/b.json") == b"one"
    assert root.size("a/b.json") == 3
    assert Path(root.path("a/b.json")).read_bytes() == b"one"


def test_creating_again_is_refused_and_changes_nothing(root: Folder) -> None:
    assert root.create_once("a", b"one")
    assert not root.create_once("a", b"two")
    assert root.read("a") == b"one"


def test_one_of_eight_threads_creates(root: Folder) -> None:
    for number in range(25):
        key = f"commits/{number}.json"
        bodies = [f"writer {w}".encode() for w in range(8)]
        won = all_at_once([lambda k=key, b=b: root.create_once(k, b) for b in bodies])
        assert sum(won) == 1
        assert root.read(key) == bodies[won.index(True)]


_RACER = """
import sys, time
from pathlib import Path
from rerank_batch.storage import Folder
folder, me, racers = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
root = Folder(str(folder / "root"))
(folder / f"ready-{me}").touch()
while len(list(folder.glob("ready-*"))) < racers:
    time.sleep(0.001)
print(*(n for n in range(100) if root.create_once(f"commits/{n}", me.encode())))
"""


def test_one_of_four_processes_creates(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, str(tmp_path), str(me), "4"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for me in range(4)
    ]
    won = [(int(key), me) for me, p in enumerate(racers) for key in p.communicate()[0].split()]
    assert sorted(key for key, _ in won) == list(range(100))
    root = Folder(str(tmp_path / "root"))
    assert all(root.read(f"commits/{key}") == str(me).encode() for key, me in won)


def test_swap_replaces_only_what_it_expects(root: Folder) -> None:
    assert not root.swap("latest", b"one", expected=b"zero")
    assert root.read("latest") is None
    assert root.swap("latest", b"one", expected=None)
    assert not root.swap("latest", b"two", expected=None)
    assert root.swap("latest", b"two", expected=b"one")
    assert not root.swap("latest", b"three", expected=b"one")
    assert root.read("latest") == b"two"


def test_one_of_eight_threads_swaps(root: Folder) -> None:
    current = None
    for number in range(25):
        bodies = [f"{number} by {w}".encode() for w in range(8)]
        won = all_at_once([lambda b=b, c=current: root.swap("latest", b, c) for b in bodies])
        assert sum(won) == 1
        current = bodies[won.index(True)]
        assert root.read("latest") == current


def test_a_list_is_sorted_and_shows_finished_objects_only(root: Folder, tmp_path: Path) -> None:
    assert root.list("runs/") == []
    for key in ("runs/b", "runs/a/2", "runs/a/1", "jobs/x"):
        root.create_once(key, b"")
    root.swap("runs/c", b"", expected=None)
    (tmp_path / "root" / "runs" / ".b.0123").write_bytes(b"half")
    assert root.list("runs/") == ["runs/a/1", "runs/a/2", "runs/b", "runs/c"]
    assert root.list("runs/a/") == ["runs/a/1", "runs/a/2"]


def test_publishing_copies_a_file_over_what_was_there(root: Folder, tmp_path: Path) -> None:
    local = tmp_path / "local"
    for body in (b"one", b"another"):
        local.write_bytes(body)
        root.publish("data/x.parquet", local)
        assert root.read("data/x.parquet") == body
    assert local.exists()


# --- what must not happen ----------------------------------------------------------------------

VERBS: dict[str, Callable[[Folder, str, Path], object]] = {
    "read": lambda root, key, local: root.read(key),
    "create_once": lambda root, key, local: root.create_once(key, b""),
    "swap": lambda root, key, local: root.swap(key, b"new", root.read(key)),
    "list": lambda root, key, local: root.list(key),
    "publish": lambda root, key, local: root.publish(key, local),
    "size": lambda root, key, local: root.size(key),
    "path": lambda root, key, local: root.path(key),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/hostname", "link/x"])
def test_a_key_that_leaves_the_root_is_refused(
    root: Folder, tmp_path: Path, verb: str, key: str
) -> None:
    root.create_once("inside", b"")
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    (tmp_path / "x").write_bytes(b"outside")
    with pytest.raises(StorageError, match="outside the root"):
        VERBS[verb](root, key, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"outside"


def _disk_is_full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def _copies_half(source: Path, target: Path) -> None:
    Path(target).write_bytes(Path(source).read_bytes()[:1])
    _disk_is_full()


@pytest.mark.parametrize(
    ("verb", "module", "call", "fault"),
    [
        ("create_once", os, "link", _disk_is_full),
        ("create_once", os, "fsync", _disk_is_full),
        ("swap", os, "replace", _disk_is_full),
        ("publish", os, "replace", _disk_is_full),
        ("publish", shutil, "copyfile", _copies_half),
    ],
)
def test_a_failed_write_leaves_the_old_object_and_no_temporaries(
    root: Folder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    module: object,
    call: str,
    fault: Callable[..., None],
) -> None:
    local = tmp_path / "local"
    local.write_bytes(b"new")
    key = "d/new" if verb == "create_once" else "d/old"
    root.create_once("d/old", b"")
    monkeypatch.setattr(module, call, fault)
    with pytest.raises(StorageError, match=f"{key}.*No space left"):
        VERBS[verb](root, key, local)
    monkeypatch.undo()
    files = [name for name in everything_in(tmp_path / "root") if not name.endswith(".lock")]
    assert files == ["d/old"]
    assert root.read("d/old") == b""


def test_losing_a_race_leaves_no_temporaries(root: Folder, tmp_path: Path) -> None:
    for _ in range(2):
        root.create_once("a", b"")
        root.swap("b", b"", expected=None)
    names = everything_in(tmp_path / "root")
    assert [name for name in names if not name.endswith(".lock")] == ["a", "b"]


@pytest.mark.parametrize("verb", ["create_once", "swap", "publish", "read", "size"])
def test_a_root_that_is_a_file_is_a_storage_error(tmp_path: Path, verb: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"I am no folder")
    with pytest.raises(StorageError, match=r"runs/x"):
        VERBS[verb](Folder(str(file)), "runs/x", file)
    assert file.read_bytes() == b"I am no folder"


def test_object_storage_is_refused_for_now() -> None:
    with pytest.raises(ConfigError, match=r"s3://bucket.*folders only"):
        open_root("s3://bucket/runs")


# --- input files -----------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "log"
    for name in (
        "date=2026-01-02/b.parquet",
        "date=2026-01-01/a.parquet",
        "date=2026-01-01/notes.txt",
        "date=2026-01-01/_SUCCESS.parquet",
        "date=2026-01-01/.part.parquet",
        "_temporary/0/c.parquet",
        ".hidden/d.parquet",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def found(path: Path | str, base: Path) -> list[str]:
    files = input_files(str(path), (".parquet",), "queries")
    return [str(file.relative_to(base)) for file in files]


def test_a_folder_is_searched_to_the_bottom_without_the_writers_notes(log: Path) -> None:
    assert found(log, log) == ["date=2026-01-01/a.parquet", "date=2026-01-02/b.parquet"]


def test_a_folder_below_a_hidden_one_is_read_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / ".sample" / "_log"
    folder.mkdir(parents=True)
    (folder / "a.parquet").touch()
    assert found(folder, folder) == ["a.parquet"]


def test_a_file_is_itself_whatever_its_name(log: Path) -> None:
    assert found(log / "date=2026-01-01/notes.txt", log) == ["date=2026-01-01/notes.txt"]


def test_a_glob_names_files(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = ["date=2026-01-01/a.parquet", "date=2026-01-02/b.parquet"]
    assert found(log / "date=*" / "[ab].parquet", log) == both
    monkeypatch.chdir(tmp_path)
    assert found("log/*/[ab].parquet", Path("log")) == both


def test_brackets_in_the_name_of_something_that_exists_are_no_glob(tmp_path: Path) -> None:
    folder = tmp_path / "log [2026]"
    folder.mkdir()
    (folder / "a.parquet").touch()
    assert found(folder, folder) == ["a.parquet"]


@pytest.mark.parametrize("name", ["nothing", "*/nothing-*.parquet", "empty", "a**.parquet"])
def test_what_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises((InputError, ConfigError)) as error:
        input_files(str(tmp_path / name), (".parquet",), "queries")
    assert "queries" in str(error.value)
    assert str(tmp_path / name) in str(error.value)


def test_inputs_from_object_storage_are_refused_for_now() -> None:
    with pytest.raises(ConfigError, match=r"corpus path 's3://bucket/x'.*local files only"):
        input_files("s3://bucket/x", (".parquet",), "corpus")


def test_a_checksum_covers_every_byte(tmp_path: Path) -> None:
    file = tmp_path / "big"
    body = bytearray((1 << 20) + 7)
    file.write_bytes(body)
    before = sha256_file(file)
    body[-1] = 1
    file.write_bytes(body)
    assert sha256_file(file) != before
