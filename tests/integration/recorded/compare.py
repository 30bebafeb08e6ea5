"""Tells how two recordings differ: ``python -m tests.integration.recorded.compare BEFORE AFTER``.

Exit code 1 where they do.
"""

import argparse
import difflib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MOST_LINES = 60


def differences(before: Path, after: Path) -> Iterator[str]:
    """A block of text for each recording that is not the same in both folders."""
    old, new = _files(before), _files(after)
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield f"{name}: only before"
        elif name not in old:
            yield f"{name}: only after"
        elif old[name] != new[name]:
            yield "\n".join(_changes(name, old[name], new[name]))


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        file.relative_to(folder).with_suffix("").as_posix(): json.loads(file.read_text("utf-8"))
        for file in folder.rglob("*.json")
    }


def _changes(name: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    yield f"{name}: {new.get('command', '')}"
    for field in dict.fromkeys([*old, *new]):
        if field in old and field in new and old[field] == new[field]:
            continue
        lines = list(
            difflib.unified_diff(
                _lines(old.get(field)), _lines(new.get(field)), "before", "after", n=1, lineterm=""
            )
        )[2:]
        yield f"  {field}:"
        yield from (f"    {line}" for line in lines[:_MOST_LINES])
        if len(lines) > _MOST_LINES:
            yield f"    … and {len(lines) - _MOST_LINES} lines more"


def _lines(value: Any) -> list[str]:
    """A field as lines that can be compared: text as it is, anything else as JSON."""
    if value is None:
        return []
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    return json.dumps(value, indent=1, ensure_ascii=False).splitlines()


def main() -> None:
    """Print the differences of the folders that the command line names."""
    parser = argparse.ArgumentParser(description="Tell how two recordings differ.")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    asked = parser.parse_args()
    for folder in (asked.before, asked.after):
        if not _files(folder):
            sys.exit(f"no recording at {folder}")
    found = list(differences(asked.before, asked.after))
    for each in found:
        print(each, end="\n\n")
    print(f"{len(found)} recordings differ" if found else "no differences")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
