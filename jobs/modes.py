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
from rerank_batch.errors import StorageError
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
    if (decided := run.decided("mode")) is not None:
        return Choice.from_dict(decided)
    pool = plan_pools(config.compute, resources.cpus, resources.gpus).scorers
    options = replace(scorer_options(config, config.reranker, inputs), threads=pool.threads)

    def measure() -> Choice:
        return on_worker(choose_scorer_mode, pool, inputs.reranker, options)

    choice = _kept(run.root, inputs.reranker.family, options, measure, console)
    return Choice.from_dict(run.decide("mode", choice.to_dict()))


def encoder_mode(
    root: Root, encoder: str, options: EncoderOptions, pool: Pool, console: Console
) -> Choice:
    """The mode in which documents are encoded for the index at ``root``."""

    def measure() -> Choice:
        return on_worker(choose_encoder_mode, pool, encoder, options)

    return _kept(root, "encoder", options, measure, console)


def _kept(
    root: Root,
    what: str,
    options: ScorerOptions | EncoderOptions,
    measure: Callable[[], Choice],
    console: Console,
) -> Choice:
    """What was measured before under the root, or is now: the first to write it decides."""
    if options.graphs is None:
        return measure()
    # One mode on CPUs is one everywhere: GPUs have no more of them.
    on_cpus = modes_for(options.precision, options.allow, options.runtime, "cpu")
    if len(on_cpus) == 1 and on_cpus[0].runtime == "torch":
        return Choice(on_cpus[0], {})
    asked = [what, options.graphs.fingerprint, options.precision, options.allow, options.runtime]
    key = f"modes/{digest(asked)[:32]}.json"
    if (found := _read(root, key)) is not None:
        return found
    choice = measure()
    rates = ", ".join(f"{mode} {rate:,.0f}" for mode, rate in choice.tokens_per_second.items())
    console.note(f"{what} runs as {choice.mode}" + (f" (tokens/s: {rates})" if rates else ""))
    body = {**choice.to_dict(), "asked": asked, "nonce": new_nonce()}
    if root.create_once(key, to_json(body)):
        return choice
    return _read(root, key) or choice


def _read(root: Root, key: str) -> Choice | None:
    raw = root.read(key)
    if raw is None:
        return None
    value = from_json(raw, key)
    try:
        return Choice.from_dict(value)
    except (KeyError, TypeError) as error:
        raise StorageError(f"{key} is damaged, delete it: it lacks {error}") from None
