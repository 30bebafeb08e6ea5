"""How far a run is that this driver executes: what actors report, and what is committed."""

from collections.abc import Mapping, Sequence

from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.progress import Place, Progress, Snapshot
from rerank_batch.progress.pairs import Pairs
from rerank_batch.ray_backend.progress import actor_messages
from rerank_batch.rerankers.cached import KNOWN
from rerank_batch.rerankers.cascade import pairs_of
from rerank_batch.runs import Run
from rerank_batch.runs.commit import BlockDone


class RunProgress:
    """The progress of a run; ``to_do`` are the numbers of the blocks that are left."""

    def __init__(self, run: Run, to_do: Sequence[int], stages: Sequence[StageSpec]) -> None:
        self._places = places_of(stages)
        self._sums = Progress(self._places, run.blocks(), to_do, actor_messages)

    def commit(self, block: BlockDone) -> None:
        """Count a committed block."""
        numbers = {each.reranker for each in self._places if each.reranker is not None}
        self._sums.commit(block.start, {n: _pairs(block.sums, n) for n in numbers})

    def look(self) -> Snapshot:
        """Return the state of the run, for a reporter."""
        return self._sums.look()


def places_of(stages: Sequence[StageSpec]) -> list[Place]:
    """The lines of the stages: rerankers that share actors have one each."""
    places = []
    for stage in stages:
        numbers = [use.number for use in stage.kwargs.get("scorers", ())]
        if not numbers:
            places.append(Place(stage.name, stage.name))
        for number in numbers:
            name = stage.name if len(numbers) == 1 else f"{stage.name} {number}"
            places.append(Place(name, stage.name, number))
    return places


def _pairs(sums: Mapping[str, float], number: int) -> Pairs:
    pairs = int(sums.get(pairs_of(number), 0))
    known = int(sums.get(f"{KNOWN}.{number}", 0))
    return Pairs(pairs, known, pairs - known)
