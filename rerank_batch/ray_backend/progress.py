"""How actors report their progress to the driver: a value for each, kept with the cluster's head.

No message goes to the driver itself, which a worker would have to know and could wait for. To show
progress is not worth failing for: where the head does not answer, nothing is sent and nothing read.
"""

import logging

import ray
from ray.experimental import internal_kv

from rerank_batch.progress import ProgressSender

logger = logging.getLogger(__name__)

_NO_ANSWER = (ray.exceptions.RayError, RuntimeError, OSError)


def progress_sender(stage: str) -> ProgressSender:
    """The sender of a stage in the process of an actor; outside of Ray it sends nothing."""
    if not internal_kv._internal_kv_initialized():
        return ProgressSender(lambda message: None)
    key = f"{_prefix()}{stage}/{ray.get_runtime_context().get_actor_id()}"

    def put(message: bytes) -> None:
        try:
            internal_kv._internal_kv_put(key, message, overwrite=True)
        except _NO_ANSWER as error:
            logger.debug("progress was not sent: %s", error)

    sender = ProgressSender(put)
    sender.start()
    return sender


def actor_messages() -> dict[tuple[str, str], bytes]:
    """The last message of each actor of this driver's job, by stage and actor."""
    messages: dict[tuple[str, str], bytes] = {}
    if not internal_kv._internal_kv_initialized():
        return messages
    try:
        prefix = _prefix()
        for key in internal_kv._internal_kv_list(prefix):
            stage, _, actor = key.decode().removeprefix(prefix).partition("/")
            if (message := internal_kv._internal_kv_get(key)) is not None:
                messages[stage, actor] = message
    except _NO_ANSWER as error:
        logger.debug("progress could not be read: %s", error)
    return messages


def delete_messages() -> None:
    """Leave nothing of this job with a cluster that lives on."""
    if not internal_kv._internal_kv_initialized():
        return
    try:
        internal_kv._internal_kv_del(_prefix(), del_by_prefix=True)
    except _NO_ANSWER as error:
        logger.debug("messages of progress are left with the cluster: %s", error)


def _prefix() -> str:
    return f"rerank_batch/{ray.get_runtime_context().get_job_id()}/progress/"
