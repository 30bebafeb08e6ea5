"""What a run shows to people: one HTML page that says whether reranking helped, and how sure it is.

Everything in the page is inline and nothing in it runs, so it can be mailed, archived or opened
from a bucket. Knows neither how measures are computed nor where a run lives: a ``Report`` of plain
values comes in, text goes out. Query texts are strangers' input; the template escapes all of them.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from rerank_batch.errors import ConfigError
from rerank_batch.evaluation.cost.study import CostTable
from rerank_batch.evaluation.depth.chart import depth_curve
from rerank_batch.evaluation.depth.study import TOLERANCE, DepthStudy
from rerank_batch.evaluation.failures.study import TOP, Failures
from rerank_batch.evaluation.gate.chart import gate_view
from rerank_batch.evaluation.gate.study import GateStudy
from rerank_batch.evaluation.outcomes.study import OutcomeStudy
from rerank_batch.evaluation.report.headline import MeasureRow, p_text
from rerank_batch.evaluation.scores.chart import score_view
from rerank_batch.evaluation.scores.study import ScoreStudy
from rerank_batch.evaluation.segments.chart import segment_charts
from rerank_batch.evaluation.segments.study import SegmentStudy
from rerank_batch.evaluation.significance import PairedTest
from rerank_batch.remarks import NotKnown

MAX_BARS = 400  # more are no longer told apart on a screen, and the page would grow with the log
MAX_ROWS = 20
MAX_CHARS = 300

Outcome = Literal["better", "worse", "undecided", "not judged"]


@dataclass(frozen=True)
class QueryGain:
    """One judged query's values of the headline measure, of the baseline and of the best system."""

    query_id: str
    query: str
    before: float
    after: float

    @property
    def gain(self) -> float:
        """The system's value minus the baseline's."""
        return self.after - self.before


@dataclass(frozen=True)
class Report:
    """Everything the page says; ``gains`` holds every judged query, in any order.

    The first of ``systems`` is the baseline. Gains, depth and failures are those of ``best``.
    ``described`` says what each is, ``means`` its values, ``missing`` for how many queries there is
    no list. ``clicks`` says that the ground truth is made of clicks, with their ``limits``.
    """

    title: str
    run_id: str
    headline: str  # the measure of the gains, one of ``measures``
    measures: tuple[MeasureRow, ...]
    gains: tuple[QueryGain, ...]
    queries: int
    judged: int
    pairs: int
    rejects: Mapping[str, int]
    seconds: Mapping[str, float]
    facts: Mapping[str, str]
    depth: DepthStudy | NotKnown | None = None
    failures: Failures | None = None
    systems: tuple[str, ...] = ("retrieval", "reranked")
    best: str = "reranked"
    described: Mapping[str, str] = field(default_factory=dict)
    means: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    segments: SegmentStudy | None = None
    outcomes: OutcomeStudy | None = None
    scores: Mapping[str, ScoreStudy | NotKnown] = field(default_factory=dict)
    gate: GateStudy | NotKnown | None = None
    costs: Mapping[str, CostTable | NotKnown] = field(default_factory=dict)
    clicks: str = ""
    limits: tuple[str, ...] = ()

    @property
    def baseline(self) -> str:
        """What the others are compared with."""
        return self.systems[0]

    @property
    def several(self) -> bool:
        """Whether there is more than one system beside the baseline."""
        return len(self.systems) > 2


@dataclass(frozen=True)
class PageVerdict:
    """The result as one word and in words."""

    outcome: Outcome
    text: str


def render(report: Report) -> str:
    """One self-contained HTML page.

    Raises:
        ConfigError: the headline is none of the measures.
    """
    ranked = sorted(report.gains, key=lambda row: (-row.gain, row.query_id))
    helped = [row for row in ranked if row.gain > 0]
    hurt = [row for row in reversed(ranked) if row.gain < 0]
    return _TEMPLATE.render(
        report=report,
        verdict=verdict(report),
        plot=_gain_plot([row.gain for row in ranked]) if ranked else None,
        extremes=[("helped", helped), ("hurt", hurt)],
        max_rows=MAX_ROWS,
        curve=depth_curve(report.depth) if isinstance(report.depth, DepthStudy) else None,
        tolerance=TOLERANCE,
        top=TOP,
        segment_charts=segment_charts(report.segments) if report.segments else (),
        scores=[
            (name, score_view(study) if isinstance(study, ScoreStudy) else study)
            for name, study in report.scores.items()
        ],
        gate=gate_view(report.gate) if isinstance(report.gate, GateStudy) else report.gate,
        costs=list(report.costs.items()),
        forest=forest(report) if report.several and report.measures else None,
    )


