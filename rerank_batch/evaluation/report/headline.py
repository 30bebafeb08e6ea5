"""The comparison as rows, one per system and measure: what the tests say, and the table as text."""

from collections.abc import Sequence
from dataclasses import dataclass

from rerank_batch.evaluation.comparison import Comparison
from rerank_batch.evaluation.significance import LEVEL, PairedTest, paired_tests
from rerank_batch.schema import JsonObject


@dataclass(frozen=True)
class MeasureRow:
    """Means of one measure over the judged queries, of the baseline and of a system, and the test
    of their difference."""

    measure: str
    before: float
    after: float
    test: PairedTest
    system: str = "reranked"

    def to_json(self) -> JsonObject:
        """A row of metrics.json: the means, what the test says, the decision and the doubt."""
        values = {
            "system": self.system,
            "measure": self.measure,
            "baseline": self.before,
            "value": self.after,
        }
        return {**values, **vars(self.test), "outcome": self.test.outcome, "doubt": self.test.doubt}


def measure_rows(comparison: Comparison) -> tuple[MeasureRow, ...]:
    """What the tests say of every system beside the baseline, in every measure."""
    means = comparison.means()
    pairs = [(system, name) for system in comparison.others for name in comparison.measures]
    tests = paired_tests({pair: comparison.gains(*pair).tolist() for pair in pairs})
    return tuple(
        MeasureRow(
            measure=name,
            before=means[comparison.baseline][name],
            after=means[system][name],
            test=test,
            system=system,
        )
        for (system, name), test in tests.items()
    )


def headline_cells(systems: Sequence[str], rows: Sequence[MeasureRow]) -> list[list[str]]:
    """The table of differences as text, its heads first; the first system is the baseline."""
    several = len(systems) > 2
    heads = ["gain", "95 % interval", "better/\nsame/worse", "p", "result"]
    first = ["system", "measure", "value"] if several else ["measure", *systems]
    cells = []
    previous = ""
    for row in rows:
        test, value = row.test, f"{row.after:.4f}"
        if several:
            own = ["" if row.system == previous else row.system, row.measure, value]
        else:
            own = [row.measure, f"{row.before:.4f}", value]
        previous = row.system
        cells.append(
            [
                *own,
                f"{test.difference:+.4f}",
                "–" if test.interval is None else "{:+.3f} {:+.3f}".format(*test.interval),
                f"{test.wins}/{test.ties}/{test.losses}",
                p_text(test.corrected_p_value),
                test.outcome,
            ]
        )
    return [[*first, *heads], *cells]


def p_text(p_value: float) -> str:
    """A p value that rounding never carries across the line it is read against."""
    if p_value < 0.001:
        return "< 0.001"
    text = f"{p_value:.3f}"
    return f"< {LEVEL}" if p_value < LEVEL <= float(text) else text
