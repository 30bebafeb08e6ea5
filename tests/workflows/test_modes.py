"""Which mode a model runs in: measured once for a root, and a run ends in the one it began with."""

from types import SimpleNamespace
from typing import Any

import pytest

from rerank_batch.errors import StorageError
from rerank_batch.models.fingerprint import ModelPin
from rerank_batch.pipeline.pools import Pool
from rerank_batch.retrieval.options import EncoderOptions
from rerank_batch.scoring.modes import Choice, Mode
from rerank_batch.storage import Root
from rerank_batch.workflows import modes

OPENVINO, TORCH = Mode("openvino", "fp32"), Mode("torch", "fp32")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Choice]:
    """What the next measurements will find; the last one again and again."""
    found = [Choice(OPENVINO, {"openvino fp32": 2.0, "torch fp32": 1.0})]

    def on_worker(*_: Any) -> Choice:
        return found.pop(0)

    monkeypatch.setattr(modes, "on_worker", on_worker)
    return found


def ask(root: Root, fingerprint: str = "a", **options: Any) -> Mode:
    console: Any = SimpleNamespace(note=lambda text: None)
    choice = modes.encoder_mode(
        root, ModelPin("folder", fingerprint), EncoderOptions(**options), Pool(1, 1), console
    )
    return choice.mode


def test_a_mode_is_measured_once_for_a_root_and_a_model(root, measured):
    assert ask(root) == OPENVINO
    assert measured == []
    assert ask(root) == OPENVINO, "a second measurement would have found nothing to pop"
    measured.append(Choice(TORCH, {}))
    assert ask(root, fingerprint="another model") == TORCH
    assert ask(root) == OPENVINO


def test_other_modes_to_choose_from_are_another_measurement(root, measured):
    assert ask(root) == OPENVINO
    measured.append(Choice(Mode("openvino", "bf16"), {}))
    assert ask(root, precision="bf16") == Mode("openvino", "bf16")
    assert ask(root) == OPENVINO


def test_where_there_is_one_mode_nothing_is_measured(root, measured):
    assert ask(root, runtime="torch") == TORCH
    assert len(measured) == 1


def test_a_damaged_object_is_named(root, measured, tmp_path):
    ask(root)
    (key,) = root.sizes("modes/")
    bad = tmp_path / "bad"
    bad.write_text("{")
    root.publish(key, bad)
    with pytest.raises(StorageError, match=f"{key} is damaged"):
        ask(root)
