"""How likely each position is looked at: by a power of the position, or by a table.

The position-based model of clicks: a document is clicked if it is looked at and attracts, and
whether it is looked at depends on its position alone,

    P(click on d for q at position k) = examined(k) * attractiveness(q, d).

Knows numbers of impressions and clicks; not where they come from, nor what becomes of them.
"""

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.optimize import brentq

from rerank_batch.config import PropensityConfig
from rerank_batch.errors import InputError

Floats = NDArray[np.float64]

_STEEPEST = 5.0  # the largest eta of the configuration as well
_LEAST_CERTAIN = 0.2


@dataclass(frozen=True)
class Propensity:
    """The probability that a position is looked at, relative to the best one; from 1 on."""

    table: Floats | None
    eta: float
    clip: float
    words: str

    def examined(self, positions: Floats) -> Floats:
        """The probabilities of whole positions from 1 on; of a table, up to its end."""
        if self.table is not None:
            return self.table[positions.astype(np.int64) - 1]
        return positions**-self.eta

    def weights(self, positions: Floats) -> Floats:
        """What a click counts there: the inverse of that probability, at most ``clip``."""
        return np.minimum(1 / self.examined(positions), self.clip)


@dataclass(frozen=True)
class HarvestedEta:
    """An estimate of eta, its standard error, and on how much it rests."""

    eta: float
    error: float
    pairs: int
    clicks: int


def propensity_of(config: PropensityConfig, counts: pl.DataFrame) -> Propensity:
    """The model that the configuration states; ``counts`` (see `log.ClickLog`) serve to estimate.

    Raises:
        InputError: eta is to be estimated and the log does not determine it.
    """
    clipped = f"a click counts at most {config.clip:g}"
    if config.model == "table":
        listed = ", ".join(f"{value:g}" for value in config.table)
        words = f"positions 1, 2, … are looked at with probabilities {listed}; {clipped}"
        return Propensity(np.array(config.table), math.nan, config.clip, words)
    if config.eta != "estimate":
        words = f"position k is looked at with probability (1/k)^{config.eta:g}; {clipped}"
        return Propensity(None, config.eta, config.clip, words)
    found = harvest_eta(counts)
    words = (
        f"position k is looked at with probability (1/k)^{found.eta:.3f}; eta {found.eta:.3f} "
        f"± {found.error:.3f} (standard error) is estimated from {found.clicks:,} clicks on "
        f"{found.pairs:,} pairs of query and document that were shown at several positions; "
        f"{clipped}"
    )
    return Propensity(None, found.eta, config.clip, words)


def harvest_eta(counts: pl.DataFrame) -> HarvestedEta:
    """Estimate eta from pairs of query and document that stood at several positions.

    Such a pair attracts as much here as there, so its clicks differ by position alone (Agarwal,
    Zaitsev, Wang, Li, Najork and Joachims, "Estimating Position Bias without Intrusive
    Interventions", WSDM 2019). For a pair with n_k impressions at position k its c clicks are
    expected at k in proportion to n_k k^-eta, whatever its attractiveness; eta is where, summed
    over all pairs, the logarithms of the clicked positions are what that makes of them. Of the
    standard error by independent clicks and that by independent pairs the larger is taken: few
    pairs say little of how pairs differ.

    Raises:
        InputError: no pair says anything, or all of them together too little.
    """
    pair = pl.struct("query", "document")
    moved = counts.filter(
        (pl.len().over("query", "document") > 1)
        & (pl.col("clicks").sum().over("query", "document") > 0)
    ).sort("query", "document", "position")
    if moved.is_empty():
        raise InputError(
            "clicks: eta cannot be estimated: no document that was clicked was shown for one query "
            "at several positions. Give clicks.propensity.eta or a table"
        )
    starts = np.flatnonzero(moved.select(pair.rle_id().diff().fill_null(1)).to_series().to_numpy())
    logs = np.log(moved["position"].to_numpy())
    shown = moved["impressions"].to_numpy().astype(np.float64)
    clicks = moved["clicks"].to_numpy().astype(np.float64)
    clicked = np.add.reduceat(clicks, starts)
    observed = np.add.reduceat(clicks * logs, starts)

    def moments(eta: float) -> tuple[Floats, Floats]:
        """Of each pair the surplus of expected over observed logarithms, and its slope in eta."""
        looked = shown * np.exp(-eta * logs)
        total = np.add.reduceat(looked, starts)
        mean = np.add.reduceat(looked * logs, starts) / total
        square = np.add.reduceat(looked * logs**2, starts) / total
        return clicked * mean - observed, clicked * (square - mean**2)

    def surplus(eta: float) -> float:
        return float(moments(eta)[0].sum())

    if surplus(_STEEPEST) > 0:
        raise InputError(
            f"clicks: eta cannot be estimated: the log asks for more than {_STEEPEST:g}, as if "
            "nothing below the first position were looked at. Give clicks.propensity.table"
        )
    eta = 0.0 if surplus(0.0) <= 0 else float(brentq(surplus, 0.0, _STEEPEST))
    scores, slopes = moments(eta)
    information = float(slopes.sum())
    error = math.sqrt(max(information, float((scores**2).sum()))) / information
    if error > _LEAST_CERTAIN:
        raise InputError(
            f"clicks: eta cannot be estimated: {eta:.2f} with a standard error of {error:.2f} from "
            f"{len(starts):,} pairs shown at several positions is too uncertain. Give "
            "clicks.propensity.eta or a table, or a longer log"
        )
    return HarvestedEta(eta, error, len(starts), int(clicks.sum()))
