"""The stages of a comparison, in order: each retrieval and each model once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rerank_batch import schema
from rerank_batch.comparison.assemble import AssembleSystems
from rerank_batch.comparison.stages import FuseAlso, Fused, ScoreSystems, SearchAlso, System
from rerank_batch.config import Config, Ingredients
from rerank_batch.index.configured import OpenedIndex
from rerank_batch.pipeline.placement import Groups, Search, group_name, group_stages
from rerank_batch.pipeline.pools import Pools, of_group, plan_pools, shared
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.pipeline.work import StagePlan, Work
from rerank_batch.rerankers.stages import ScorerUse
from rerank_batch.retrieval.configured import query_encoder_options
from rerank_batch.retrieval.sources import SourceUse
from rerank_batch.retrieval.stages import EncodeQueries


@dataclass(frozen=True)
class Retrieval:
    """One way to find candidates, to the largest depth that a system takes of it."""

    opened: OpenedIndex
    use: SourceUse
    made_of: Ingredients


@dataclass(frozen=True, kw_only=True)
class ComparisonWork(Work):
    """What a comparison works on: its computed systems, and what they share.

    The retrievals that a system takes one of are ``retrievals`` and then ``fused``.
    """

    computed: tuple[System, ...]
    retrievals: tuple[Retrieval, ...]
    fused: tuple[Fused, ...]

    @property
    def systems(self) -> tuple[str, ...]:
        """See `Work.systems`."""
        return tuple(system.name for system in self.computed)

    def searches(self, config: Config) -> dict[str, Search]:
        """What each of the retrievals searches, by the name of its stage."""
        return {
            _search_name(number): Search(each.opened.index, (each.use.source,))
            for number, each in enumerate(self.retrievals, start=1)
        }

    def pairs_at_most(self, config: Config) -> list[int]:
        """How many documents of a query each of the scorers may have to read, before any is known.

        First in a cascade, a model reads the first of what was retrieved, which the deepest system
        of a retrieval reads for all; later in one, what it reads depends on what came before.
        """
        first: dict[tuple[int, int], int] = {}
        later = dict.fromkeys((scorer.number for scorer in self.scorers), 0)
        for system in self.computed:
            for place, reads in enumerate(system.cascade):
                depth = reads.depth or system.depth
                if place == 0 and not reads.listwise:
                    key = (reads.scorer, system.retrieval)
                    first[key] = max(first.get(key, 0), depth)
                else:
                    later[reads.scorer] += depth
        for (scorer, _), depth in first.items():
            later[scorer] += depth
        return list(later.values())

    def stages(self, config: Config, plan: StagePlan) -> list[StageSpec]:
        """See `Work.stages`."""
        return comparison_stages(config, self, plan)


def comparison_stages(config: Config, work: ComparisonWork, plan: StagePlan) -> list[StageSpec]:
    """The stages of a comparison, in order."""
    resources = plan.resources
    searching = [*(len(parts) for parts in plan.groups.values()), *([1] if work.fused else [])]
    pools = plan_pools(config.compute, resources.cpus, resources.gpus, searching)
    stages = _search_stages(config, work, plan.groups, pools)
    if work.fused:
        fuse = {"fused": work.fused}
        stages.append(StageSpec("fuse", FuseAlso, fuse, pools.retrievers, schema.SEARCHED))
    stages += _score_stages(work, plan, pools)
    measures = config.evaluation.measures
    assemble = {
        "systems": work.computed,
        "index": work.index,
        "measures": measures,
        "qrels": work.planned_qrels,
    }
    output = schema.comparison(measures, work.systems).append(schema.REJECT_FIELD)
    return [*stages, StageSpec("assemble", AssembleSystems, assemble, pools.assemblers, output)]


def _search_stages(
    config: Config, work: ComparisonWork, groups: Groups, pools: Pools
) -> list[StageSpec]:
    """Encoding, where the encoder changes, and the search of each retrieval."""
    encoded_by: dict[str, Any] | None = None
    stages: list[StageSpec] = []
    for number, retrieval in enumerate(work.retrievals, start=1):
        opened = retrieval.opened
        dense = retrieval.use.source == "dense"
        encoder = {
            "encoder": opened.encoder,
            "options": query_encoder_options(
                config.model_copy(update={"index": opened.config}), opened.index
            ),
        }
        suffix = "" if number == 1 else f"-{number}"
        if dense and encoder != encoded_by:
            out = schema.SEARCHED if stages else schema.ENCODED
            stages.append(StageSpec(f"encode{suffix}", EncodeQueries, encoder, pools.encoders, out))
            encoded_by = encoder
        name = _search_name(number)
        parts = groups[name]
        stages += group_stages(name, opened.index, (retrieval.use,), parts, pools)
        search = {
            "index": opened.index.part(parts[-1].start, parts[-1].stop),
            "use": retrieval.use,
            "goes_on": len(parts) > 1,
        }
        pool = of_group(pools.retrievers, len(parts))
        last = group_name(name, len(parts), len(parts))
        grouped = len(parts) > 1
        stages.append(StageSpec(last, SearchAlso, search, pool, schema.SEARCHED, alone=grouped))
    return stages


def _score_stages(work: ComparisonWork, plan: StagePlan, pools: Pools) -> list[StageSpec]:
    passes = _passes(work.computed, plan.uses)
    local = sum(not paid for paid, _ in passes)
    return [
        StageSpec(
            "rerank" if number == 0 else f"rerank-{number + 1}",
            ScoreSystems,
            {"systems": work.computed, "scorers": scorers, "index": work.index},
            pools.callers if paid else shared(pools.scorers, local),
            schema.COMPARED,
            plan.block_rows,
            alone=paid,
        )
        for number, (paid, scorers) in enumerate(passes)
    ]


def _passes(
    systems: Sequence[System], uses: Sequence[ScorerUse]
) -> list[tuple[bool, tuple[ScorerUse, ...]]]:
    """The scorers as they follow each other: all that are here, then all services, and so on until
    every cascade is through."""
    by_number = {use.number: use for use in uses}
    left = [[by_number[reads.scorer] for reads in system.cascade] for system in systems]
    passes: list[tuple[bool, tuple[ScorerUse, ...]]] = []
    paid = False
    while any(left):
        used: dict[int, ScorerUse] = {}
        for cascade in left:
            while cascade and (cascade[0].paid is not None) == paid:
                use = cascade.pop(0)
                used[use.number] = use
        if used:
            passes.append((paid, tuple(used.values())))
        paid = not paid
    return passes


def _search_name(number: int) -> str:
    return "retrieve" if number == 1 else f"retrieve-{number}"
