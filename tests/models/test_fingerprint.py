"""A run works with the model that its driver found: fingerprints, pins, commits of the hub."""

import importlib
from pathlib import Path

import pytest

from rerank_batch.errors import ModelError
from rerank_batch.models.fingerprint import (
    ModelChanged,
    ModelPin,
    model_fingerprint,
    pin_model,
    pinned_model,
)
from rerank_batch.models.location import ModelName
from rerank_batch.pipeline.index_stages import EncodeDocuments
from rerank_batch.rerankers import choose_mode, load_scorer
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.retrieval.options import EncoderOptions
from rerank_batch.retrieval.stages import EncodeQueries, choose_encoder_mode
from rerank_batch.scoring.modes import Mode
from tests.support.model_files import FILES, NO_TENSORS, make_model

hashes_module = importlib.import_module("rerank_batch.storage.file_hashes")
OPTIONS = ScorerOptions(mode=Mode("torch", "fp32"))


# --- fingerprints ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(FILES) - {"README.md"}))
@pytest.mark.parametrize("place", ["model", ".cache/huggingface/hub/model"])
def test_a_changed_byte_of_weights_tokenizer_or_settings_changes_the_fingerprint(
    tmp_path: Path, place: str, name: str
) -> None:
    folder = make_model(tmp_path / place)
    before = model_fingerprint(folder)
    (folder / name).write_text(FILES[name] + " ")
    assert model_fingerprint(folder) != before


def test_a_renamed_or_added_file_changes_the_fingerprint(tmp_path: Path) -> None:
    folder = make_model(tmp_path)
    prints = {model_fingerprint(folder)}
    (folder / "vocab.txt").rename(folder / "merges.txt")
    prints.add(model_fingerprint(folder))
    (folder / "chat_template.jinja").write_text("x")
    prints.add(model_fingerprint(folder))
    assert len(prints) == 3


def test_what_only_people_read_and_where_it_lies_is_not_in_the_fingerprint(tmp_path: Path) -> None:
    here, there = make_model(tmp_path / "here"), make_model(tmp_path / "there" / "deeper")
    (there / "README.md").write_text("another text")
    (there / "picture.png").write_text("")
    (there / ".cache").mkdir()
    (there / ".cache" / "download.json").write_text("a note of the hub client")
    assert model_fingerprint(here) == model_fingerprint(there)


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
