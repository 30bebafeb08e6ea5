"""The systems of a finished run: which of them are compared, and what can be learned of each."""

from collections.abc import Mapping

from rerank_batch.config import Config
from rerank_batch.errors import ConfigError
from rerank_batch.evaluation.judged import RERANKED, RETRIEVAL, Lists
from rerank_batch.models.location import ModelName
from rerank_batch.remarks import NotKnown
from rerank_batch.rerankers import is_listwise
from rerank_batch.runs import Run


def compared_systems(run: Run, config: Config, external: Mapping[str, Lists]) -> tuple[str, ...]:
    """The systems of a run that are to be compared, the baseline first."""
    held = run.spec.systems or []
    if not held:
        return (RETRIEVAL, RERANKED)
    names = list(config.evaluation.systems) or held
    if missing := [name for name in names if name not in held and name not in external]:
        raise ConfigError(
            f"run {run.run_id} does not hold the systems {', '.join(missing)} (it has "
            f"{', '.join(held)}); evaluate without --run: only what is new is scored"
        )
    return tuple(names)


def depths_of(run: Run) -> dict[str, int]:
    """How deep the systems of a run read whose smaller depths can be told from it."""
    depths = {system: depth_read(run, system) for system in run.spec.systems or [RERANKED]}
    return {system: depth for system, depth in depths.items() if isinstance(depth, int)}


def depth_read(run: Run, system: str) -> int | NotKnown:
    """How many candidates a system read, where its results at smaller depths follow."""
    if run.spec.systems:
        if system not in run.spec.systems:
            return NotKnown(f"the lists of {system} were read, and not what they were made from")
        compared = run.spec.compared[system]
        cascade, retrieval_depth = compared["cascade"], compared["depth"]
        listwise = [reads["listwise"] for reads in cascade]
        models = [system]
    else:
        cascade, retrieval_depth = run.spec.cascade, run.spec.depth
        models = [stage["model"] for stage in cascade]
        names = [ModelName(*model.split(":", 1)) for model in models]
        listwise = [is_listwise(n, s["method"]) for n, s in zip(names, cascade, strict=True)]
    if not cascade:
        return NotKnown("it had no reranker")
    if len(cascade) > 1:
        return NotKnown(
            f"it reranked by a cascade of {len(cascade)} stages, and what a later one would have "
            "got to read at another depth is not in it"
        )
    if listwise[0]:
        return NotKnown(
            f"{models[0]} reads whole lists, so its scores say nothing about shorter ones"
        )
    return int(cascade[0]["depth"] or retrieval_depth)


def why_no_depth(run: Run, system: str) -> NotKnown:
    """Why nothing is known of smaller depths of a system that `depths_of` leaves out."""
    depth = depth_read(run, system)
    if isinstance(depth, int):
        raise KeyError(f"{system} of run {run.run_id} is studied")
    return depth


def of_one_model(run: Run) -> tuple[str, ...]:
    """The systems of a run whose scores are all of one model, or of retrieval."""
    if run.spec.systems:
        compared = run.spec.compared.items()
        return tuple(name for name, system in compared if len(system["cascade"]) < 2)
    return (RETRIEVAL, RERANKED) if len(run.spec.cascade) == 1 else (RETRIEVAL,)
