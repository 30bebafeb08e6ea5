"""What became of queries after retrieval, beside the measures of an evaluation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pyarrow.parquet as pq

from rerank_batch.answers import ANSWER_GRADE, References
from rerank_batch.config import Config
from rerank_batch.data.outcomes import (
    Outcomes,
    add_outcomes,
    read_outcomes,
    refuse_repeated_outcome,
)
from rerank_batch.evaluation.comparison import Comparison
from rerank_batch.evaluation.judged import JudgedQuery
from rerank_batch.evaluation.outcomes.study import OutcomeStudy, study_outcomes
from rerank_batch.reporter import Reporter
from rerank_batch.runs import Run
from rerank_batch.storage import open_file
from rerank_batch.workflows.answers import (
    answer_remarks,
    grade_answers,
    prepare_answers,
    ranked_queries,
)


@dataclass(frozen=True)
class Prepared:
    """What was read before anything ran; None where it is not configured."""

    outcomes: Outcomes | None
    references: References | None


def prepare_outcomes(config: Config) -> Prepared:
    """Read and check outcomes, reference answers and what the answer check needs besides.

    Raises:
        InputError: one cannot be read, or an outcome has the name that the answer check gives.
        ModelError, ConfigError: see `answers.prepare_answers`.
    """
    outcomes = None if config.outcomes is None else read_outcomes(config.outcomes)
    references = prepare_answers(config)
    if outcomes is not None and references is not None:
        refuse_repeated_outcome(outcomes, ANSWER_GRADE, "answer_check")
    return Prepared(outcomes, references)


def study(
    config: Config,
    run: Run,
    prepared: Prepared,
    comparison: Comparison,
    blocks: Iterable[Sequence[JudgedQuery]],
    reporter: Reporter,
) -> OutcomeStudy | None:
    """Outcomes and graded answers in the statistics of a run; None where there are neither.

    ``blocks`` are the judged queries of the run with the lists of all systems of the comparison,
    read where there is an answer check alone.

    Raises:
        RerankBatchError: see `answers.grade_answers`.
    """
    outcomes, answers = prepared.outcomes, None
    if config.answer_check is not None and prepared.references is not None:
        ranked = list(ranked_queries(blocks, comparison.systems, config.answer_check.top))
        answers = grade_answers(config, run, prepared.references, ranked, reporter)
        outcomes = add_outcomes(outcomes, answers.table)
    if outcomes is None:
        return None
    headline = comparison.headline
    found = study_outcomes(
        outcomes,
        comparison.systems,
        ids_of(run, comparison.query_ids),
        headline,
        {system: comparison.values[system][headline] for system in comparison.systems},
        config.outcomes.less_is_better if config.outcomes else (),
    )
    if answers is None:
        return found
    remarks = answer_remarks(answers.summary)
    return replace(found, remarks=remarks, cases=answers.cases, answers=answers.summary)


def ids_of(run: Run, query_ids: Sequence[str]) -> list[list[str]]:
    """Of each query every id of the log that it stands for; of a rejected one its own."""
    listed = {query: [query] for query in query_ids}
    for path in run.results_paths():
        table = pq.read_table(open_file(path), columns=["query_id", "query_ids"])
        for row in table.to_pylist():
            if row["query_id"] in listed:
                listed[row["query_id"]] = row["query_ids"]
    return [listed[query] for query in query_ids]
