"""Tell somebody how a run ended: a command or a webhook, neither of which can fail the run."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from rerank_batch.config import Config, NotifyConfig
from rerank_batch.errors import EXIT_CODES, GuardsFailed, RerankBatchError
from rerank_batch.reporter import Reporter
from rerank_batch.schema import JsonObject
from rerank_batch.services.webhook import post

_OUTPUT_CHARS = 200


@contextmanager
def notifying(
    config: Config, reporter: Reporter, run_id: str | None
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Notify of the end of a run; a run whose summary is given to the yielded function ended well.

    ``run_id`` is the id as far as it is known before the run is begun.
    """
    summaries: list[Mapping[str, Any]] = []
    try:
        yield summaries.append
    except (Exception, KeyboardInterrupt) as error:
        code = error.exit_code if isinstance(error, RerankBatchError) else 1
        code = 130 if isinstance(error, KeyboardInterrupt) else code
        # What is no error of ours may quote anything; ours never quote a query.
        text = str(error) if isinstance(error, RerankBatchError) else type(error).__name__
        _notify(config, reporter, run_id, {"event": "error", "exit_code": code, "message": text})
        raise
    for summary in summaries:
        published = summary.get("published", True)
        message = {
            "event": "success" if published else "guard",
            "exit_code": 0 if published else GuardsFailed.exit_code,
            "message": EXIT_CODES[0 if published else GuardsFailed.exit_code],
            "summary": dict(summary),
        }
        _notify(config, reporter, run_id, message)


def _notify(config: Config, reporter: Reporter, run_id: str | None, message: JsonObject) -> None:
    notify = config.notify
    if message["event"] not in notify.on:
        return
    about = {"job": config.job, "root": config.root, "run_id": reporter.run_id or run_id}
    body = json.loads(json.dumps({**message, **about}, default=str))
    for what, given, send in (
        ("command", notify.command, _run_command),
        ("webhook", notify.webhook, _post),
    ):
        if not given:
            continue
        try:
            send(notify, body)
        except (RerankBatchError, OSError, subprocess.SubprocessError, ValueError) as error:
            reporter.note(f"notify.{what} failed, which changes nothing of the run: {error}")


def _post(notify: NotifyConfig, body: Mapping[str, Any]) -> None:
    post(str(notify.webhook), body, notify.timeout_seconds, notify.attempts)


def _run_command(notify: NotifyConfig, body: Mapping[str, Any]) -> None:
    """Run it once, with everything that it starts, and no longer than it may take."""
    process = subprocess.Popen(
        notify.command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(json.dumps(body).encode(), notify.timeout_seconds)
    except subprocess.TimeoutExpired:
        raise subprocess.SubprocessError(
            f"{notify.command[0]} is stopped after {notify.timeout_seconds:g} s"
        ) from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        text = output.decode("utf-8", "replace").strip()[-_OUTPUT_CHARS:]
        raise subprocess.SubprocessError(
            f"{notify.command[0]} left with exit code {process.returncode}: {text or 'no output'}"
        )
