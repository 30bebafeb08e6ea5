"""The rows of the comparison: as text for a table, as JSON for metrics.json."""

from typing import Any

from rerank_batch.evaluation.report.page import MeasureRow, p_text


def headline_cells(summary: dict[str, Any]) -> list[list[str]]:
    """The table of differences as text, its heads first."""
    several = len(summary["metrics"]) > 2
    heads = ["gain", "95 % interval", "better/\nsame/worse", "p", "result"]
    baseline, *names = summary["metrics"]
    first = ["system", "measure", "value"] if several else ["measure", baseline, *names]
    rows = []
    before = ""
    for row in summary["comparison"]:
        value = f"{row['value']:.4f}"
        if several:
            cells = ["" if row["system"] == before else row["system"], row["measure"], value]
        else:
            cells = [row["measure"], f"{row['baseline']:.4f}", value]
        before = row["system"]
        rows.append(
            [
                *cells,
                f"{row['difference']:+.4f}",
                "–" if row["interval"] is None else "{:+.3f} {:+.3f}".format(*row["interval"]),
                f"{row['wins']}/{row['ties']}/{row['losses']}",
                p_text(row["corrected_p_value"]),
                row["outcome"],
            ]
        )
    return [[*first, *heads], *rows]


def as_json(row: MeasureRow) -> dict[str, Any]:
    """A row of metrics.json: the means, everything the test says, the decision and the doubt."""
    values = {
        "system": row.system,
        "measure": row.measure,
        "baseline": row.before,
        "value": row.after,
    }
    return {**values, **vars(row.test), "outcome": row.test.outcome, "doubt": row.test.doubt}
