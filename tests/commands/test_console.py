"""What is printed is text: no markup, nothing that steers a terminal, no character too many."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from typer.testing import CliRunner

from jobs.__main__ import app
from jobs.console import Console
from jobs.tables import lookup
from jobs.tables.facts import facts_table
from rerank_batch.errors import ConfigError
from rerank_batch.reporter import in_one_line, visible

MARKUP = "[/b] [link=file:///x]here[/link] [red]"


def printed(capsys: pytest.CaptureFixture[str], *parts: object) -> str:
    Console().result({}, *parts)  # type: ignore[arg-type]
    return capsys.readouterr().out


def found(key: str, *documents: str) -> dict[str, object]:
    return {
        "key": key,
        "run_id": "run-1",
        "doc_ids": list(documents),
        "scores": [1.0] * len(documents),
    }


def test_markup_is_text_in_titles_cells_and_lines(capsys):
    table = Table(title=MARKUP)
    table.add_column(MARKUP)
    table.add_row(MARKUP)
    out = printed(capsys, table, MARKUP, facts_table(MARKUP, {MARKUP: MARKUP}))
    assert out.count("[/b]") == 7
    assert out.count("[link=file:///x]here[/link]") == 7
    console = Console()
    console.note(MARKUP)
    console.error(MARKUP)
    assert capsys.readouterr().err.count(MARKUP) == 2


def test_a_query_and_ids_of_a_look_up_are_shown_as_text(capsys):
    lookup.show(found(MARKUP, "[bold]d1", "two\nlines\r\x1b[2J"), Console())
    out = capsys.readouterr().out
    assert MARKUP in out
    assert "[bold]d1" in out
    assert r"two\nlines\r\x1b[2J" in out
    lookup.show(found(MARKUP), Console())
    assert f"{MARKUP}: no documents" in capsys.readouterr().out


def test_what_steers_a_terminal_is_written_out(capsys):
    table = Table(title="a\x1b]0;b\x07")
    table.add_column("\x9b1m")
    table.add_row("\x1b[31mred", end_section=True)
    out = printed(capsys, table, "line\rover\nnext")
    assert "\x1b" not in out
    for shown in (r"a\x1b]0;b\x07", r"\x9b1m", r"\x1b[31mred", "line\\rover\nnext"):
        assert shown in out
    assert visible("plain – ü 漢 🙂\n\t") == "plain – ü 漢 🙂\n\t"
    assert in_one_line("a\tb\u2028caf\udce9") == r"a\tb\u2028caf\xe9"


@pytest.mark.parametrize("where", ["runs", "serving.parquet"])
def test_a_query_with_stray_bytes_is_refused_in_clear_words(where):
    result = CliRunner().invoke(app, ["lookup", where, "caf\udce9"])
    assert result.exit_code == ConfigError.exit_code
    assert r"the query caf\xe9 is not UTF-8" in result.output


def run(*arguments: bytes | str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_output_that_lacks_a_character_replaces_it(encoding, tmp_path):
    """All of them in one process each: the argument is no UTF-8, or names what is not there."""
    done = run("runs", "show", tmp_path, "漢字–\x1b[1m", PYTHONIOENCODING=f"{encoding}:strict")
    said = done.stderr.decode(encoding)
    assert done.returncode not in (0, 1), said
    assert "Traceback" not in said
    assert ("漢字–" if encoding == "utf-8" else "???" if encoding == "ascii" else "??") in said
    assert "\x1b" not in said


def test_an_argument_with_stray_bytes_is_refused_in_clear_words(tmp_path):
    done = run("lookup", bytes(tmp_path), b"caf\xe9")
    assert done.returncode == ConfigError.exit_code
    assert rb"the argument caf\xe9 is not UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr


def test_an_argument_is_read_as_utf_8_in_a_locale_without_it(tmp_path):
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = run("lookup", bytes(tmp_path), "café".encode(), "--job", "café", **ascii_only)
    assert done.returncode not in (0, 1), done.stderr
    assert b"Traceback" not in done.stderr


def test_json_stays_json_whatever_the_output_can_encode(monkeypatch, tmp_path):
    """Stdout's object is UTF-8 as ever; an event on an ASCII stderr escapes what it has to."""
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(raw, "ascii", "replace"))
    Console(log_format="json").note("ü \udce9 \x1b")
    assert json.loads(raw.getvalue())["message"] == "ü \udce9 \x1b"
    code = "from jobs.console import Console; Console(True).result({'key': 'ü \\udce9'})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout.decode("utf-8")) == {"key": "ü \udce9"}
