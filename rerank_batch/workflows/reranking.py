"""What the run of a reranker, or of a comparison, does with its blocks; see `execute`."""

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import replace

from rerank_batch.config import Config
from rerank_batch.pipeline.actors import share_actors
from rerank_batch.pipeline.placement import Groups, divide, with_retrievers
from rerank_batch.pipeline.pools import Pool
from rerank_batch.pipeline.resources import Cluster
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.pipeline.work import StagePlan, Work
from rerank_batch.ray_backend.execution import run_queries
from rerank_batch.ray_backend.metrics import RunMetrics, run_sums
from rerank_batch.ray_backend.nodes import on_every_node
from rerank_batch.reporter import Reporter
from rerank_batch.rerankers.configured import scorer_options
from rerank_batch.rerankers.paid import PaidUse
from rerank_batch.rerankers.stages import ScorerUse
from rerank_batch.runs import Run, total
from rerank_batch.runs.commit import BlockDone
from rerank_batch.runs.rejects import check_rejects
from rerank_batch.scoring.modes import Choice
from rerank_batch.workflows.modes import modes_of, scorer_modes
from rerank_batch.workflows.run_scores import RunScores, run_scores


class Reranking:
    """The task of one driver: its decisions on the cluster, and its watch over rejects.

    ``modes`` and ``scores`` have an entry for each model of the cascade.
    """

    def __init__(self, run: Run, config: Config, work: Work, reporter: Reporter) -> None:
        self._run, self._config, self._work, self._reporter = run, config, work, reporter
        self._planned = work.plan.reject_counts()
        # A run that the limit stopped does not slip past it by being resumed.
        reasons = total(run.commits(), "reject_reasons")
        self._later = Counter({reason: int(count) for reason, count in reasons.items()})
        self._metrics: RunMetrics | None = None
        self.modes: Sequence[Choice | None] = ()
        self.scores: Sequence[RunScores | None] = ()
        self.groups: Groups = {}
        self.pools: dict[str, Pool] = {}
        self._check_rejects()

    def prepare(self, resources: Cluster, to_do: Sequence[int]) -> Sequence[StageSpec]:
        """See `Task.prepare`: modes are measured, cached scores found, shards divided."""
        run, work = self._run, self._work
        self.modes = scorer_modes(run, self._config, work, resources, self._reporter)
        self.scores = run_scores(run, self._config, work, self.modes, self._reporter)
        uses = scorer_uses(run, self._config, work, self.modes, self.scores)
        searches = work.searches(self._config)
        compute = with_retrievers(self._config.compute, searches, resources.cpus)
        self.groups, remarks = divide(
            compute, searches, resources, lambda cache: min(on_every_node(cache.room))
        )
        for remark in remarks:
            self._reporter.note(remark)
        config = self._config.model_copy(update={"compute": compute})
        plan = StagePlan(resources, run.spec.block_rows, uses, self.groups)
        stages = share_actors(work.stages(config, plan), resources.cpus, resources.gpus)
        self.pools = {stage.name: stage.pool for stage in stages}
        self._metrics = RunMetrics(config.job, run.run_id, config.cost.per_hour)
        return stages

    def blocks(
        self, to_do: Sequence[int], stages: Sequence[StageSpec]
    ) -> Generator[BlockDone, None, None]:
        """See `Task.blocks`."""
        queries = self._config.queries
        keep_texts = queries is not None and queries.keep_rejected_texts
        yield from run_queries(to_do, stages, self._run.writer(), keep_texts)
        self._update_metrics()

    def committed(self, block: BlockDone) -> None:
        """See `Task.committed`.

        Raises:
            TooManyRejects: the limit is reached.
        """
        self._later.update(block.reject_reasons)
        self._check_rejects()
        if self._metrics is not None and self._metrics.is_due():
            self._update_metrics()

    def complete(self) -> None:
        """Read what earlier drivers decided, where no block was left to do."""
        if self.pools:
            return
        self.modes = modes_of(self._run, self._work)
        self.scores = run_scores(self._run, self._config, self._work, self.modes, self._reporter)

    def _check_rejects(self) -> None:
        plan, limit = self._work.plan, self._config.limits.max_rejects
        check_rejects(self._planned, self._later, plan.log_rows, limit, self._run.run_id)

    def _update_metrics(self) -> None:
        if self._metrics is None:
            return
        commits = self._run.commits()  # each is read once
        planned = (self._run.spec.blocks, self._run.spec.planned)
        rejected = sum(self._planned.values()) + sum(self._later.values())
        self._metrics.update(run_sums(total(commits, "sums"), rejected, len(commits), planned))


def scorer_uses(
    run: Run,
    config: Config,
    work: Work,
    modes: Sequence[Choice | None],
    scores: Sequence[RunScores | None],
) -> list[ScorerUse]:
    """The cascade as its workers need it."""
    families = [scorer.model.family for scorer in work.scorers]
    uses = []
    for scorer, choice, known in zip(work.scorers, modes, scores, strict=True):
        options = scorer_options(
            config.storage, scorer, sharers=families.count(scorer.model.family)
        )
        price = config.cost.price(str(scorer.model))
        prefix = f"runs/{run.run_id}/"
        uses.append(
            ScorerUse(
                number=scorer.number,
                model=scorer.model,
                pin=scorer.pin,
                options=replace(options, mode=choice.mode if choice else None),
                depth=scorer.config.depth,
                cache=known.use() if known else None,
                paid=PaidUse(run.root, prefix, scorer.number, price, config.cost.cap)
                if scorer.is_service
                else None,
            )
        )
    return uses
