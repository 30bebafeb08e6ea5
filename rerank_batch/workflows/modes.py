"""In which mode models run: measured once for a root and a model, and the same ever after.

A mode that changed from night to night would change the last digits of every score with it, and
make every cached score useless. `modes/` under the root holds what was measured; a run keeps its
own copy, so that it ends in the mode it began with.
"""

from collections.abc import Callable
from dataclasses import replace

from rerank_batch.config import Config, digest
from rerank_batch.models.fingerprint import ModelPin
from rerank_batch.pipeline.pools import Pool, plan_pools
from rerank_batch.pipeline.resources import Cluster
from rerank_batch.pipeline.work import Work
from rerank_batch.ray_backend.nodes import on_worker
from rerank_batch.reporter import Reporter
from rerank_batch.rerankers.configured import ScorerInput, scorer_options
from rerank_batch.rerankers.stages import choose_scorer_mode
from rerank_batch.retrieval.options import EncoderOptions
from rerank_batch.retrieval.stages import choose_encoder_mode
from rerank_batch.runs import Run, from_json, to_json
from rerank_batch.runs.decisions import keep_decision, read_decision
from rerank_batch.scoring.modes import Choice, Mode, modes_for
from rerank_batch.storage import Root, new_nonce


def scorer_modes(
    run: Run, config: Config, work: Work, resources: Cluster, reporter: Reporter
) -> list[Choice | None]:
    """The modes of the run's cascade, model by model; None for a service."""
    pool = plan_pools(config.compute, resources.cpus, resources.gpus).scorers
    for scorer in work.scorers:
        if not scorer.is_service and _decided(run, scorer) is None:
            _decide(run, config, scorer, pool, reporter)
    return modes_of(run, work)


def modes_of(run: Run, work: Work) -> list[Choice | None]:
    """What a run has decided, model by model; None where there was nothing to decide yet."""
    return [_decided(run, scorer) for scorer in work.scorers]


def _decided(run: Run, scorer: ScorerInput) -> Choice | None:
    decided = read_decision(run, "mode", scorer.number, Choice.KEYS)
    return None if decided is None else Choice.from_dict(decided)


def _decide(run: Run, config: Config, scorer: ScorerInput, pool: Pool, reporter: Reporter) -> None:
    options = replace(scorer_options(config.storage, scorer), threads=pool.threads)

    def measure() -> Choice:
        return on_worker(choose_scorer_mode, pool, scorer.model, scorer.weights(), options)

    modes = modes_for(options.precision, options.allow, options.runtime, "cpu")
    model = (scorer.model.family, scorer.made_of)
    keep_decision(
        run, "mode", scorer.number, _kept(run.root, model, modes, measure, reporter).to_dict()
    )


def encoder_mode(
    root: Root,
    encoder: ModelPin,
    options: EncoderOptions,
    pool: Pool,
    reporter: Reporter,
) -> Choice:
    """The mode in which documents are encoded for the index at ``root``."""

    def measure() -> Choice:
        return on_worker(choose_encoder_mode, pool, encoder, options)

    modes = modes_for(options.precision, (), options.runtime, "cpu")
    return _kept(root, ("encoder", encoder.fingerprint), modes, measure, reporter)


def _kept(
    root: Root,
    model: tuple[str, str],
    modes: list[Mode],
    measure: Callable[[], Choice],
    reporter: Reporter,
) -> Choice:
    """What was measured before under the root for a model (what it is, and its fingerprint) and
    the modes there are on CPUs, or is now: the first to write it decides."""
    if modes == [_TORCH]:
        return Choice(_TORCH, {})  # GPUs have no other
    asked = [*model, *map(str, modes)]
    key = f"modes/{digest(asked)[:32]}.json"
    if (raw := root.read(key)) is None:
        choice = measure()
        rates = ", ".join(f"{mode} {rate:,.0f}" for mode, rate in choice.tokens_per_second.items())
        reporter.note(
            f"{model[0]} runs as {choice.mode}" + (f" (tokens/s: {rates})" if rates else "")
        )
        body = to_json({**choice.to_dict(), "asked": asked, "nonce": new_nonce()})
        raw = body if root.create_once(key, body) else root.read(key) or b""
    kept = Choice.from_dict(from_json(raw, key, Choice.KEYS))
    if kept.fallback:
        reporter.note(f"{model[0]} runs by sentence-transformers: {kept.fallback}")
    return kept


_TORCH = Mode("torch", "fp32")
