"""Folders that look like models, and hold no weights."""

from pathlib import Path

NO_TENSORS = "\x02" + "\x00" * 7 + "{}"
"""The smallest whole safetensors file: the length of its header, and an empty header."""

FILES = {
    "config.json": '{"hidden_size": 32}',
    "model.safetensors": NO_TENSORS,
    "tokenizer.json": "{}",
    "vocab.txt": "words",
    "1_Pooling/config.json": '{"mean": true}',
    "README.md": "about",
}


def make_model(folder: Path, *without: str, **more: str) -> Path:
    for name, text in {**FILES, **more}.items():
        if name not in without:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    return folder
