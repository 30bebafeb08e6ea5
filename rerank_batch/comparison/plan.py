"""The systems that `evaluate` compares: what each is made of, and what they share.

Systems that retrieve alike share one retrieval at the largest of their depths, and each distinct
model is there once. Earlier runs and TREC run files are not computed: their lists are read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rerank_batch import schema
from rerank_batch.comparison.stages import (
    AssembleSystems,
    FuseAlso,
    Fused,
    Reads,
    ScoreSystems,
    SearchAlso,
    System,
)
from rerank_batch.config import Config, Source, SystemConfig, digest
from rerank_batch.data.qrels import Judgements
from rerank_batch.data.trec import read_run
from rerank_batch.errors import ConfigError, InputError
from rerank_batch.evaluation.judged import RERANKED, RETRIEVAL, Lists, RankedList, judged_blocks
from rerank_batch.index.configured import OpenedIndex, open_index
from rerank_batch.pipeline.placement import Groups, Search, group_name, group_stages
from rerank_batch.pipeline.pools import of_group, plan_pools, shared
from rerank_batch.pipeline.resources import Cluster
from rerank_batch.pipeline.stage import StageSpec
from rerank_batch.rerankers import is_listwise
from rerank_batch.rerankers.configured import (
    ScorerInput,
    check_gate,
    check_prices,
    prompts_of,
    scorer_input,
    scorer_names,
)
from rerank_batch.rerankers.stages import ScorerUse
from rerank_batch.retrieval.configured import fusion_of, query_encoder_options, source_use
from rerank_batch.retrieval.excluded import Excluded, read_excluded
from rerank_batch.retrieval.fusion import Fusion
from rerank_batch.retrieval.gate import Gate
from rerank_batch.retrieval.given import Given, read_given
from rerank_batch.retrieval.sources import SourceUse
from rerank_batch.retrieval.stages import EncodeQueries
from rerank_batch.runs import Run
from rerank_batch.storage import open_root
from rerank_batch.workflows.inputs import Inputs, read_inputs


@dataclass(frozen=True)
class Retrieval:
    """One way to find candidates, to the largest depth that a system takes of it."""

    opened: OpenedIndex
    use: SourceUse
    made_of: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ComparisonInputs(Inputs):
    """What a comparison works on: its computed systems, and what they share.

    The retrievals that a system takes one of are ``retrievals`` and then ``fused``.
    """

    systems: tuple[System, ...]
    retrievals: tuple[Retrieval, ...]
    fused: tuple[Fused, ...]

    def searches(self) -> dict[str, Search]:
        """What each of the retrievals searches, by the name of its stage."""
        return {
            _search_name(number): Search(each.opened.index, (each.use.source,))
            for number, each in enumerate(self.retrievals, start=1)
        }

    def most_pairs(self) -> list[int]:
        """How many documents of a query each of the scorers may have to read, before any is known.

        First in a cascade, a model reads the first of what was retrieved, which the deepest system
        of a retrieval reads for all; later in one, what it reads depends on what came before.
        """
        first: dict[tuple[int, int], int] = {}
        later = dict.fromkeys((scorer.number for scorer in self.scorers), 0)
        for system in self.systems:
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


def read_comparison(
    config: Config, judged_only: bool = True, generations: Mapping[str, str] | None = None
) -> ComparisonInputs:
    """Read and check everything that the computed systems of a configuration need; ``generations``
    as `read_inputs` has them.

    Raises:
        RerankBatchError: the first thing that is wrong, in the words of whoever found it.
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
    first = next(iter(configs.values()))
    inputs = read_inputs(first.model_copy(update={"reranker": None}), judged_only, generations)

    shared_by = _Shared(generations)
    scorers: dict[str, ScorerInput] = {}
    found = [shared_by.retrieval_of(each) for each in configs.values()]
    retrievals, fused = shared_by.retrievals(), shared_by.fused()
    systems = [
        _system(name, each, len(retrievals) + number if several else number, scorers)
        for (name, each), (number, several) in zip(configs.items(), found, strict=True)
    ]
    _check_same_corpus(retrievals)
    check_prices(config, tuple(scorers.values()))

    made_of = {
        **inputs.made_of,
        "settings": {
            **inputs.made_of["settings"],
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
    return ComparisonInputs(
        plan=inputs.plan,
        qrels=inputs.qrels,
        index=retrievals[0].opened.index,
        encoder=retrievals[0].opened.encoder,
        scorers=tuple(scorers.values()),
        made_of=made_of,
        excluded=inputs.excluded,
        remarks=inputs.remarks,
        generations={
            where: name
            for each in retrievals
            for where, name in each.opened.index.generations().items()
        },
        systems=tuple(systems),
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


def comparison_stages(
    config: Config,
    inputs: ComparisonInputs,
    resources: Cluster,
    block_rows: int,
    uses: Sequence[ScorerUse],
    groups: Groups,
) -> list[StageSpec]:
    """The boxes of a comparison, in order; ``groups`` are of the shards of each retrieval."""
    searching = [*(len(parts) for parts in groups.values()), *([1] if inputs.fused else [])]
    pools = plan_pools(config.compute, resources.cpus, resources.gpus, searching)
    encoded_by: dict[str, Any] | None = None
    stages: list[StageSpec] = []
    for number, retrieval in enumerate(inputs.retrievals, start=1):
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
    if inputs.fused:
        fuse = {"fused": inputs.fused}
        stages.append(StageSpec("fuse", FuseAlso, fuse, pools.retrievers, schema.SEARCHED))
    passes = _passes(inputs.systems, uses)
    here = sum(not paid for paid, _ in passes)
    for number, (paid, scorers) in enumerate(passes):
        stages.append(
            StageSpec(
                "rerank" if number == 0 else f"rerank-{number + 1}",
                ScoreSystems,
                {"systems": inputs.systems, "scorers": scorers, "index": inputs.index},
                pools.callers if paid else shared(pools.scorers, here),
                schema.COMPARED,
                block_rows,
                alone=paid,
            )
        )
    measures = config.evaluation.measures
    names = tuple(system.name for system in inputs.systems)
    assemble = {
        "systems": inputs.systems,
        "index": inputs.index,
        "measures": measures,
        "qrels": inputs.planned_qrels,
    }
    output = schema.comparison(measures, names).append(schema.REJECT_FIELD)
    return [*stages, StageSpec("assemble", AssembleSystems, assemble, pools.assemblers, output)]


def _search_name(number: int) -> str:
    return "retrieve" if number == 1 else f"retrieve-{number}"


def external_lists(config: Config, qrels: Judgements) -> dict[str, Lists]:
    """The lists of the systems that are not computed, by query id, of judged queries.

    Raises:
        InputError, RunConflict: a run or a file is not there, or does not hold what is asked.
    """
    return {
        name: _lists_of_run(config, name, system, qrels) if system.run else _lists_of_trec(system)
        for name, system in config.evaluation.systems.items()
        if not system.is_computed
    }


def descriptions(config: Config) -> dict[str, str]:
    """What each system is, in a few words for a table."""
    return {name: _describe(config, each) for name, each in config.evaluation.systems.items()}


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


def _lists_of_run(
    config: Config, name: str, system: SystemConfig, qrels: Judgements
) -> dict[str, RankedList]:
    run = Run.open(open_root(config.root), system.run or "")
    run.finished()
    there = run.spec.get("systems") or [RETRIEVAL, RERANKED]
    wanted = system.system or RERANKED
    if wanted not in there:
        raise ConfigError(
            f"evaluation.systems.{name}: run {run.run_id} holds the systems {', '.join(there)}; "
            "say which with system"
        )
    return {
        query_id: query.lists[wanted]
        for block in judged_blocks(run.results_paths(), qrels)
        for query in block
        for query_id in query.query_ids
    }


def _lists_of_trec(system: SystemConfig) -> dict[str, RankedList]:
    return {
        query_id: RankedList(
            [doc_id for doc_id, _ in ranking],
            np.array([score for _, score in ranking], np.float32),
        )
        for query_id, ranking in read_run(system.trec or "").items()
    }


def _describe(config: Config, system: SystemConfig) -> str:
    if system.run is not None:
        return f"run {system.run}" + (f", {system.system}" if system.system else "")
    if system.trec is not None:
        return f"TREC run {system.trec}"
    computed = config.computing(system)
    found = f"{computed.retrieval.depth} of {_sources(computed)}"
    if computed.reranker is None:
        return found
    gate = " behind a gate" if computed.reranker.gate else ""
    read = [
        f"{scorer.model} ({scorer.depth})" if scorer.depth else scorer.model
        for scorer in computed.reranker.cascade
    ]
    return f"{found}, then {', then '.join(read)}{gate}"


def _sources(config: Config) -> str:
    """What candidates come from, and how it is put together."""
    words = {"dense": config.index.kind, "bm25": "BM25", "given": "given lists"}
    retrieval = config.retrieval
    if len(retrieval.sources) == 1:
        return words[retrieval.sources[0]]
    fusion = Fusion.of(retrieval.fusion, retrieval.sources)
    shares = [
        words[source] + (f" x {weight:g}" if weight != 1 else "")
        for source, weight in zip(retrieval.sources, fusion.weights, strict=True)
    ]
    method = f"RRF {retrieval.fusion.k}"
    if retrieval.fusion.method == "weighted":
        method = f"weighted {retrieval.fusion.normalise}"
    return f"{' + '.join(shares)} ({method})"


def with_missing(lists: Mapping[str, Lists], query_ids: Sequence[str]) -> dict[str, int]:
    """Of each system how many of the queries it has no list for."""
    return {name: sum(query not in known for query in query_ids) for name, known in lists.items()}
