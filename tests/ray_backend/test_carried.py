"""Errors that cross a process as text come out as they were raised."""

import base64
import importlib
import json
import pickle
import pkgutil
import traceback
from collections.abc import Iterator

import pytest

import jobs
import rerank_batch
from rerank_batch.errors import EXIT_CODES, ModelError, RerankBatchError, ServiceError
from rerank_batch.ray_backend.carried import (
    Carried,
    carried,
    carrying,
    cause_of,
    unpacked,
    without_carried,
)
from rerank_batch.ray_backend.errors import why_it_failed

MESSAGE = "tei at 127.0.0.1:80: HTTP 413\n  - zweite Zeile: „ü“ <b>\n  - [/red] {x}"


class Refused(ServiceError):
    """An error whose message is made of its arguments."""

    def __init__(self, service: str, *, status: int) -> None:
        super().__init__(f"{service} says {status}")
        self.service, self.status = service, status

    def __str__(self) -> str:
        return f"{self.service} said {self.status}"


def all_errors() -> list[type[RerankBatchError]]:
    """Every class of ours, wherever it lives."""
    for package in (rerank_batch, jobs):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    return sorted({RerankBatchError, *_below(RerankBatchError)}, key=str)


def _below(kind: type[RerankBatchError]) -> Iterator[type[RerankBatchError]]:
    for each in kind.__subclasses__():
        if each.__module__.partition(".")[0] in ("rerank_batch", "jobs"):
            yield each
        yield from _below(each)


def raised(error: Exception) -> str:
    """What a framework keeps of it: the text of a traceback."""
    try:
        with carrying():
            raise error
    except Carried as kept:
        return "".join(traceback.format_exception(kept))


def test_every_class_of_ours_comes_back_and_can_be_pickled():
    kinds = all_errors()
    assert {kind.exit_code for kind in kinds} == set(EXIT_CODES) - {0}
    assert any(kind.__module__ != "rerank_batch.errors" for kind in kinds)
    for kind in kinds:
        found = unpacked(raised(kind(MESSAGE)))
        assert type(found) is kind
        assert str(found) == MESSAGE
        again = pickle.loads(pickle.dumps(kind(MESSAGE)))
        assert (type(again), str(again)) == (kind, MESSAGE)


def test_an_error_with_arguments_of_its_own_keeps_them():
    for found in (
        unpacked(raised(Refused("tei", status=413))),
        pickle.loads(pickle.dumps(Refused("tei", status=413))),
    ):
        assert type(found) is Refused
        assert (str(found), found.service, found.status) == ("tei said 413", "tei", 413)


def test_a_class_that_is_not_known_here_becomes_the_nearest_that_is():
    class Local(Refused):
        """No other process has it."""

    error = Local("tei", status=413)
    error.connection = object()  # type: ignore[attr-defined]
    found = unpacked(raised(error))
    assert type(found) is Refused
    assert str(found) == "tei said 413"


def test_of_several_errors_the_last_one_counts():
    try:
        try:
            with carrying():
                raise ServiceError("first")
        except Carried:
            with carrying():
                raise ModelError("second") from None
    except Carried as kept:
        found = unpacked("".join(traceback.format_exception(kept)))
    assert type(found) is ModelError


def test_what_is_not_ours_is_not_made_ours():
    assert unpacked("Traceback: ValueError") is None
    assert unpacked(raised(ValueError("boom"))) is None
    forged = str(carried(ModelError("x")))
    for kind in ("builtins.SystemExit", "subprocess.Popen", "rerank_batch.config.Config"):
        module, _, name = kind.rpartition(".")
        about = {"kinds": [[module, name]], "text": "x", "args": ["x"], "state": {}}
        packed = base64.urlsafe_b64encode(json.dumps(about).encode()).decode()
        assert unpacked(f"{forged[:5]} <carried-error {packed}>") is None
    assert unpacked(forged[:-20] + ">") is None, "it was cut"


def test_a_foreign_error_is_told_by_its_class_and_message_not_by_ray_s_advice():
    try:
        raise OSError("disk") from KeyError("x")
    except OSError as error:
        text = raised(error)
    assert cause_of(text) == "OSError: disk (caused by KeyError: 'x')"
    wrapped = RuntimeError(f"{text}\nTo change retry attempts, configure `ray.data.DataContext`.")
    said = why_it_failed(wrapped)
    assert said.startswith("a stage failed: OSError: disk (caused by KeyError: 'x'). ")
    assert "DataContext" not in said
    assert "<carried-error" in text
    assert "<carried-error" not in without_carried(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "ray::Map()\n  File 'x'\nValueError: no pad\n\nray.data.exceptions.UserCodeException: "
            "UDF failed\nFailed to map.\nTo change retry attempts, see.",
            "ValueError: no pad. Run again with -v",
        ),
        (
            "The actor died.\n\tclass_name: X\nWorker exit detail: End of file. Some common causes "
            "include: (1) aliens",
            "RuntimeError: The actor died. Worker exit detail: End of file. Run again",
        ),
        (
            "Task was killed due to the node running low on memory.\nRay killed this worker",
            "lower compute.scorers, compute.block_rows or reranker.batch_tokens",
        ),
        ("OSError: [Errno 28] No space left on device", "A disk of the node is full"),
    ],
)
def test_what_ray_says_becomes_one_line_with_a_next_step(text, said):
    found = why_it_failed(RuntimeError(text))
    assert said in found
    assert "\n" not in found
