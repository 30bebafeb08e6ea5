"""What only a folder can do wrong: half files, links that lead out, names that are files."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rerank_batch.errors import StorageError
from rerank_batch.storage.folder import Folder
from tests.storage.test_base import VERBS


@pytest.fixture
def root(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "root"))


def everything_in(folder: Path) -> list[str]:
    """Every file, hidden ones as well."""
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


_RACER = """
import sys, time
from pathlib import Path
from rerank_batch.storage.folder import Folder
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


def test_unfinished_files_are_no_objects(root: Folder, tmp_path: Path) -> None:
    root.create_once("runs/b", b"")
    (tmp_path / "root" / "runs" / ".b.0123").write_bytes(b"half")
    assert root.sizes("runs/") == {"runs/b": 0}
    assert root.stale_uploads("runs/", -1) == ["runs/.b.0123"]


@pytest.mark.parametrize("verb", VERBS)
def test_a_link_that_leads_out_of_the_root_is_refused(
    root: Folder, tmp_path: Path, verb: str
) -> None:
    root.create_once("inside", b"")
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    (tmp_path / "x").write_bytes(b"outside")
    with pytest.raises(StorageError, match="outside the root"):
        VERBS[verb](root, "link/x", tmp_path / "x")
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


@pytest.mark.parametrize("verb", ["create_once", "swap", "publish", "read", "size", "delete"])
def test_a_root_that_is_a_file_is_a_storage_error(tmp_path: Path, verb: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"I am no folder")
    with pytest.raises(StorageError, match=r"runs/x"):
        VERBS[verb](Folder(str(file)), "runs/x", file)
    assert file.read_bytes() == b"I am no folder"


def test_deleting_removes_folders_that_end_up_empty_and_no_others(
    root: Folder, tmp_path: Path
) -> None:
    for key in ("a/b/c/1", "a/b/2"):
        root.create_once(key, b"")
    root.delete(["a/b/c/1"])
    assert not (tmp_path / "root/a/b/c").exists()
    root.delete(["a/b/2"])
    assert not (tmp_path / "root/a").exists()
    assert (tmp_path / "root").is_dir()
