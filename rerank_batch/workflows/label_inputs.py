"""Everything a label run works on, checked before anything is started."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rerank_batch import schema
from rerank_batch.config import (
    Config,
    LabelFiltersConfig,
    LabelsConfig,
    LabelWindowConfig,
    QrelsConfig,
    digest,
)
from rerank_batch.config.identity import Ingredients
from rerank_batch.data.id_matches import unmatched_judged_documents, unmatched_queries
from rerank_batch.data.parquet import fingerprint_files
from rerank_batch.data.plan import Plan
from rerank_batch.data.qrels import SUFFIXES as QRELS_SUFFIXES
from rerank_batch.data.qrels import read_qrels
from rerank_batch.errors import ConfigError, IndexMismatch, RunConflict
from rerank_batch.evaluation.ground_truth import ground_truth_files, read_ground_truth
from rerank_batch.index.configured import open_generation
from rerank_batch.index.open import Index, verify_files
from rerank_batch.labels.candidates import CandidateSource
from rerank_batch.labels.mining.pools import Mining, OtherRun
from rerank_batch.labels.planning import LabelPlan, Truth, plan_labels
from rerank_batch.labels.rows import SPLITS
from rerank_batch.labels.rules import Rules
from rerank_batch.labels.splits import HeldOut
from rerank_batch.remarks import Remark, remark_objects
from rerank_batch.reporter import Reporter
from rerank_batch.rerankers import FAMILIES
from rerank_batch.runs import Run, latest_run
from rerank_batch.schema import JsonObject
from rerank_batch.storage import open_root
from rerank_batch.workflows.judging import JudgeTruth, Judging, judge_plan, judge_run, prepare_judge


@dataclass(frozen=True)
class Teacher:
    """The last reranker of a run: its name, its fingerprint, the mode it ran in."""

    model: str
    fingerprint: str
    mode: str | None


@dataclass(frozen=True)
class LabelSource:
    """Where labels come from, as the card of the dataset has it.

    ``judgements`` says in words what was read; ``judge`` are the facts about an LLM that judged.
    """

    truth: str
    judgements: str
    judge: Mapping[str, Any] | None
    run: str
    others: list[str]
    teacher: Teacher | None
    documents: int
    corpus: str


@dataclass(frozen=True)
class LabelInputs:
    """Everything a label run works on, as `read_label_inputs` found it."""

    index: Index
    mining: Mining
    held_out: HeldOut
    plan: LabelPlan
    made_of: Ingredients
    source: LabelSource
    remarks: tuple[Remark, ...] = ()


def read_label_inputs(
    config: Config, source_run: str, reporter: Reporter, resume: Run | None = None
) -> LabelInputs:
    """Read and check the run, its index and the source of truth, and plan what is to be labelled.

    Where an LLM is the source of truth, this is where it judges: last, when all else is checked,
    and that a label run to ``resume`` was begun with the same, so that nothing is paid in vain.

    Raises:
        RerankBatchError: the first thing that is wrong, in the words of whoever found it.
    """
    opened = _open(config, source_run)
    if resume is not None and opened.judging is not None:
        before = resume.spec.made_of
        truth = {**(before["truth"] or {}), **opened.judging.made_of}
        resume.check_made_of({**before, **_made_of(config, opened), "truth": truth})
    judged = None if opened.judging is None else judge_run(config, opened.judging, reporter)
    return _planned(config, opened, read_truth(config, judged))


def plan_label_run(config: Config, source_run: str) -> JsonObject:
    """What a label run would do, as far as that is known without asking an LLM.

    Raises:
        RerankBatchError: see `read_label_inputs`.
    """
    opened = _open(config, source_run)
    summary = {"run": opened.source.run_id, "truth": config.labels.source}
    if opened.judging is not None:
        return {**summary, "judge": judge_plan(config, opened.judging), "remarks": []}
    planned = _planned(config, opened, read_truth(config))
    plan = planned.plan
    splits = Counter(plan.queries.column("split").to_pylist())
    return {
        **summary,
        "queries": plan.queries.num_rows,
        "groups": plan.groups,
        "queries_unknown_to_the_truth": plan.unknown,
        "split_queries": {split: splits[split] for split in SPLITS},
        "remarks": remark_objects(planned.remarks),
    }


@dataclass(frozen=True)
class _Opened:
    """All but the source of truth; ``judging`` where that is an LLM."""

    source: Run
    others: Sequence[Run]
    index: Index
    mining: Mining
    held_out: HeldOut
    judging: Judging | None


def _open(config: Config, source_run: str) -> _Opened:
    labels = config.labels
    root = open_root(config.root)
    source = latest_run(root, config.job) if source_run == "latest" else Run.open(root, source_run)
    others = [
        Run.open(open_root(each.root or config.root), each.run) for each in labels.negatives.runs
    ]
    for run in (source, *others):
        _check_minable(run)
    index = _index(config, source)
    if labels.source == "teacher" and _teacher(source) is None:
        raise ConfigError(
            f"labels.source is teacher, but run {source.run_id} had no reranker: nothing scored"
        )
    held_out = _held_out(labels.split.held_out, labels.positives.grade)
    mining = _mining(labels, source, others, graded=labels.source != "teacher")
    judging = None
    if labels.source == "llm":
        judging = prepare_judge(config, mining.source, _content(source), index)
    return _Opened(source, others, index, mining, held_out, judging)


def _planned(config: Config, opened: _Opened, truth: "TruthRead") -> LabelInputs:
    labels, source, others = config.labels, opened.source, opened.others
    index, held_out = opened.index, opened.held_out
    plan = plan_labels(opened.mining.source, truth.truth, labels, held_out)
    mining = replace(opened.mining, withheld=plan.withheld)
    made_of = {
        **_made_of(config, opened),
        "truth": truth.made_of,
        "plan": Plan(plan.queries, schema.REJECTS.empty_table(), 0).fingerprint(),
    }
    label_source = LabelSource(
        truth=labels.source,
        judgements=truth.words,
        judge=truth.judge,
        run=source.run_id,
        others=[run.run_id for run in others],
        teacher=_teacher(source),
        documents=index.manifest.documents,
        corpus=index.manifest.made_of["corpus"],
    )
    remarks = (*truth.remarks, *_remarks(config, opened, truth, plan))
    return LabelInputs(index, mining, held_out, plan, made_of, label_source, remarks)


def _remarks(config: Config, opened: _Opened, truth: "TruthRead", plan: LabelPlan) -> list[Remark]:
    """What looks wrong about judgements that somebody else wrote."""
    qrels, source = truth.truth.grades, config.labels.source
    if qrels is None or source not in ("qrels", "clicks"):
        return []
    section = "clicks" if source == "clicks" else "labels.qrels" if config.labels.qrels else "qrels"
    listed = plan.queries.column("query_ids").to_pylist()
    known = {each for ids in listed for each in ids}
    known |= set(opened.held_out.query_ids)
    where = f"run {opened.source.run_id}"
    return [
        *unmatched_judged_documents(section, qrels, opened.index.texts()),
        *unmatched_queries(section, "judged queries", qrels, known, where),
    ]


def _made_of(config: Config, opened: _Opened) -> Ingredients:
    """What a label run is made of but for the truth and what follows from it."""
    labels = config.labels
    return {
        "settings": _settings(labels),
        "run": _content(opened.source),
        "others": [_content(run) for run in opened.others],
        "held_out": _fingerprint(labels.split.held_out),
        "index": opened.index.manifest.made_of,
    }


def _mining(labels: LabelsConfig, source: Run, others: Sequence[Run], graded: bool) -> Mining:
    teacher = _teacher(source)
    return Mining(
        source=CandidateSource.of(source),
        others=tuple(
            OtherRun(
                run.run_id,
                CandidateSource.of(run),
                _to_the_end(window, run),
                _same(teacher, _teacher(run)),
            )
            for run, window in zip(others, labels.negatives.runs, strict=True)
        ),
        window=_to_the_end(labels.negatives.retrieval, source),
        random=labels.negatives.random,
        positives=labels.positives,
        graded=graded,
        rules=Rules(labels.filters, labels.positives.grade, _is_logit(labels.filters, teacher)),
        seed=labels.seed,
    )


def _settings(labels: LabelsConfig) -> Ingredients:
    """The settings that change rows; what is read by them is hashed instead of its path."""
    settings = labels.model_dump(mode="json")
    for name in ("formats", "tuple_negatives", "license", "qrels"):
        del settings[name]
    if settings["judge"] is None or labels.source != "llm":
        del settings["judge"]  # runs that knew no such setting go on
    else:
        for name in ("rubric", "service"):
            del settings["judge"][name]
    del settings["split"]["held_out"]
    for each in settings["negatives"]["runs"]:
        del each["root"]
    return settings


def _index(config: Config, source: Run) -> Index:
    """The index that the run retrieved from, for the texts of its documents.

    Raises:
        IndexMismatch: it is another one by now.
    """
    index = open_generation(config, source.spec.generations)
    if index.manifest.made_of != source.spec.index_made_of:
        raise IndexMismatch(
            f"the index at {index.root.uri} is not the one that run {source.run_id} retrieved "
            "from: its texts may be others. Run rerank again, or name the index it was run with"
        )
    verify_files(index)
    return index


def _check_minable(run: Run) -> None:
    """Only a run of one system has candidates with one teacher's scores.

    Raises:
        RunConflict: the run holds something else, or is not complete.
    """
    what = "labels" if "labels" in run.finished() else "several systems"
    if what == "labels" or run.spec.systems:
        raise RunConflict(f"run {run.run_id} holds {what}; name one of rerank or evaluate")


def _teacher(run: Run) -> Teacher | None:
    if not run.spec.cascade:
        return None
    return Teacher(
        model=str(run.spec.cascade[-1]["model"]),
        fingerprint=run.spec.scorers_made_of[-1],
        mode=run.finished().get("mode"),
    )


def _to_the_end(window: LabelWindowConfig, run: Run) -> LabelWindowConfig:
    """The window with the run's depth for an end that was left open."""
    if window.last is not None:
        return window
    depth = max(run.spec.depth, window.first)
    return LabelWindowConfig(first=window.first, last=depth, count=window.count)


