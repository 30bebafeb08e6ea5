"""What two recordings of the same code have in common: everything but times, sizes in memory,
random names, and where and by whom it was recorded."""

import getpass
import json
import re
import socket
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parents[3]

_VOLATILE = re.compile(
    r"""^(
        time | when | at | created | started | beat | nonce | pid | host | machine | who
        | (.*_)?seconds(\..+)? | seconds_per_pair | .*per_second | documents_per_cpu_second | hours
        | median | ratio | overhead | busiest_stage | peak_memory_gb | own_bytes | mapped_bytes
    )$""",
    re.X,
)

# Each with what goes in its place; names made of random digits only where they stand as names.
_PATTERNS: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), instead)
    for pattern, instead in (
        (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?", "<time>"),
        (r"\b([a-z]+)-\d{8}-\d{6}-[0-9a-f]{4}\b", r"\1-<time>-<random>"),
        (r"\b([0-9a-f]{16})-[0-9a-f]{8}\b", r"\1-<random>"),
        (r"\btry-[0-9a-f]{16}\b", "try-<random>"),
        (r"-[0-9a-f]{12}\.(parquet|arrow)\b", r"-<random>.\1"),
        (r"\bsegments/\d{10}-", "segments/<time>-"),
        (r"/[0-9a-f]{20}\.arrow\b", "/<random>.arrow"),
        (r"\bpaid/(\d+)-[0-9a-f]{64}\b", r"paid/\1-<random>"),
        (r"\bbm25/[0-9a-f]{8}/", "bm25/<random>/"),
        (r"\b(127\.0\.0\.1|localhost):\d+", r"\1:<port>"),
        (r"\bpid \d+", "pid <number>"),
        (
            r"(?<![\w.])\d[\d,]*(\.\d+)?(?= ((CPU |GPU )?s|ms|h|GiB|(pairs|rows|queries|tokens)/s"
            r"|a second)\b)",
            "<number>",
        ),
        (r"(?<= at )\d[\d,]*(\.\d+)?(?=/s\b)", "<number>"),
    )
]
# Of a traceback the lines of the code: they may move from file to file.
_FRAMES = re.compile(r"(?m)^(  File \".*\n(    .*\n)*)+")
# In a report: what a stage took, and what a model did in a second.
_ROW_OF_TIMES = re.compile(
    r'(<tr><th scope="row"[^>]*>(?:plan|start|execute|total|encode|retrieve|rerank|assemble'
    r"|rerank-\d|[a-z][a-z0-9-]*:[^<]*)</th>)(.*)"
)
_DECIMAL = re.compile(r"\d[\d,]*\.\d+")
_STAGE_TIMES = re.compile(r"(?<=of it stages ).*")
_NUMBER = re.compile(r"(?<![\w.@%-])[-+]?\d[\d,]*(\.\d+)?(e-?\d+)?")
_NOISE = re.compile(
    r"""^(\s*$
        | [\w -]+:\s[\d,]+\ of\ [\d,]+.*after\ .*   # progress, which is told every 15 seconds
        | waiting\ for\ Ray.*                        # which a busy machine makes it do
        | .*\((raylet|autoscaler|pid=|MapWorker|\w+\ pid=).*
        | \[?\d{4}-\d\d-\d\d\ .*(INFO|WARNING)\ .*
        | .*(\d+%\|).*                              # a bar of a library
    )$""",
    re.X,
)


class Normal:
    """Puts texts and values of one project's commands in the form that is recorded."""

    def __init__(self, project: Path) -> None:
        places = {str(project.resolve()): "<project>", str(project): "<project>"}
        self._places = {**places, str(TREE): "<tree>", sys.executable: "<python>"}
        host = socket.gethostname()
        self._hosts = {
            f"{getpass.getuser()} at {host}": "<person> at <host>",
            f"{host} (pid": "<host> (pid",
        }

    def text(self, text: str) -> str:
        """A text with what is volatile named for what it is."""
        for place, name in self._places.items():
            text = text.replace(place, name)
        for host, name in self._hosts.items():
            text = text.replace(host, name)
        text = _STAGE_TIMES.sub(lambda match: _NUMBER.sub("<number>", match.group()), text)
        if row := _ROW_OF_TIMES.search(text):
            text = f"{text[: row.end(1)]}{_DECIMAL.sub('<number>', row[2])}"
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return text

    def lines(self, text: str, timed: bool = False) -> list[str]:
        """Lines of output without noise; of a ``timed`` one no figures and no widths."""
        found: list[str] = []
        for raw in _FRAMES.sub("  <frames>\n", text).splitlines():
            if _NOISE.match(raw):
                continue
            if (event := _event(raw)) is not None:
                if event.get("event") != "progress":
                    found.append(json.dumps(self.value(event), ensure_ascii=False))
                continue
            line = self.text(raw).rstrip()
            if timed:
                line = _NUMBER.sub("<number>", line)
            # A volatile figure moves what stands beside it.
            if "<" in line or timed:
                line = re.sub(r" {2,}", "  ", line)
            found.append(line)
        if timed:
            found = [re.sub(r"([━─])\1+", r"\1", line) for line in found]
        return found

    def value(
        self,
        value: Any,
        timed: bool = False,
        hides: Collection[str] = (),
        volatile: bool = False,
    ) -> Any:
        """A JSON value likewise, without what stands under the keys that it ``hides``; floats are
        kept to six digits."""
        if isinstance(value, dict):
            return {
                self.key(key): self.value(
                    each, timed, hides, volatile or key in hides or bool(_VOLATILE.match(key))
                )
                for key, each in value.items()
            }
        if isinstance(value, list):
            return [self.value(each, timed, hides, volatile) for each in value]
        if value is None or isinstance(value, bool):
            return value
        if volatile or (timed and isinstance(value, float)):
            return "<text>" if isinstance(value, str) else "<number>"
        if isinstance(value, str):
            return self.text(value)
        return float(f"{value:.6g}") if isinstance(value, float) else value

    def key(self, key: str) -> str:
        """Days since 1970 are keys of the score cache."""
        return "<day>" if re.fullmatch(r"2\d{4}", key) else self.text(key)


def key_tree(value: Any) -> list[str]:
    """What is in a value, a line for each object in it, sorted: ``cost.models[]: depth int, …``."""
    found: dict[str, set[str]] = {}
    for at, kind in _kinds(value, ""):
        found.setdefault(at, set()).add(kind)
    lines: dict[str, list[str]] = {}
    for at, kinds in sorted(found.items()):
        above, _, key = at.rpartition(".")
        lines.setdefault(above or "all", []).append(f"{key} {' or '.join(sorted(kinds))}")
    return [f"{above}: {', '.join(keys)}" for above, keys in sorted(lines.items())]


def _kinds(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        if not value:
            yield path or ".", "empty object"
        for key, each in value.items():
            yield from _kinds(each, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        if not value:
            yield f"{path}[]", "nothing"
        for each in value:
            yield from _kinds(each, f"{path}[]")
    else:
        yield path or ".", _kind(value)


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def merged_tree(values: Iterable[Any]) -> list[str]:
    """The same of several values that have one form."""
    return [line.removeprefix("[].") for line in key_tree(list(values))]


def _event(line: str) -> dict[str, Any] | None:
    """A line of the log in JSON."""
    if not line.startswith("{"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
