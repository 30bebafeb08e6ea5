"""What a run shows in a pull request: its tables and what they mean, as GitHub's Markdown.

Every text is escaped; no query's text and no document is in it.
"""

import re
from collections.abc import Iterable, Sequence

from rerank_batch.evaluation.acceptance import Check
from rerank_batch.evaluation.depth import DepthStudy
from rerank_batch.evaluation.report import MeasureRow

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$])")
_REFERENCE = re.compile(r"(?<!\w)([@#])(?=\w)")


def markdown(
    run_id: str,
    judged: int,
    measures: Sequence[MeasureRow],
    depth: DepthStudy | str,
    checks: Sequence[Check] = (),
) -> str:
    """The headline table, the table of depths (or why there is none) and the checks."""
    parts = [f"**Run {escape(run_id)}**, {judged:,} judged queries", _measures(measures)]
    if isinstance(depth, str):
        parts.append(f"No table of depths: {escape(depth)}.")
    else:
        parts += [_depths(depth), f"{escape(_upper(depth.in_words()))}."]
    if checks:
        parts.append(
            "\n".join(
                f"- **{'passed' if check.passed else 'failed'}**: {escape(check.asked)} "
                f"({escape(check.told)})"
                for check in checks
            )
        )
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text that stays text: on one line, no markup, and no name or issue that gets a link."""
    one_line = " ".join(text.split())
    return _REFERENCE.sub("\\1\N{ZERO WIDTH NON-JOINER}", _SPECIAL.sub(r"\\\1", one_line))


def _measures(rows: Sequence[MeasureRow]) -> str:
    heads = ("measure", "retrieval", "reranked", "difference", "better", "same", "worse", "p")
    return _table(
        heads,
        (
            (
                row.measure,
                f"{row.retrieval:.4f}",
                f"{row.reranked:.4f}",
                f"{row.difference:+.4f}",
                f"{row.wins:,}",
                f"{row.ties:,}",
                f"{row.losses:,}",
                _p_value(row.p_value),
            )
            for row in rows
        ),
    )


def _depths(study: DepthStudy) -> str:
    last = study.rows[-1]
    return _table(
        ("candidates", study.headline, "recall ceiling", "pairs", "cost", ""),
        (
            (
                f"{row.depth:,}",
                f"{row.values[study.headline]:.4f}",
                f"{row.recall:.4f}" if row.depth else "–",
                f"{row.pairs:,}",
                f"{row.pairs / last.pairs:.0%}" if last.pairs else "–",
                "knee" if row == study.knee else "",
            )
            for row in study.rows
        ),
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(heads) - 1)]
    lines = [[escape(cell) for cell in line] for line in (heads, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _p_value(value: float | None) -> str:
    if value is None:
        return "–"
    return "<0.001" if value < 0.001 else f"{value:.2g}"