def _same(teacher: Teacher | None, other: Teacher | None) -> bool:
    """Whether two runs' scores are of one model."""
    return bool(teacher and other and teacher.fingerprint == other.fingerprint)


def _is_logit(filters: LabelFiltersConfig, teacher: Teacher | None) -> bool:
    """Whether shares are taken of the sigmoid: late interaction gives similarities, services mostly
    probabilities, every other family logits."""
    if filters.scale != "auto" or teacher is None:
        return filters.scale == "sigmoid"
    family = teacher.model.partition(":")[0]
    return family != "late-interaction" and not FAMILIES[family].service


@dataclass(frozen=True)
class TruthRead:
    """A source of truth that was read: where from in words, and what it is made of.

    ``judge`` are the facts about an LLM that judged.
    """

    truth: Truth
    words: str
    made_of: Any
    judge: JsonObject | None = None
    remarks: tuple[Remark, ...] = ()


def read_truth(config: Config, judged: JudgeTruth | None = None) -> TruthRead:
    """What ``labels.source`` names; another source is another branch here, in the form of `Qrels`.

    ``judged`` is what an LLM has found, where that is the source.

    Raises:
        ConfigError: its paths are not given.
        InputError: they cannot be read.
    """
    source = config.labels.source
    if source == "teacher":
        return TruthRead(Truth(source, None), "the run's last reranker", None)
    if source == "llm":
        if judged is None:
            raise ConfigError("labels.source is llm: what it says is known when it has judged")
        return TruthRead(Truth(source, judged.grades), judged.told, judged.made_of, judged.facts)
    if source == "clicks":
        evaluation = config.evaluation.model_copy(update={"labels": "clicks"})
        by_clicks = config.model_copy(update={"evaluation": evaluation})
        labels = read_ground_truth(by_clicks)
        if labels is None or labels.clicks is None or config.clicks is None:
            raise ConfigError("labels.source is clicks: give clicks.path")
        words = f"{config.clicks.path}: {labels.clicks.words}"
        settings = config.clicks.model_dump(mode="json", exclude={"path"})
        made_of = {"files": ground_truth_files(by_clicks), "settings": settings}
        return TruthRead(Truth(source, labels.qrels), words, made_of, remarks=labels.remarks)
    qrels = config.labels.qrels or config.qrels
    if qrels is None:
        raise ConfigError("labels.source is qrels: give labels.qrels.path or qrels.path")
    return TruthRead(Truth(source, read_qrels(qrels)), qrels.path, _fingerprint(qrels))


def _held_out(config: QrelsConfig | None, grade: int) -> HeldOut:
    if config is None:
        return HeldOut()
    qrels = read_qrels(config)
    documents = {d for grades in qrels.values() for d, value in grades.items() if value >= grade}
    return HeldOut(frozenset(qrels), frozenset(documents))


def _fingerprint(config: QrelsConfig | None) -> Ingredients | None:
    if config is None:
        return None
    files = fingerprint_files(config.path, QRELS_SUFFIXES, "qrels")
    return {"files": files, "filter": config.model_dump(mode="json")["filter"]}


def _content(run: Run) -> dict[str, str]:
    """A finished run by what it holds."""
    final = run.finished()
    return {"run_id": run.run_id, "files": digest([file["sha256"] for file in final["results"]])}
