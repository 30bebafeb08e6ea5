"""Hooks: who is told how a run ended, in which words, and that none of them can fail the run."""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import stamina

from rerank_batch.config import parse_config
from rerank_batch.errors import ConfigError, InputError, ServiceError
from rerank_batch.services.webhook import post

SECRET = "canary0hook0secret"


class Hook(ThreadingHTTPServer):
    """Keeps what is posted; answers with what it is given, then with 200 and no JSON."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Any]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        server.got.append((self.path, json.loads(raw)))
        status, headers = server.answers.pop(0) if server.answers else (200, {})
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "2"}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    server = Hook()
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    ).start()
    host, port = server.server_address[:2]
    monkeypatch.setenv("NIGHT_HOOK", f"http://{host}:{port}/services/{SECRET}?sig={SECRET}")
    with stamina.set_testing(True, attempts=3):
        yield server
    server.shutdown()
    server.server_close()


def test_a_hook_is_posted_to_once_and_tried_again_where_it_fails(hook: Hook) -> None:
    post("NIGHT_HOOK", {"event": "success"}, 5, 3)
    assert hook.got == [(f"/services/{SECRET}?sig={SECRET}", {"event": "success"})]
    hook.answers = [(503, {}), (500, {})]
    post("NIGHT_HOOK", {"event": "success"}, 5, 3)
    assert len(hook.got) == 4


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([(302, {"Location": "http://127.0.0.1/elsewhere"})], "a redirect, and none is followed"),
        ([(404, {})], "HTTP 404"),
        ([(503, {})] * 9, "3 tries of POST"),
    ],
)
def test_what_ends_a_try_never_names_the_url(hook: Hook, answers: Any, words: str) -> None:
    hook.answers = list(answers)
    with pytest.raises(ServiceError) as told:
        post("NIGHT_HOOK", {"event": "success"}, 5, 3)
    assert words in str(told.value)
    assert SECRET not in str(told.value)
    assert len(hook.got) <= 3


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("", ConfigError, "set NIGHT_HOOK to the URL"),
        (f"https://user:{SECRET}@hooks.example/x", ConfigError, "without a name and password"),
        (f"ftp://hooks.example/{SECRET}", ConfigError, "must be an https:// URL"),
        (f"http://93.184.216.34/{SECRET}", ServiceError, "set NIGHT_HOOK to an https:// URL"),
        (f"https://169.254.169.254/{SECRET}", ServiceError, "an address that is never called"),
    ],
)
def test_hooks_are_called_by_the_rules_of_services(
    monkeypatch: pytest.MonkeyPatch, url: str, error: type[Exception], words: str
) -> None:
    monkeypatch.setenv("NIGHT_HOOK", url)
    with pytest.raises(error, match=words) as told:
        post("NIGHT_HOOK", {}, 5, 1)
    assert SECRET not in str(told.value)


def test_a_url_in_the_configuration_is_refused_without_repeating_it() -> None:
    raw = {"corpus": {"path": "c"}, "index": {"path": "i", "encoder": "e"}}
    with pytest.raises(ConfigError, match="NAME of the environment variable") as told:
        parse_config({**raw, "notify": {"webhook": f"https://hooks.example/{SECRET}"}})
    assert SECRET not in str(told.value)


# --- with the job ----------------------------------------------------------------------------


@pytest.fixture
def told(nights: Any, tmp_path: Path) -> Callable[..., tuple[Any, list[dict[str, Any]]]]:
    """Run the job with a command that keeps what it is told; the result, and that."""
    script = tmp_path / "hook.py"
    kept = tmp_path / "told.jsonl"
    script.write_text(f"import sys; open({str(kept)!r}, 'a').write(sys.stdin.read() + '\\n')")
    command = json.dumps([sys.executable, str(script)])

    def run(*words: str) -> tuple[Any, list[dict[str, Any]]]:
        done = nights("rerank", "--set", f"notify.command={command}", *words)
        lines = kept.read_text().splitlines() if kept.exists() else []
        return done, [json.loads(line) for line in lines]

    return run


def test_success_guard_and_error_are_told_with_the_run_and_what_came_of_it(told: Any) -> None:
    done, (first,) = told("--run-id", "first")
    assert done.exit_code == 0, done.output
    assert (first["event"], first["exit_code"], first["run_id"]) == ("success", 0, "first")
    assert first["summary"]["queries"] == 40 and first["summary"]["published"]
    done, (_, second) = told("--run-id", "second", "--set", "guards.min_queries=41")
    assert (second["event"], second["exit_code"]) == ("guard", done.exit_code) == ("guard", 16)
    assert second["summary"]["latest"] == "first"
    assert not second["summary"]["guards"][0]["passed"]
    done, (*_, third) = told("--run-id", "third", "--set", "queries.path=nowhere.parquet")
    assert done.exit_code == third["exit_code"] == InputError.exit_code
    assert (third["event"], third["run_id"]) == ("error", "third")
    assert "nowhere.parquet" in third["message"]
    _, lines = told("--run-id", "fourth", "--set", "notify.on=[guard, error]")
    assert len(lines) == 3, "nobody asked to be told of success"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["/nonexistent/hook"], "No such file"),
        ([sys.executable, "-c", "raise SystemExit('the hook says no')"], "the hook says no"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], "is stopped after 0.3 s"),
    ],
)
def test_a_hook_that_fails_is_told_and_the_run_is_as_good(
    nights: Any, command: list[str], words: str
) -> None:
    began = time.monotonic()
    done = nights(
        *("rerank", "--run-id", "night", "--set", f"notify.command={json.dumps(command)}"),
        *("--set", "notify.timeout_seconds=0.3", "--set", "notify.webhook=NO_SUCH_VARIABLE"),
    )
    assert done.exit_code == 0, done.output
    flat = " ".join(done.output.split())
    assert words in flat and "changes nothing of the run" in flat
    assert "set NO_SUCH_VARIABLE to the URL" in flat
    assert time.monotonic() - began < 20


def test_a_hook_nobody_listens_to(nights: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("NIGHT_HOOK", f"http://127.0.0.1:{free.getsockname()[1]}/{SECRET}")
    settings = ("--set", "notify.webhook=NIGHT_HOOK", "--set", "notify.attempts=2")
    done = nights("rerank", "--run-id", "night", *settings)
    assert done.exit_code == 0 and "2 tries of POST" in " ".join(done.output.split())
    assert SECRET not in done.output


# --- the log in JSON -------------------------------------------------------------------------


def test_every_line_of_the_json_log_is_an_object_with_the_run(nights: Any) -> None:
    options = ("--log-format", "json", "--set", "guards.min_queries=41")
    done = nights("rerank", "--run-id", "night", *options)
    assert done.exit_code == 16
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"time", "level", "event", "run_id", "message"} <= set.intersection(*map(set, lines))
    assert [line["event"] for line in lines][-2:] == ["finished", "error"]
    finished, error = lines[-2:]
    assert finished["run_id"] == error["run_id"] == "night"
    assert (finished["queries"], finished["published"]) == (40, False)
    assert (error["level"], error["exit_code"]) == ("error", 16)
    assert "guards.min_queries" in error["message"]
