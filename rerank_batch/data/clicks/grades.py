"""Labels made of clicks: an estimate of attractiveness with its lower bound, cut into grades.

An impression is an expected look, by the probability that its position is looked at, and the
clicks on a pair of query and document are divided by its looks: inverse propensity weighting of the
click-through rate (Joachims, Swaminathan and Schnabel, "Unbiased Learning-to-Rank with Biased
Feedback", WSDM 2017). At one position the weight of a click is the inverse of that probability; at
several the ratio of sums is taken, not the mean of ratios, so that impressions which hardly anybody
looked at count for little (clicks over expected clicks). Under the stated model, where no
probability was clipped, the estimate is without bias. One lucky click far down makes a high one; a
grade is therefore given by a lower bound.
"""

from dataclasses import asdict, dataclass

import numpy as np
import polars as pl
from scipy.special import betaincinv

from rerank_batch.config import ClicksConfig, QueriesConfig
from rerank_batch.data.clicks.log import ClickLog, read_click_log
from rerank_batch.data.clicks.propensity import Floats, Propensity, propensity_of
from rerank_batch.data.qrels import Qrels
from rerank_batch.errors import InputError
from rerank_batch.remarks import Remark
from rerank_batch.schema import JsonObject

LIMITS = (
    "Click labels tell what was clicked, not what is relevant: values measured against them are "
    "not comparable with values measured against human judgements.",
    "Only position bias is corrected, and only as well as the stated model fits. That people click "
    "what stands high because they trust the ranking, a snippet that promises more than the "
    "document holds, and accidental clicks are not corrected.",
    "A document that was never shown, or too seldom, is unjudged, not irrelevant. Measures count "
    "it as not relevant all the same, which favours rankings like those that were shown.",
    "Impressions without a click have to be in the log: without them everything attracts alike.",
)
"""What a reader of numbers measured against click labels has to know."""

_ROUNDING = 1e-12


@dataclass(frozen=True)
class ClickFacts:
    """What the labels are made of; counts are numbers of the log after its filter.

    ``rejects`` are rows by reason; ``impressions`` and ``clicks`` those of all other rows.
    ``clipped_share`` is the share of impressions at positions whose weight was clipped.
    ``queries`` and ``documents`` (pairs of both) have a label, ``grades`` says how many pairs have
    each; ``queries_without_grade`` have no document above 0. ``unlabelled`` are pairs by reason.
    ``propensity``, ``estimate`` and ``joined_by`` are words.
    """

    rows: int
    rejects: dict[str, int]
    impressions: int
    clicks: int
    joined_by: str
    propensity: str
    estimate: str
    clipped_share: float
    queries: int
    queries_without_grade: int
    documents: int
    grades: dict[int, int]
    unlabelled: dict[str, int]
    limits: tuple[str, ...] = LIMITS

    @property
    def words(self) -> str:
        """One line, to stand beside whatever is measured against the labels."""
        return (
            f"click labels, not judgements ({self.queries:,} queries, {self.documents:,} pairs, "
            f"from {self.impressions:,} impressions with {self.clicks:,} clicks; corrected for "
            f"position bias only: {self.propensity})"
        )

    @property
    def rejected(self) -> int:
        """Rows that were not used."""
        return sum(self.rejects.values())

    def to_json(self) -> JsonObject:
        """For metrics.json and the like: JSON has no numbers for keys and no tuples."""
        grades = {str(grade): number for grade, number in self.grades.items()}
        return {**asdict(self), "grades": grades, "limits": list(self.limits)}


@dataclass(frozen=True)
class ClickLabels:
    """Labels in the form of judgements, which they are not, what they are made of, and what looks
    wrong about the columns of the log."""

    qrels: Qrels
    facts: ClickFacts
    remarks: tuple[Remark, ...] = ()


def read_clicks(config: ClicksConfig, queries: QueriesConfig | None = None) -> ClickLabels:
    """Read the log, estimate, and grade every pair that was shown often enough.

    ``queries`` is needed where clicks are joined by the text of the query. Clicks under several
    ids of one query are added up only there; by id, evaluation takes the higher of the grades.

    Raises:
        ConfigError, InputError: see `log.read_click_log` and `propensity.harvest_eta`; or no pair
            was shown often enough.
    """
    log = read_click_log(config, queries)
    propensity = propensity_of(config.propensity, log.counts)
    pairs = estimate(log.counts, propensity, config.confidence)
    few = pl.col("impressions") < config.min_impressions
    unseen = ~few & (pl.col("examinations") < config.min_examinations)
    bounds = pl.col("lower")
    graded = pairs.filter(~few & ~unseen).with_columns(
        grade=pl.sum_horizontal((bounds >= least).cast(pl.Int32) for least in config.grades)
    )
    unlabelled = {
        "too_few_impressions": len(pairs.filter(few)),
        "too_few_examinations": len(pairs.filter(unseen)),
    }
    if graded.is_empty():
        raise InputError(
            f"clicks: none of the {len(pairs):,} pairs of query and document in {config.path} has "
            f"{config.min_impressions} impressions (clicks.min_impressions) that make "
            f"{config.min_examinations:g} expected looks (clicks.min_examinations)"
        )
    facts = _facts(config, log, propensity, graded, unlabelled)
    return ClickLabels(_qrels(graded), facts, log.remarks)


