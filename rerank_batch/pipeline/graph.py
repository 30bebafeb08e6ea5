"""The stages of the run of one reranker, in order."""

from dataclasses import dataclass
from itertools import groupby

from rerank_batch import schema
from rerank_batch.config import Config
from rerank_batch.pipeline.assemble import AssembleResults
from rerank_batch.pipeline.placement import (
    Search,
    group_name,
    group_stages,
)
from rerank_batch.pipeline.pools import Pools, of_group, plan_pools, shared
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.pipeline.work import StagePlan, Work
from rerank_batch.rerankers.stages import Rerank
from rerank_batch.retrieval.configured import fusion_of, query_encoder_options, source_use
from rerank_batch.retrieval.gate import Gate
from rerank_batch.retrieval.stages import EncodeQueries, SearchShards


@dataclass(frozen=True)
class RerankWork(Work):
    """The work of a run that reranks what one retrieval finds."""

    @property
    def systems(self) -> tuple[str, ...]:
        """See `Work.systems`."""
        return ()

    def searches(self, config: Config) -> dict[str, Search]:
        """See `Work.searches`."""
        return {"retrieve": Search(self.index, config.retrieval.sources)}

    def pairs_at_most(self, config: Config) -> list[int]:
        """See `Work.pairs_at_most`."""
        cascade = config.reranker.cascade if config.reranker else ()
        return [scorer.depth or config.retrieval.depth for scorer in cascade]

    def stages(self, config: Config, plan: StagePlan) -> list[StageSpec]:
        """See `Work.stages`."""
        return build_stages(config, self, plan)


def build_stages(config: Config, work: Work, plan: StagePlan) -> list[StageSpec]:
    """The stages of this cascade and these groups of shards, in order."""
    resources, uses = plan.resources, plan.uses
    parts = plan.groups["retrieve"]
    pools = plan_pools(config.compute, resources.cpus, resources.gpus, [len(parts)])
    top_k = config.reranker.top_k if config.reranker else min(10, config.retrieval.depth)
    gate = config.reranker.gate if config.reranker else None
    sources = config.retrieval.sources
    encode = StageSpec(
        "encode",
        EncodeQueries,
        {
            "encoder": work.encoder,
            "options": query_encoder_options(config, work.index),
        },
        pools.encoders,
        schema.ENCODED,
    )
    uses_of_sources = tuple(
        source_use(config, source, config.retrieval.depth_of(source), work.given, work.excluded)
        for source in sources
    )
    last = parts[-1]
    begin = group_stages("retrieve", work.index, uses_of_sources, parts, pools)
    retrieve = StageSpec(
        group_name("retrieve", len(parts), len(parts)),
        SearchShards,
        {
            "index": work.index.part(last.start, last.stop),
            "depth": config.retrieval.depth,
            "sources": uses_of_sources,
            "fusion": fusion_of(config),
            "gate": Gate(gate.signal, gate.threshold)
            if gate and gate.threshold is not None
            else None,
        },
        of_group(pools.retrievers, len(parts)),
        schema.RETRIEVED,
        alone=len(parts) > 1,
    )
    assemble = StageSpec(
        "assemble",
        AssembleResults,
        {
            "index": work.index,
            "top_k": top_k,
            "measures": config.evaluation.measures,
            "qrels": work.planned_qrels,
            "stages": max(len(uses), 1),
        },
        pools.assemblers,
        schema.results(config.evaluation.measures, max(len(uses), 1)).append(schema.REJECT_FIELD),
    )
    stages = [*begin, retrieve, *_rerank_stages(work, plan, pools), assemble]
    return [encode, *stages] if "dense" in sources else stages


def _rerank_stages(work: Work, plan: StagePlan, pools: Pools) -> list[StageSpec]:
    """The cascade in as few stages as it takes: models that follow each other share their actors,
    services have one actor for the whole job."""
    groups = [
        (paid, tuple(each)) for paid, each in groupby(plan.uses, lambda use: use.paid is not None)
    ]
    local = sum(not paid for paid, _ in groups)
    return [
        StageSpec(
            "rerank" if number == 0 else f"rerank-{scorers[0].number}",
            Rerank,
            {"scorers": scorers, "index": work.index},
            pools.callers if paid else shared(pools.scorers, local),
            schema.RERANKED,
            plan.block_rows,
            alone=paid,
        )
        for number, (paid, scorers) in enumerate(groups)
    ]
