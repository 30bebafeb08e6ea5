"""What sentence-transformers stores beside a model's weights: prompts. Imports no model library."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rerank_batch.models.settings import json_file

_DOCUMENT = ("document", "passage", "corpus")


def stored_prompts(folder: Path) -> dict[str, str]:
    """The prompts in a model's folder by their names, and the default one's name as ``default``.

    Empty where no prompt says anything: then scores are those of a model without prompts.
    """
    settings = json_file(folder / "config_sentence_transformers.json")
    listed = settings.get("prompts")
    named = listed.items() if isinstance(listed, dict) else ()
    prompts = {str(name): str(text) for name, text in named if text}
    default = settings.get("default_prompt_name")
    return {**prompts, **({"default": str(default)} if default else {})} if prompts else {}


def default_of(folder: Path) -> str:
    """The text of the prompt that a folder stores as its default; empty where there is none."""
    prompts = stored_prompts(folder)
    return prompts.get(prompts.get("default", ""), "")


def default_prompt(model: Any) -> str:
    """What `CrossEncoder.predict` puts before the query; empty where there is nothing to put."""
    return _text(model.prompts, model.default_prompt_name)


def task_prompt(model: Any, task: str) -> str:
    """What sentence-transformers puts before a text, as its `encode_query` looks it up."""
    names = ("query",) if task == "query" else _DOCUMENT
    for name in (*names, model.default_prompt_name):
        if name in model.prompts:
            return _text(model.prompts, name)
    return ""


def _text(prompts: Mapping[str, str | None], name: str | None) -> str:
    return "" if name is None else str(prompts.get(name) or "")