def estimate(counts: pl.DataFrame, propensity: Propensity, confidence: float) -> pl.DataFrame:
    """Per pair of query and document: impressions, clicks, ``examinations`` (expected looks),
    ``attractiveness`` (clicks per look, which chance may bring above 1) and its ``lower`` bound at
    the confidence, one-sided, from 0 to 1; in the order of query and document.
    """
    ordered = counts.sort("query", "document", "position")
    positions = ordered["position"].to_numpy().astype(np.float64)
    shown = ordered["impressions"].to_numpy().astype(np.float64)
    pairs = (
        ordered.with_columns(
            examinations=pl.Series(shown * propensity.examined(positions)),
            looks=pl.Series(shown / propensity.weights(positions)),
        )
        .group_by("query", "document", maintain_order=True)
        .agg(pl.col("impressions", "clicks", "examinations", "looks").sum())
        .with_columns(attractiveness=pl.col("clicks") / pl.col("looks"))
    )
    impressions, clicks, looks = (
        pairs[name].to_numpy().astype(np.float64) for name in ("impressions", "clicks", "looks")
    )
    lower = lower_bound(impressions, clicks, looks, confidence)
    return pairs.drop("looks").with_columns(lower=pl.Series(lower))


def lower_bound(impressions: Floats, clicks: Floats, looks: Floats, confidence: float) -> Floats:
    """The least attractiveness that the clicks do not contradict, one-sided, at most 1.

    The bound of the click-through rate (Clopper and Pearson, "The Use of Confidence or Fiducial
    Limits Illustrated in the Case of the Binomial", Biometrika 26, 1934) over looks per impression.
    At a single position it is exact: even of rare clicks it is too high no more often than the
    confidence says, as approximate bounds are. At several positions it is a little too low, since
    unequal chances scatter less than equal ones (Hoeffding, "On the Distribution of the Number of
    Successes in Independent Trials", Annals of Mathematical Statistics 27, 1956; of one click it is
    wrong in at most 5.13 % of cases instead of 5).
    """
    rate = betaincinv(np.maximum(clicks, 1), impressions - clicks + 1, 1 - confidence)
    return np.where(clicks > 0, np.minimum(rate * impressions / looks, 1.0), 0.0)


def _qrels(graded: pl.DataFrame) -> Qrels:
    qrels: Qrels = {}
    for query, document, grade in graded.select("query", "document", "grade").iter_rows():
        qrels.setdefault(query, {})[document] = grade
    return qrels


def _facts(
    config: ClicksConfig,
    log: ClickLog,
    propensity: Propensity,
    graded: pl.DataFrame,
    unlabelled: dict[str, int],
) -> ClickFacts:
    positions = log.counts["position"].to_numpy().astype(np.float64)
    clipped = propensity.weights(positions) * propensity.examined(positions) < 1 - _ROUNDING
    impressions = int(log.counts["impressions"].sum())
    best = graded.group_by("query").agg(pl.col("grade").max())
    return ClickFacts(
        rows=log.rows,
        rejects=log.rejects,
        impressions=impressions,
        clicks=int(log.counts["clicks"].sum()),
        joined_by=log.joined_by,
        propensity=propensity.words,
        estimate=_estimate_in_words(config),
        clipped_share=int(log.counts["impressions"].filter(pl.Series(clipped)).sum()) / impressions,
        queries=len(best),
        queries_without_grade=len(best.filter(pl.col("grade") == 0)),
        documents=len(graded),
        grades=dict(sorted(graded.group_by("grade").len().iter_rows())),
        unlabelled=unlabelled,
    )


def _estimate_in_words(config: ClicksConfig) -> str:
    grades = ", ".join(f"{least:g}" for least in config.grades)
    return (
        "clicks per expected look; a grade is how many of "
        f"{grades} the lower {config.confidence:.0%} bound of that reaches (Clopper and Pearson); "
        f"pairs with fewer than {config.min_impressions} impressions or "
        f"{config.min_examinations:g} expected looks have none"
    )
