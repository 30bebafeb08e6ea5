"""What a run shows in a pull request: its tables and what they mean, as GitHub's Markdown.

Every text is escaped; no query's text and no document is in it.
"""

import re
from collections.abc import Sequence

from rerank_batch.evaluation.acceptance import Check
from rerank_batch.evaluation.depth.study import DepthStudy
from rerank_batch.remarks import NotKnown

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$])")
_REFERENCE = re.compile(r"(?<!\w)([@#])(?=\w)")


def markdown(
    run_id: str,
    judged: int,
    headline: Sequence[Sequence[str]],
    depth: DepthStudy | NotKnown,
    checks: Sequence[Check] = (),
    against: str = "",
) -> str:
    """The headline table, the table of depths (or why there is none) and the checks.

    ``headline`` is a table as text, its heads first; ``against`` says what was measured against
    where that is not judgements.
    """
    about = f"**Run {escape(run_id)}**, {judged:,} judged queries"
    parts = [about + (f", {escape(against)}" if against else ""), _table(headline)]
    if isinstance(depth, NotKnown):
        parts.append(f"No table of depths: {escape(depth.reason)}.")
    else:
        parts += [_depths(depth), f"{escape(_upper(depth.in_words()))}."]
    if checks:
        parts.append(
            "\n".join(
                f"- **{'passed' if check.passed else 'failed'}**: {escape(check.requirement)} "
                f"({escape(check.numbers)})"
                for check in checks
            )
        )
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text that stays text: on one line, no markup, and no name or issue that gets a link."""
    one_line = " ".join(text.split())
    return _REFERENCE.sub("\\1\N{ZERO WIDTH NON-JOINER}", _SPECIAL.sub(r"\\\1", one_line))


def _depths(study: DepthStudy) -> str:
    last = study.rows[-1]
    heads = ("candidates", study.headline, "recall ceiling", "pairs", "cost", "")
    rows = [
        (
            f"{row.depth:,}",
            f"{row.values[study.headline]:.4f}",
            f"{row.recall:.4f}" if row.depth else "–",
            f"{row.pairs:,}",
            f"{row.pairs / last.pairs:.0%}" if last.pairs else "–",
            "knee" if row == study.knee else "",
        )
        for row in study.rows
    ]
    return _table([heads, *rows])


def _table(lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    heads, *rows = [[escape(cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, rule, *rows))


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
