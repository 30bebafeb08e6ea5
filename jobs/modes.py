"""In which mode models run: measured once for a root and a model, and the same ever after.

A mode that changed from night to night would change the last digits of every score with it, and
make every cached score useless. `modes/` under the root holds what was measured; a run keeps its
own copy, so that it ends in the mode it began with.
"""

from collections.abc import Callable
from dataclasses import replace

from jobs.console import Console
from jobs.inputs import Inputs, graphs
from rerank_batch.config import Config, RerankerConfig, digest
from rerank_batch.pipeline import Cluster, on_worker
from rerank_batch.pools import Pool, plan_pools
from rerank_batch.rerankers.base import ScorerOptions
from rerank_batch.retrieval.options import EncoderOptions
from rerank_batch.run import Run, from_json, new_nonce, to_json
from rerank_batch.scoring.modes import Choice, Mode, modes_for
from rerank_batch.stages import choose_encoder_mode, choose_scorer_mode
from rerank_batch.storage import Root


def scorer_options(config: Config, reranker: RerankerConfig, inputs: Inputs) -> ScorerOptions:
    """What the configuration says of how the reranker runs."""
    return ScorerOptions(
        max_length=reranker.max_length,
        precision=reranker.precision,
        allow=reranker.allow,
        runtime=reranker.runtime,
        truncation=reranker.truncation,
        batch_tokens=None if reranker.batch_tokens == "auto" else reranker.batch_tokens,
        graphs=graphs(config.storage, inputs.made_of["reranker"]),
    )


def query_encoder_options(config: Config, inputs: Inputs) -> EncoderOptions:
    """Queries are encoded as the documents were, but always in float32."""
    manifest = inputs.index.manifest
    mode = Choice.from_dict(manifest.encoder_mode).mode
    return EncoderOptions(
        max_length=config.index.max_length,
        mode=Mode(mode.runtime, "fp32"),
        graphs=graphs(config.storage, manifest.made_of["encoder"]),
    )


def scorer_mode(
    run: Run, config: Config, inputs: Inputs, resources: Cluster, console: Console
) -> Choice | None:
    """The mode of the run's reranker; None without one."""
    if config.reranker is None or inputs.reranker is None:
        return None
    if (decided := mode_of(run)) is not None:
        return decided
    pool = plan_pools(config.compute, resources.cpus, resources.gpus).scorers
    options = replace(scorer_options(config, config.reranker, inputs), threads=pool.threads)

    def measure() -> Choice:
        return on_worker(choose_scorer_mode, pool, inputs.reranker, options)

    modes = modes_for(options.precision, options.allow, options.runtime, "cpu")
    model = (inputs.reranker.family, inputs.made_of["reranker"])
    run.decide("mode", _kept(run.root, model, modes, measure, console).to_dict())
    return mode_of(run)


def mode_of(run: Run) -> Choice | None:
    """What a run has decided; None where it had nothing to decide yet."""
    decided = run.decided("mode", Choice.KEYS)
    return None if decided is None else Choice.from_dict(decided)


def encoder_mode(
    root: Root,
    encoder: str,
    fingerprint: str,
    options: EncoderOptions,
    pool: Pool,
    console: Console,
) -> Choice:
    """The mode in which documents are encoded for the index at ``root``."""

    def measure() -> Choice:
        return on_worker(choose_encoder_mode, pool, encoder, options)

    modes = modes_for(options.precision, (), options.runtime, "cpu")
    return _kept(root, ("encoder", fingerprint), modes, measure, console)


def _kept(
    root: Root,
    model: tuple[str, str],
    modes: list[Mode],
    measure: Callable[[], Choice],
    console: Console,
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
        console.note(
            f"{model[0]} runs as {choice.mode}" + (f" (tokens/s: {rates})" if rates else "")
        )
        body = to_json({**choice.to_dict(), "asked": asked, "nonce": new_nonce()})
        raw = body if root.create_once(key, body) else root.read(key) or b""
    return Choice.from_dict(from_json(raw, key, Choice.KEYS))


_TORCH = Mode("torch", "fp32")
