"""A dry run: every input is checked and the work estimated; no model is loaded, nothing written."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rerank_batch.config.identity import digest
from rerank_batch.config.root import Config
from rerank_batch.data.file_counts import file_counts
from rerank_batch.data.reject_limit import are_too_many
from rerank_batch.models.settings import forward_flops
from rerank_batch.pipeline.blocks import rows_per_block
from rerank_batch.pipeline.placement import Groups, divide, in_gb, with_retrievers
from rerank_batch.pipeline.resources import this_node
from rerank_batch.pipeline.work import Work
from rerank_batch.remarks import Remark, remark_objects
from rerank_batch.runs.coverage import block_bounds
from rerank_batch.runs.summary import Rejects
from rerank_batch.schema import JsonObject
from rerank_batch.workflows.inputs import read_comparison, read_inputs

_MANY = 1 << 20


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a run would read and do; see `RunTotals` for what the names have in common.

    ``petaflop_at_most`` is the work of the rerankers that run here; None where none does.
    """

    root: str
    queries: int
    log_rows: int
    left_out: Mapping[str, Any]
    rejects: Rejects
    too_many_rejects: bool
    judged: int
    documents: int
    excluded: Mapping[str, int] | None
    files_read: Mapping[str, Mapping[str, int]]
    remarks: tuple[Remark, ...]
    pairs: int
    blocks: int
    fingerprint: str
    index_groups: Mapping[str, list[float]]
    index_remarks: list[str]
    petaflop_at_most: float | None

    def to_json(self) -> JsonObject:
        """The object that --json prints."""
        values = asdict(self)
        petaflop = values.pop("petaflop_at_most")
        values["remarks"] = remark_objects(self.remarks)
        more = {} if petaflop is None else {"estimated_petaflop_at_most": petaflop}
        return {"dry_run": True, **values, **more}


def dry_run(config: Config, judged_only: bool = False, compare: bool = False) -> DryRun:
    """Check every input and estimate the work; loads no model and writes nothing."""
    work = (read_comparison if compare else read_inputs)(config, judged_only)
    plan = work.plan
    queries = plan.queries.num_rows
    reads = [queries * depth for depth in work.pairs_at_most(config)]
    groups, index_remarks = _divided(config, work)
    documents = work.index.manifest.documents
    flops = sum(
        (pairs if scorer.model.family != "late-interaction" else documents)
        * forward_flops(scorer.sizes, scorer.config.max_length or 256)
        for scorer, pairs in zip(work.scorers, reads, strict=True)
    )
    rejects = plan.reject_counts()
    truth = config.evaluation.labels.replace("judgements", "qrels")
    return DryRun(
        root=config.root,
        queries=queries,
        log_rows=plan.log_rows,
        left_out=asdict(plan.left_out),
        rejects=rejects,
        too_many_rejects=are_too_many(
            sum(rejects.values()), plan.log_rows, config.limits.max_rejects
        ),
        judged=work.judged_queries + work.judged_rejects,
        documents=documents,
        excluded=work.excluded.counts() or None,
        files_read=file_counts(config, "queries", truth),
        remarks=work.remarks,
        pairs=sum(reads),
        blocks=len(block_bounds(queries, rows_per_block(config, queries))),
        fingerprint=digest(work.made_of),
        index_groups=in_gb(groups),
        index_remarks=index_remarks,
        petaflop_at_most=round(flops / 1e15, 4) if flops else None,
    )


def _divided(config: Config, work: Work) -> tuple[Groups, list[str]]:
    """The groups of shards on this machine, or on nodes like it.

    Another cluster is not asked: it may not run yet.
    """
    alone = config.compute.address is None and "RAY_ADDRESS" not in os.environ
    here = this_node(config.compute, 1 if alone else _MANY)
    searches = work.searches(config)
    return divide(
        with_retrievers(config.compute, searches, here.cpus),
        searches,
        here,
        lambda cache: cache.room() if alone else cache.max_bytes,
    )
