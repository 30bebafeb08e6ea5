"""Tiny random models of every family with weights."""

from pathlib import Path

import pytest

from tests.support import tiny_models


@pytest.fixture(scope="session")
def folders(
    tiny_cross_encoder: Path, tiny_bi_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Folders by family, or by family and kind of model."""
    found = {"cross-encoder": tiny_cross_encoder, "late-interaction": tiny_bi_encoder}
    written = {
        "late-interaction colbert": tiny_models.write_colbert,
        "qwen3-reranker": tiny_models.write_qwen3_reranker,
        "mxbai-v2": tiny_models.write_mxbai_v2,
        "bge-gemma": tiny_models.write_bge_gemma,
        "bge-layerwise": tiny_models.write_bge_layerwise,
    }
    for model, write in written.items():
        found[model] = write(tmp_path_factory.mktemp(model.replace(" ", "-")))
    return found