def verdict(report: Report) -> PageVerdict:
    """Say the result of the headline measure, with no more confidence than the test gives.

    Raises:
        ConfigError: the headline is none of the measures.
    """
    if not report.measures:
        return PageVerdict(
            "not judged",
            "No query of this run has relevance judgements, so nothing here says whether reranking "
            "helped.",
        )
    row = next(
        (r for r in report.measures if (r.system, r.measure) == (report.best, report.headline)),
        None,
    )
    if row is None:
        names = ", ".join(dict.fromkeys(row.measure for row in report.measures))
        raise ConfigError(f"report: headline {report.headline!r} is none of the measures: {names}")
    test, noun = row.test, "query" if report.judged == 1 else "queries"
    remark = ""
    if test.outcome == "worse":
        alone = "retrieval alone ranks" if report.baseline == "retrieval" else "the baseline is"
        remark = f" On these queries {alone} better."
    subject = "Reranking" if row.system == "reranked" else row.system
    if report.several:
        others = len(report.systems) - 1
        subject = f"The best of {others} systems beside {report.baseline}, {row.system},"
    return PageVerdict(
        test.outcome,
        f"{subject} {_change(row)} on {report.judged:,} judged {noun} "
        f"({_signed(test.difference)}{_interval_in_words(test)}; "
        f"{test.wins:,} better, {test.ties:,} the same, {test.losses:,} worse; "
        f"randomisation test {_p_in_words(test)})."
        + remark
        + (f" {test.doubt}" if test.doubt else ""),
    )


def _change(row: MeasureRow) -> str:
    before, after, test = _value(row.before), _value(row.after), row.test
    verb = "raised" if test.difference > 0 else "lowered"
    if abs(test.difference) >= 0.0005:  # what three decimals show as a difference
        return f"{verb} {row.measure} from {before} to {after}"
    if test.outcome == "undecided":
        return f"left {row.measure} at {after}"
    return f"{verb} {row.measure} by less than 0.001, to {after},"


@dataclass(frozen=True)
class Stem:
    """A row of the plot of differences: percentages of its width, ``low`` and ``high`` being the
    ends of the interval, if there is one."""

    row: MeasureRow
    point: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Forest:
    """The differences of the headline measure to the baseline, each with its interval."""

    stems: tuple[Stem, ...]
    zero: float
    edges: tuple[float, float]


def forest(report: Report) -> Forest:
    """Place the differences of every system on one scale, which includes zero."""
    rows = [row for row in report.measures if row.measure == report.headline]
    ends = [end for row in rows for end in (row.test.interval or ())]
    found = [0.0, *ends, *(row.test.difference for row in rows)]
    low, high = min(found), max(found)
    span = high - low or 1.0

    def place(value: float) -> float:
        return 100 * (value - low) / span

    stems = tuple(
        Stem(
            row=row,
            point=place(row.test.difference),
            low=place(row.test.interval[0]) if row.test.interval else None,
            high=place(row.test.interval[1]) if row.test.interval else None,
        )
        for row in rows
    )
    return Forest(stems, place(0.0), (low, high))


@dataclass(frozen=True)
class _GainPlot:
    """Two SVG paths in a box of 1000 x 200 with zero at 100, and the gain at its upper edge."""

    up: str
    down: str
    edge: float
    bars: int
    queries: int
    helped: int
    hurt: int


def _gain_plot(gains: Sequence[float]) -> _GainPlot:
    """Bars of gains that are sorted in descending order; many are drawn as means of equal parts."""
    count = len(gains)
    bars = min(count, MAX_BARS)
    heights = [
        statistics.fmean(gains[i * count // bars : (i + 1) * count // bars]) for i in range(bars)
    ]
    edge = max(map(abs, heights)) or 1.0
    step = min(1000 / bars, 60.0)  # a handful of queries should look like bars, not like walls
    width = step if bars > 100 else step * 0.8
    paths = {True: "", False: ""}
    for position, height in enumerate(heights):
        if height:
            rise = -100 * height / edge
            paths[height > 0] += f"M{position * step:.1f} 100h{width:.1f}v{rise:.1f}h-{width:.1f}z"
    return _GainPlot(
        up=paths[True],
        down=paths[False],
        edge=edge,
        bars=bars,
        queries=count,
        helped=sum(gain > 0 for gain in gains),
        hurt=sum(gain < 0 for gain in gains),
    )


def _value(number: float) -> str:
    return f"{number:.3f}" if abs(number) < 100 else f"{number:.1f}"  # shares, or counts (NumRet)


def _signed(number: float) -> str:
    text = _value(abs(number))
    sign = "" if float(text) == 0 else "+" if number > 0 else "\N{MINUS SIGN}"
    return sign + text


def _interval(interval: tuple[float, float] | None) -> str:
    return "\N{EN DASH}" if interval is None else " to ".join(map(_signed, interval))


def _interval_in_words(test: PairedTest) -> str:
    return "" if test.interval is None else f", 95 % interval {_interval(test.interval)}"


def _p_in_words(test: PairedTest) -> str:
    text = p_text(test.corrected_p_value)
    words = f"p {text}" if text.startswith("<") else f"p = {text}"
    if test.comparisons == 1:
        return words
    return f"{words}, corrected for {test.comparisons} comparisons"


def _count(number: int) -> str:
    return f"{number:,}"


def _seconds(number: float) -> str:
    return f"{number:,.2f}"


def _shorten(text: str) -> str:
    """One huge query must not make a huge page."""
    return text if len(text) <= MAX_CHARS else text[:MAX_CHARS].rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _template_environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parents[1]),  # the room of every section
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        value=_value,
        signed=_signed,
        interval=_interval,
        p=p_text,
        number=_count,
        seconds=_seconds,
        shorten=_shorten,
        upper_first=_upper,
    )
    environment.tests["not_known"] = lambda value: isinstance(value, NotKnown)
    return environment


_TEMPLATE = _template_environment().get_template("report/page.html.j2")
