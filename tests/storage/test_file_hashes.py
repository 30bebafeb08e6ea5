"""Hashes of files, kept on a node: each file is read once, and again where it changed."""

import importlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from rerank_batch.models.fingerprint import (
    model_fingerprint,
)
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.scoring.modes import Mode
from rerank_batch.storage.file_hashes import KEPT, file_hashes
from tests.support.model_files import make_model

hashes_module = importlib.import_module("rerank_batch.storage.file_hashes")
OPTIONS = ScorerOptions(mode=Mode("torch", "fp32"))


@pytest.fixture
def hashed(monkeypatch):
    """The names of files that were read to be hashed."""
    names = []
    real = hashes_module.sha256_file
    monkeypatch.setattr(
        hashes_module, "sha256_file", lambda path: names.append(path.name) or real(path)
    )
    return names


def aged(folder: Path) -> list[Path]:
    """The files of a folder, as if they had been written ten minutes ago."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for file in files:
        os.utime(file, ns=(time.time_ns() - 600 * 10**9,) * 2)
    return files


@pytest.fixture
def settled(tmp_path, monkeypatch):
    """A folder of files that changed long ago; the time of a file's entry cannot be set back."""
    make_model(tmp_path)
    monkeypatch.setattr(hashes_module, "_SETTLED_NS", -1)
    return tmp_path


def test_a_node_hashes_a_file_once(settled, hashed):
    files = aged(settled)
    first = file_hashes(settled, files)
    assert len(hashed) == len(files)
    assert file_hashes(settled, files) == first
    assert len(hashed) == len(files), "the second time nothing is read"
    assert model_fingerprint(settled) == model_fingerprint(settled)


def test_a_changed_file_is_hashed_again_even_with_its_old_size_and_time(settled, hashed):
    files = aged(settled)
    before = file_hashes(settled, files)
    hashed.clear()
    vocabulary = settled / "vocab.txt"
    stat = vocabulary.stat()
    vocabulary.write_text("sdrow")  # as long as before
    os.utime(vocabulary, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = file_hashes(settled, files)
    assert hashed == ["vocab.txt"]
    assert {name for name in before if before[name] != after[name]} == {"vocab.txt"}


def test_a_file_that_was_written_just_now_is_hashed_again(tmp_path, hashed):
    """A clock tick may hide a later change, so its sum is not kept."""
    files = [make_model(tmp_path) / "vocab.txt"]
    file_hashes(tmp_path, files)
    file_hashes(tmp_path, files)
    assert hashed == ["vocab.txt", "vocab.txt"]


def test_sums_of_a_copied_folder_are_its_own(settled, tmp_path_factory, hashed):
    before = file_hashes(settled, aged(settled))
    there = tmp_path_factory.mktemp("copies") / "model"
    shutil.copytree(settled, there, copy_function=shutil.copy2)
    (there / "vocab.txt").write_text("other")
    names = [Path(name) for name in before]
    assert file_hashes(there, [there / name for name in names])["vocab.txt"] != before["vocab.txt"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"vocab.txt": 3}', '{"vocab.txt": [1]}'])
def test_damaged_sums_cost_time_only(settled, content):
    files = aged(settled)
    expected = file_hashes(settled, files)
    (settled / KEPT).write_text(content)
    assert file_hashes(settled, files) == expected
    assert set(json.loads((settled / KEPT).read_text())) == set(expected)


def test_a_folder_that_cannot_be_written_is_hashed_each_time(settled, monkeypatch, hashed):
    def refused(*_, **__):
        raise OSError("read-only file system")

    monkeypatch.setattr(hashes_module, "FileLock", refused)
    monkeypatch.setattr(hashes_module.tempfile, "mkstemp", refused)
    files = aged(settled)
    assert file_hashes(settled, files) == file_hashes(settled, files)
    assert len(hashed) == 2 * len(files)
