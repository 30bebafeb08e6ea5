"""The systems that `evaluate` compares: what each is made of, and what they share.

Systems that retrieve alike share one retrieval at the largest of their depths, and each distinct
model is there once. Earlier runs and TREC run files are not computed: their lists are read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rerank_batch.comparison.graph import ComparisonWork, Retrieval
from rerank_batch.comparison.stages import (
    Fused,
    Reads,
    System,
)
from rerank_batch.config import Config, Source, digest
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.index.configured import OpenedIndex, open_index
from rerank_batch.pipeline.work import Work
from rerank_batch.rerankers import is_listwise
from rerank_batch.rerankers.configured import (
    ScorerInput,
    check_gate,
    check_prices,
    prompts_of,
    scorer_input,
    scorer_names,
)
from rerank_batch.retrieval.configured import fusion_of, source_use
from rerank_batch.retrieval.excluded import Excluded, read_excluded
from rerank_batch.retrieval.gate import Gate
from rerank_batch.retrieval.given import Given, read_given


def computed_systems(config: Config) -> dict[str, Config]:
    """The configuration of each system that is computed, by its name.

    Raises:
        ConfigError: there is none.
    """
    configs = {
        name: config.computing(system)
        for name, system in config.evaluation.systems.items()
        if system.is_computed
    }
    if not configs:
        raise ConfigError(
            "evaluation.systems: at least one has to be computed, so that there are queries and "
            "candidates; for example retrieval: {reranker: null}"
        )
    return configs


def plan_comparison(
    config: Config, base: Work, generations: Mapping[str, str] | None = None
) -> ComparisonWork:
    """Read and check everything that the computed systems need; ``base`` is the work of a run of
    the first one without a reranker.

    Raises:
        RerankBatchError: the first thing that is wrong, in the words of whoever found it.
    """
    configs = computed_systems(config)
    shared_by = _Shared(generations)
    scorers: dict[str, ScorerInput] = {}
    retrieved = [shared_by.retrieval_of(each) for each in configs.values()]
    retrievals, fused = shared_by.retrievals(), shared_by.fused()
    systems = [
        _system(name, each, len(retrievals) + number if several else number, scorers)
        for (name, each), (number, several) in zip(configs.items(), retrieved, strict=True)
    ]
    _check_same_corpus(retrievals)
    check_prices(config, tuple(scorers.values()))

    made_of = {
        **base.made_of,
        "settings": {
            **base.made_of["settings"],
            "retrieval": [
                [each.use.source, each.use.depth, each.use.nprobe, each.use.ef_search]
                for each in retrievals
            ],
            "fused": [_fused_settings(each) for each in fused],
            "reranker": [_settings(scorer) for scorer in scorers.values()],
            "systems": [asdict(system) for system in systems],
        },
        "index": [retrieval.made_of for retrieval in retrievals],
        "reranker": [scorer.made_of for scorer in scorers.values()] or None,
        **prompts_of(tuple(scorers.values())),
    }
    return ComparisonWork(
        plan=base.plan,
        qrels=base.qrels,
        index=retrievals[0].opened.index,
        encoder=retrievals[0].opened.encoder,
        scorers=tuple(scorers.values()),
        made_of=made_of,
        excluded=base.excluded,
        remarks=base.remarks,
        generations={
            where: name
            for each in retrievals
            for where, name in each.opened.index.generations().items()
        },
        computed=tuple(systems),
        retrievals=retrievals,
        fused=fused,
    )


class _Shared:
    """The retrievals of the systems, each distinct one once and to the largest depth."""

    def __init__(self, generations: Mapping[str, str] | None) -> None:
        self._generations = generations
        self._opened: dict[str, OpenedIndex] = {}
        self._excluded: dict[str, Excluded] = {}
        self._given: dict[str, Given | None] = {}
        self._found: dict[tuple[str, str], Retrieval] = {}
        self._fused: dict[str, Fused] = {}

    def retrieval_of(self, config: Config) -> tuple[int, bool]:
        """The number of what a system retrieves; True: among those that are fused."""
        retrieval = config.retrieval
        depths = tuple(retrieval.depth_of(source) for source in retrieval.sources)
        numbers = tuple(
            self._source(config, source, depth)
            for source, depth in zip(retrieval.sources, depths, strict=True)
        )
        fusion = fusion_of(config)
        if fusion is None:
            return numbers[0], False
        fused = Fused(numbers, depths, fusion, retrieval.depth)
        key = digest(_fused_settings(replace(fused, depth=0)))
        before = self._fused.get(key, fused)
        self._fused[key] = replace(fused, depth=max(before.depth, fused.depth))
        return list(self._fused).index(key), True

    def retrievals(self) -> tuple[Retrieval, ...]:
        """Those that search."""
        return tuple(self._found.values())

    def fused(self) -> tuple[Fused, ...]:
        """Those that are made of others."""
        return tuple(self._fused.values())

    def _source(self, config: Config, source: Source, depth: int) -> int:
        index_key = digest(config.index.model_dump(mode="json"))
        opened = self._opened.get(index_key) or open_index(config, self._generations)
        self._opened[index_key] = opened
        left_out = digest(config.retrieval.model_dump(mode="json", include={"exclude"}))
        if (of_index := f"{left_out} {index_key}") not in self._excluded:
            self._excluded[of_index] = read_excluded(config, opened.index)
        excluded = self._excluded[of_index]
        given = None
        key: tuple[str, str] = (f"{source} {left_out}", index_key)
        if source == "given":
            lists = digest(config.retrieval.model_dump(mode="json", include={"given", "exclude"}))
            key = (f"{source} {lists}", index_key)
            if lists not in self._given:
                self._given[lists] = read_given(config, opened.index, excluded)
            given = self._given[lists]
        before = self._found[key].use.depth if key in self._found else 0
        use = source_use(config, source, max(depth, before), given, excluded)
        made_of = {**opened.made_of, **({"given": given.fingerprint} if given else {})}
        if excluded.fingerprint is not None:
            made_of["exclude"] = excluded.fingerprint
        self._found[key] = Retrieval(opened, use, made_of)
        return list(self._found).index(key)


def _fused_settings(fused: Fused) -> list[Any]:
    fusion = fused.fusion
    settings = [fusion.config.model_dump(mode="json", exclude={"weights"}), fusion.weights]
    return [fused.of, fused.depths, settings, fused.depth]


def _system(name: str, config: Config, retrieval: int, scorers: dict[str, ScorerInput]) -> System:
    """A system of the comparison; models that are not among the scorers yet are added."""
    check_gate(config)
    cascade = config.reranker.cascade if config.reranker else ()
    gate = config.reranker.gate if config.reranker else None
    reads = []
    for model, settings in zip(scorer_names(config), cascade, strict=True):
        alike = settings.model_copy(update={"depth": None})
        key = digest(alike.model_dump(mode="json"))
        if key not in scorers:
            scorers[key] = scorer_input(len(scorers) + 1, model, alike)
        reads.append(
            Reads(scorers[key].number, settings.depth, is_listwise(model, settings.method))
        )
    return System(
        name=name,
        retrieval=retrieval,
        depth=config.retrieval.depth,
        cascade=tuple(reads),
        gate=Gate(gate.signal, gate.threshold) if gate and gate.threshold is not None else None,
    )


def _settings(scorer: ScorerInput) -> dict[str, Any]:
    dumped = scorer.config.model_dump(mode="json", exclude={"service", "depth"})
    return {**dumped, "model": scorer.model.family}


def _check_same_corpus(retrievals: Sequence[Retrieval]) -> None:
    corpora = {retrieval.opened.made_of["corpus"] for retrieval in retrievals}
    if len(corpora) > 1:
        raise InputError(
            "evaluation.systems: their indexes hold different documents; compare systems over "
            "different corpora by their runs: NAME: {run: RUN_ID}"
        )
