"""The size and shape of the tree in figures: `python -m tests.support.figures [FOLDER]`."""

import ast
import io
import sys
import tokenize
from pathlib import Path

_SILENT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENCODING, tokenize.ENDMARKER,
}  # fmt: skip


def code_lines(text: str) -> int:
    """Lines with code on them: no blank lines, comments or docstrings."""
    words = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        for each in body if isinstance(body, list) else []:
            value = getattr(each, "value", None)
            if isinstance(each, ast.Expr) and isinstance(value, ast.Constant):
                words |= set(range(each.lineno, (each.end_lineno or 0) + 1))
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _SILENT:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - words)


def figures(root: Path) -> dict[str, object]:
    """The figures of a checkout."""
    files = [f for name in ("jobs", "rerank_batch") for f in (root / name).rglob("*.py")]
    texts = {file: file.read_text("utf-8") for file in files}
    longest = max(files, key=lambda file: len(texts[file].splitlines()))
    return {
        "modules": len(files),
        "lines of code": sum(map(code_lines, texts.values())),
        "longest module": f"{longest.relative_to(root)}, {len(texts[longest].splitlines())} lines",
        "dict[str, Any]": sum(text.count("dict[str, Any]") for text in texts.values()),
        "flat modules in rerank_batch": len(list((root / "rerank_batch").glob("*.py"))),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2]
    for name, value in figures(folder).items():
        print(f"{name:30} {value:,}" if isinstance(value, int) else f"{name:30} {value}")
