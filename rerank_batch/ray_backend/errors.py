"""Errors as they leave Ray: our own as they were raised, all others as `ComputeError`.

The message is for a failure of Ray's, or for a library's error that Ray wrapped. Ray's
last lines are advice about its own settings, and its first ones say where the work ran: the error
that counts stands between them.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from rerank_batch.errors import ComputeError, RerankBatchError
from rerank_batch.ray_backend.carried import cause_of, unpacked, without_carried

_RAISED = re.compile(
    r"^(?P<name>[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt))(?P<rest>: .*)?$"
)
_MOST_CHARS = 600
_OUT_OF_MEMORY = re.compile(r"(?i)out of memory|low on memory|OOM|MemoryError|bad_alloc")
_DISK_FULL = re.compile(r"(?i)no space left|ENOSPC|OutOfDisk|disk quota")
_DIED = (
    ray.exceptions.ActorDiedError,
    ray.exceptions.ActorUnavailableError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Our own errors come out of Ray as they were raised; Ray's become `ComputeError`."""
    try:
        yield
    except (ray.exceptions.RayError, ray.exceptions.UserCodeException, RuntimeError) as error:
        if ours := _own_error(error):
            raise ours from error
        raise ComputeError(why_it_failed(error)) from error


def why_it_failed(error: BaseException, what: str = "a stage failed") -> str:
    """What failed, the cause in one line, and what to do next."""
    text = without_carried(str(error))
    cause = cause_of(str(error)) or _raised(text)
    died = cause is None and isinstance(error, _DIED)
    reason = (cause or _plain(error, text)).rstrip(". ")
    return f"{what}: {reason}. {_next_step(reason, died)}"


def _own_error(error: BaseException) -> RerankBatchError | None:
    """The failure of ours behind an error of Ray's, if there is one."""
    cause: BaseException | None = error
    while cause is not None:
        # Ray's error of a task is an instance of its cause's class as well, with a whole traceback
        # for a message: only one that is not Ray's is ours.
        if isinstance(cause, RerankBatchError) and not isinstance(cause, ray.exceptions.RayError):
            return cause
        inner = getattr(cause, "cause", None)
        cause = inner if isinstance(inner, BaseException) else cause.__cause__
    return unpacked(str(error))


def _raised(text: str) -> str | None:
    """The last error in a traceback that is not one of Ray's own, which only pass others on."""
    raised = [match for match in map(_RAISED.match, text.splitlines()) if match]
    foreign = [
        match
        for match in raised
        if not match["name"].startswith("ray.") and match["name"] not in dir(ray.exceptions)
    ]
    if not foreign:
        return None
    last = foreign[-1]
    return _short(f"{last['name'].rpartition('.')[2]}{last['rest'] or ''}")


def _plain(error: BaseException, text: str) -> str:
    """What Ray says of a failure of its own, without indented details and guesses."""
    lines = [line.strip() for line in text.splitlines() if line[:1] not in ("", " ", "\t")]
    reason = " ".join(lines).partition(" Some common causes include")[0]
    return _short(f"{type(error).__name__}: {reason}")


def _short(text: str) -> str:
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}…"


def _next_step(reason: str, died: bool) -> str:
    if _DISK_FULL.search(reason):
        return (
            "A disk of the node is full: free space there, or set TMPDIR, RAY_TMPDIR or "
            "storage.cache to folders on another one"
        )
    if died or _OUT_OF_MEMORY.search(reason):
        return (
            "If memory ran out, lower compute.scorers, compute.block_rows or "
            "reranker.batch_tokens; run again with -v for the workers' logs"
        )
    return "Run again with -v for the workers' logs"
