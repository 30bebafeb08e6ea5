"""What stops a run that rejects too much: the counts by reason, and what to change for each.

Rows that the plan rejects are the log's to mend; those that the stages reject are not, as a dry run
shows none of them.
"""

from collections.abc import Iterator, Mapping

from rerank_batch.data.reject_limit import are_too_many
from rerank_batch.errors import TooManyRejects
from rerank_batch.remarks import counts_in_words
from rerank_batch.schema import NON_FINITE_SCORE, NON_FINITE_VECTOR

_FAILED = "_failed:"
"""In a reason: a stage raised an error for that query, also alone and again."""


def check_rejects(
    planned: Mapping[str, int],
    later: Mapping[str, int],
    log_rows: int,
    limit: float,
    run_id: str = "RUN",
) -> None:
    """Stop where more is rejected than the limit allows: log rows, or a share of them below 1.

    ``planned`` are log rows by reason that the plan rejected, ``later`` those that the stages of
    ``run_id`` rejected.

    Raises:
        TooManyRejects: the message gives numbers and reasons, and what to do about each kind.
    """
    rejected = sum(planned.values()) + sum(later.values())
    if not are_too_many(rejected, log_rows, limit):
        return
    kinds = [
        f"{words} {_listed(counts)}"
        for words, counts in (
            ("by the models during the run", later),
            ("by the plan, of the log itself", planned),
        )
        if any(counts.values())
    ]
    raise TooManyRejects(
        f"{rejected:,} of {log_rows:,} log rows are rejected, more than limits.max_rejects "
        f"({limit}) allows: {'; '.join(kinds)}. {' '.join(_advice(planned, later, run_id))} "
        "Or raise the limit with --set limits.max_rejects=…"
    )


def _advice(planned: Mapping[str, int], later: Mapping[str, int], run_id: str) -> Iterator[str]:
    if later.get(NON_FINITE_SCORE):
        yield (
            "A reranker gave scores that are not finite (NaN or infinity): set its precision: fp32 "
            "if it ran in another, or take another model."
        )
    if later.get(NON_FINITE_VECTOR):
        yield (
            "The encoder gave vectors that are not finite (NaN or infinity): take another one for "
            "index.encoder and build the index again."
        )
    if any(_FAILED in reason for reason, rows in later.items() if rows):
        yield "Where a reason ends with the name of an error, a worker's log has its text."
    if any(later.values()):
        yield f"The queries are in runs/{run_id}/rejects."
    if any(planned.values()):
        yield "Look at what the log lacks with --dry-run and mend it."


def _listed(counts: Mapping[str, int]) -> str:
    """Reasons and rows, the most rows first."""
    most_first = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return counts_in_words({reason: rows for reason, rows in most_first if rows})
