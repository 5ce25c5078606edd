"""How good a forecast was, as pure functions of arrays.

Every metric takes ``weights``, ``[n]`` or ``[B, n]``, and gives one number or ``[B]``: with ones it is the metric, and with
the counts of a bootstrap it is the metric of every resample (:mod:`backtest.evaluation.intervals`). So there is one
arithmetic for a figure and for its interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi
from typing import Final

import numpy as np
import numpy.typing as npt

from strategies.memory_transformer.dataset import Floats, Integers
from strategies.uncertainty.fitting import quantile_losses

BINS: Final = 10
"""Of equal width, in which a probability is compared with what came."""
LEAST_PROBABILITY: Final = 1e-6
"""A probability nearer to 0 or 1 than this counts as this in the log score, which would be endless."""


# -- losses, row by row ---------------------------------------------------------------------------------------------------


def rose(outcome: Floats) -> Floats:
    """``[n]``: 1 where the price rose, 0 where it fell, one half where it did neither."""
    half: Floats = 0.5 * (np.sign(outcome) + 1.0)
    return half


def brier_losses(probability: Floats, outcome: Floats) -> Floats:
    """Squared error of the probability of a rise, ``[n]`` (Brier 1950)."""
    return (probability - rose(outcome)) ** 2


def log_losses(probability: Floats, outcome: Floats) -> Floats:
    """Minus the logarithm of the probability that was given to what came, ``[n]`` nats (Good 1952)."""
    up = rose(outcome)
    kept = np.clip(probability, LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY)
    return -(up * np.log(kept) + (1.0 - up) * np.log(1.0 - kept))


def normal_log_losses(mean: Floats, log_volatility: Floats, outcome: Floats) -> Floats:
    """Minus the log density of the outcome under a normal distribution of this mean and volatility, ``[n]`` nats.

    Proper for any distribution with these two moments, of which it then is the score of Dawid and Sebastiani up to a
    constant (Gneiting and Raftery, "Strictly proper scoring rules, prediction, and estimation", 2007, section 4.2).
    """
    standardised = (outcome - mean) / np.exp(log_volatility)
    return 0.5 * standardised**2 + log_volatility + 0.5 * log(2.0 * pi)


def crps_losses(quantiles: Floats, levels: tuple[float, ...], outcome: Floats) -> Floats:
    """Continuous ranked probability score of a forecast known by its quantiles, ``[n]``.

    It is twice the integral of the pinball loss over all levels (Gneiting and Ranjan, "Comparing density forecasts using
    threshold- and quantile-weighted scoring rules", 2011, equation 6). Every level stands for the part of [0, 1] that is
    nearest to it.
    """
    edges = np.concatenate(([0.0], 0.5 * (np.array(levels)[1:] + np.array(levels)[:-1]), [1.0]))
    losses: Floats = 2.0 * quantile_losses(quantiles, levels, outcome) @ np.diff(edges)
    return losses


def qlike_losses(log_volatility: Floats, realised: Floats) -> Floats:
    """``v/f - log(v/f) - 1`` of realised variance ``v`` and its forecast ``f``, ``[n]``.

    Robust to noise in the proxy of the variance (Patton, "Volatility forecast comparison using imperfect volatility
    proxies", 2011, in the form whose least value is 0). Both arguments are logarithms of volatilities.
    """
    ratio = 2.0 * (realised - log_volatility)
    return np.exp(ratio) - ratio - 1.0


# -- figures --------------------------------------------------------------------------------------------------------------


def mean_of(values: Floats, weights: Floats) -> Floats:
    """Weighted mean of ``[n]`` values."""
    mean: Floats = weights @ values / weights.sum(axis=-1)
    return mean


def r2(outcome: Floats, forecast: Floats, reference: Floats, weights: Floats) -> Floats:
    """``1 - sum of squared errors / that of the reference``: how much better than knowing nothing.

    Out of sample where the reference is what one would have said then, the mean of all outcomes known
    (:func:`expanding_mean`; Campbell and Thompson, "Predicting excess stock returns out of sample", 2008).
    """
    ratio: Floats = mean_of((outcome - forecast) ** 2, weights) / mean_of((outcome - reference) ** 2, weights)
    return 1.0 - ratio


def correlation(first: Floats, second: Floats, weights: Floats) -> Floats:
    """Weighted Pearson correlation; nan where one of them does not vary. Of forecast and outcome: the information
    coefficient."""
    if np.ptp(first) == 0.0 or np.ptp(second) == 0.0:
        return np.full(weights.shape[:-1], np.nan)
    first, second = first - first.mean(), second - second.mean()
    m1, m2 = mean_of(first, weights), mean_of(second, weights)
    covariance = mean_of(first * second, weights) - m1 * m2
    v1, v2 = mean_of(first * first, weights) - m1 * m1, mean_of(second * second, weights) - m2 * m2
    value: Floats = covariance / np.sqrt(v1 * v2)
    return value


def calibration_error(probability: Floats, outcome: Floats, weights: Floats, bins: int = BINS) -> Floats:
    """Expected calibration error: mean distance of probability and frequency over bins, by their share of rows
    (Naeini, Cooper and Hauskrecht 2015)."""
    place = _bins(probability, bins)
    error = np.zeros((len(probability), bins))
    error[np.arange(len(probability)), place] = probability - rose(outcome)
    total: Floats = np.abs(weights @ error).sum(axis=-1) / weights.sum(axis=-1)
    return total


def coverage(lower: Floats, upper: Floats, outcome: Floats, weights: Floats) -> Floats:
    """Share of outcomes within their interval, its ends included."""
    return mean_of(((lower <= outcome) & (outcome <= upper)).astype(np.float64), weights)


def area_under_risk_coverage(losses: Floats, uncertainty: Floats, weights: Floats) -> Floats:
    """Mean loss of the most certain share of rows, averaged over all shares (Geifman and El-Yaniv 2017).

    Compare it with the mean loss of all rows: less means that the uncertainty tells which rows are to be believed.
    """
    order = np.argsort(uncertainty, kind="stable")
    sorted_weights = weights[..., order]
    amounts = np.cumsum(sorted_weights, axis=-1)
    risks = np.cumsum(sorted_weights * losses[order], axis=-1) / np.maximum(amounts, 1e-12)
    area: Floats = (risks * sorted_weights).sum(axis=-1) / amounts[..., -1]
    return area


# -- curves ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Probability against frequency, bin by bin; bins without a row are left out."""

    probability: Floats
    """``[bins]`` mean probability."""
    frequency: Floats
    """``[bins]`` share of rises."""
    count: Integers
    """``[bins]`` rows."""


def reliability(probability: Floats, outcome: Floats, bins: int = BINS) -> Reliability:
    """What calibration looks like (Murphy and Winkler 1977)."""
    place = _bins(probability, bins)
    count = np.bincount(place, minlength=bins)
    filled = count > 0
    said = np.bincount(place, weights=probability, minlength=bins)[filled] / count[filled]
    came = np.bincount(place, weights=rose(outcome), minlength=bins)[filled] / count[filled]
    return Reliability(said, came, count[filled])


def risk_coverage_curve(losses: Floats, uncertainty: Floats, points: int = 20) -> tuple[Floats, Floats]:
    """Shares of rows ``[points]``, most certain first, and the mean loss of each share ``[points]``."""
    order = np.argsort(uncertainty, kind="stable")
    risks = np.cumsum(losses[order]) / np.arange(1, len(losses) + 1)
    shares = np.arange(1, points + 1) / points
    return shares, risks[np.maximum(np.ceil(shares * len(losses)).astype(np.int64), 1) - 1]


def _bins(probability: Floats, bins: int) -> npt.NDArray[np.int64]:
    return np.minimum((probability * bins).astype(np.int64), bins - 1)


# -- what was known ---------------------------------------------------------------------------------------------------------


def expanding_mean(values: Floats, visible_from: Integers, close_time: Integers, group: Integers) -> Floats:
    """Mean of the values of one's own group that were visible at each row's close, ``[n]``; nan before the first.

    Args:
        values: ``[n]``, nan where there is none.
        visible_from: ``[n]`` milliseconds; when each value may be used.
        close_time: ``[n]`` milliseconds; when each row asks.
        group: ``[n]`` symbol.
    """
    means = np.full(len(values), np.nan)
    for number in np.unique(group):
        members = np.flatnonzero(group == number)
        known = members[~np.isnan(values[members])]
        known = known[np.argsort(visible_from[known], kind="stable")]
        sums = np.concatenate(([0.0], np.cumsum(values[known])))
        count = np.searchsorted(visible_from[known], close_time[members], side="right")
        means[members] = np.divide(sums[count], count, out=np.full(len(members), np.nan), where=count > 0)
    return means
