"""The page of every setting is the one that the classes give now."""

from pathlib import Path

from rerank_batch.config.reference import page


def test_the_page_is_up_to_date() -> None:
    written = Path("configs/reference.md").read_text(encoding="utf-8")
    command = "python -m rerank_batch.config.reference > configs/reference.md"
    assert page() == written, f"run {command}"


def test_a_row_has_the_type_the_bounds_the_default_and_the_readers() -> None:
    rows = page().splitlines()
    (layer,) = [row for row in rows if row.startswith("| `reranker.layer`")]
    assert layer.startswith("| `reranker.layer` | whole number or null, at least 1 | `null` | ")
    assert layer.endswith(" Read by bge-layerwise. |")
    assert any(row.startswith("| `cost.prices.NAME.request` | number") for row in rows)
    assert "| `evaluation.systems.NAME.reranker.…` |  |  | As `reranker`. |" in rows
