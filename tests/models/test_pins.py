"""A run works with the model that its driver found: pins, commits of the hub, kept sums."""

import importlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from rerank_batch.errors import ModelError
from rerank_batch.models.location import (
    ModelChanged,
    ModelName,
    ModelPin,
    model_fingerprint,
    pin_model,
    pinned_model,
)
from rerank_batch.pipeline.index_stages import EncodeDocuments
from rerank_batch.rerankers import choose_mode, load_scorer
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.retrieval.options import EncoderOptions
from rerank_batch.retrieval.stages import EncodeQueries, choose_encoder_mode
from rerank_batch.scoring.modes import Mode
from rerank_batch.storage.file_hashes import KEPT, file_hashes
from tests.models.test_location import NO_TENSORS, make_model

hashes_module = importlib.import_module("rerank_batch.storage.file_hashes")
OPTIONS = ScorerOptions(mode=Mode("torch", "fp32"))


# --- pins ------------------------------------------------------------------------------------


def test_a_pinned_model_is_opened_while_its_files_are_the_same(tmp_path):
    pin, folder = pin_model(str(make_model(tmp_path)))
    with pinned_model(pin) as opened:
        assert opened == folder == tmp_path


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "vocab.txt"])
def test_other_files_than_the_run_began_with_are_refused(tmp_path, file):
    pin, folder = pin_model(str(make_model(tmp_path)))
    added = "{}     ".ljust(9) if file.endswith(".safetensors") else " "
    changed = NO_TENSORS.replace("\x02", "\x09").replace("{}", added)
    (folder / file).write_text(changed if file.endswith(".safetensors") else added)
    with pytest.raises(ModelError, match=r"fingerprint .* the run's is"), pinned_model(pin):
        pytest.fail("opened other files")


def test_files_that_are_replaced_while_they_are_loaded_are_refused(tmp_path):
    pin, folder = pin_model(str(make_model(tmp_path)))
    with pytest.raises(ModelChanged, match="Nothing was scored"), pinned_model(pin):
        (folder / "vocab.txt").write_text("other words")


def test_no_worker_loads_another_model_than_the_runs(tiny_cross_encoder, tiny_bi_encoder):
    """Whatever loads a model on a worker compares it first: rerankers, encoders, measurements."""
    reranker = ModelName("cross-encoder", str(tiny_cross_encoder))
    others = ModelPin(reranker.location, "0" * 64)
    encoder = ModelPin(str(tiny_bi_encoder), "0" * 64)
    for load in (
        lambda: load_scorer(reranker, OPTIONS, others),
        lambda: choose_mode(reranker, OPTIONS, others),
        lambda: EncodeQueries(encoder, EncoderOptions()),
        lambda: EncodeDocuments(encoder, EncoderOptions(), texts=None),
        lambda: choose_encoder_mode(encoder, EncoderOptions()),
    ):
        with pytest.raises(ModelChanged):
            load()


# --- the hub ---------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub cache as huggingface_hub lays it out, with two commits of one model."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = tmp_path / "models--org--model"
    for commit, words in (("a" * 40, "old words"), ("b" * 40, "new words")):
        make_model(model / "snapshots" / commit, **{"vocab.txt": words})
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("a" * 40)
    (model / "refs" / "v2").write_text("b" * 40)
    return model


def test_a_hub_model_is_resolved_to_its_commit_once(hub):
    """The run goes on with the commit that its driver found, wherever main is by then."""
    pin, folder = pin_model("org/model")
    assert pin.location == "org/model@" + "a" * 40
    (hub / "refs" / "main").write_text("b" * 40)
    with pinned_model(pin) as opened:
        assert opened == folder
        assert (opened / "vocab.txt").read_text() == "old words"
    assert pin_model("org/model")[0].location == "org/model@" + "b" * 40


@pytest.mark.parametrize("revision", ["v2", "b" * 40])
def test_a_revision_can_be_given(hub, revision):
    pin, folder = pin_model(f"org/model@{revision}")
    assert pin.location == "org/model@" + "b" * 40
    assert (folder / "vocab.txt").read_text() == "new words"


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("org/model@nowhere", r"'org/model@nowhere' is no folder here and could not be fetched"),
        ("org/model@", "name a commit, a tag or a branch after the @"),
        ("./model@v2", r"no model folder at \./model@v2"),
        ("package:json@v2", "package:json@v2: no such package"),
    ],
)
def test_a_revision_that_cannot_be_had_is_named(hub, location, message):
    with pytest.raises(ModelError, match=message):
        pin_model(location)


def test_a_folder_has_no_revision(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "org" / "model")
    with pytest.raises(ModelError, match="org/model is a folder here"):
        pin_model("org/model@v2")
    assert pin_model("org/model")[0].location == "org/model"


# --- sums kept on a node ---------------------------------------------------------------------


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
