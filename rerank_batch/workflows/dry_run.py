"""A dry run: every input is checked and the work estimated; no model is loaded, nothing written."""

import os
from dataclasses import asdict

from rerank_batch.config.identity import digest
from rerank_batch.config.root import Config
from rerank_batch.data.file_counts import file_counts
from rerank_batch.data.reject_limit import are_too_many
from rerank_batch.models.settings import forward_flops
from rerank_batch.pipeline.blocks import rows_per_block
from rerank_batch.pipeline.placement import Groups, divide, in_gb, with_retrievers
from rerank_batch.pipeline.resources import this_node
from rerank_batch.pipeline.work import Work
from rerank_batch.remarks import remark_objects
from rerank_batch.runs.coverage import block_bounds
from rerank_batch.schema import JsonObject
from rerank_batch.workflows.inputs import read_comparison, read_inputs

_MANY = 1 << 20


def dry_run(config: Config, judged_only: bool = False, compare: bool = False) -> JsonObject:
    """Check every input and estimate the work; loads no model and writes nothing."""
    work = (read_comparison if compare else read_inputs)(config, judged_only)
    plan = work.plan
    queries = plan.queries.num_rows
    reads = [queries * depth for depth in work.pairs_at_most(config)]
    summary: JsonObject = {
        "dry_run": True,
        "root": config.root,
        "queries": queries,
        "log_rows": plan.log_rows,
        "left_out": asdict(plan.left_out),
        "rejects": plan.reject_counts(),
        "too_many_rejects": are_too_many(
            sum(plan.reject_counts().values()), plan.log_rows, config.limits.max_rejects
        ),
        "judged": work.judged_queries + work.judged_rejects,
        "documents": work.index.manifest.documents,
        "excluded": work.excluded.counts() or None,
        "files_read": file_counts(
            config, "queries", config.evaluation.labels.replace("judgements", "qrels")
        ),
        "remarks": remark_objects(work.remarks),
        "pairs": sum(reads),
        "blocks": len(block_bounds(queries, rows_per_block(config, queries))),
        "fingerprint": digest(work.made_of),
    }
    groups, remarks = _divided(config, work)
    summary |= {"index_groups": in_gb(groups), "index_remarks": remarks}
    flops = sum(
        (pairs if scorer.model.family != "late-interaction" else summary["documents"])
        * forward_flops(scorer.sizes, scorer.config.max_length or 256)
        for scorer, pairs in zip(work.scorers, reads, strict=True)
    )
    if flops:
        summary["estimated_petaflop_at_most"] = round(flops / 1e15, 4)
    return summary


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
