"""Settings of a model, from its JSON files."""

from pathlib import Path

import pytest

from rerank_batch.errors import ModelError
from rerank_batch.models.settings import model_settings
from tests.support.model_files import make_model


def test_settings_are_those_of_the_transformer(tmp_path: Path) -> None:
    folder = make_model(tmp_path)
    assert model_settings(folder) == {"hidden_size": 32}
    (folder / "config.json").write_text('{"hidden')
    with pytest.raises(ModelError, match=r"config\.json is damaged"):
        model_settings(folder)
    (folder / "config.json").unlink()
    assert model_settings(folder) == {}
