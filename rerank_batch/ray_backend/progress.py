"""How actors tell the driver how far they are: a value for each, kept with the cluster's head.

No message goes to the driver itself, which a worker would have to know and could wait for. To show
progress is not worth failing for: where the head does not answer, nothing is told and nothing read.
"""

import logging

import ray
from ray.experimental import internal_kv

from rerank_batch.progress import Teller

logger = logging.getLogger(__name__)

_NO_ANSWER = (ray.exceptions.RayError, RuntimeError, OSError)


def teller(stage: str) -> Teller:
    """What tells of a stage in the process of an actor; outside of Ray it tells nobody."""
    if not internal_kv._internal_kv_initialized():
        return Teller(lambda message: None)
    key = f"{_prefix()}{stage}/{ray.get_runtime_context().get_actor_id()}"

    def put(message: bytes) -> None:
        try:
            internal_kv._internal_kv_put(key, message, overwrite=True)
        except _NO_ANSWER as error:
            logger.debug("progress was not told: %s", error)

    made = Teller(put)
    made.start()
    return made


def told_by_actors() -> dict[tuple[str, str], bytes]:
    """The last message of each actor of this driver's job, by stage and actor."""
    told: dict[tuple[str, str], bytes] = {}
    if not internal_kv._internal_kv_initialized():
        return told
    try:
        prefix = _prefix()
        for key in internal_kv._internal_kv_list(prefix):
            stage, _, actor = key.decode().removeprefix(prefix).partition("/")
            if (message := internal_kv._internal_kv_get(key)) is not None:
                told[stage, actor] = message
    except _NO_ANSWER as error:
        logger.debug("nobody told of progress: %s", error)
    return told


def forget_told() -> None:
    """Leave nothing of this job with a cluster that lives on."""
    if not internal_kv._internal_kv_initialized():
        return
    try:
        internal_kv._internal_kv_del(_prefix(), del_by_prefix=True)
    except _NO_ANSWER as error:
        logger.debug("what was told of progress is left with the cluster: %s", error)


def _prefix() -> str:
    return f"rerank_batch/{ray.get_runtime_context().get_job_id()}/progress/"
