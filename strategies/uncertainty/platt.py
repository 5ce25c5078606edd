"""Calibration of a probability: a logistic curve through what came, that says the base rate until there is skill to see.

Platt, "Probabilistic outputs for support vector machines", 1999: ``logit P = intercept + slope * logit(raw)``. It follows the
market as in Gupta, Ramdas, "Online Platt scaling with calibeating", ICML 2023 (https://arxiv.org/abs/2305.00070), by Newton
steps, but forgets: it is the most probable curve given about the last ``WINDOW`` outcomes.

The prior is normal: the intercept about the logit of the base rate, the slope about 0, which is no skill. Outcomes over a
horizon of h bars overlap, so that each counts as 1 / h of an independent one.
"""

from __future__ import annotations

from math import exp, log
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

WINDOW: Final = 8760
"""Matured forecasts that are remembered: the weight of one falls by 1 / ``WINDOW`` with each that follows; a year of hours."""
INTERCEPT_PRECISION: Final = 25.0
"""Of the prior: a base rate near 1/2 is believed to within 5 points."""
SLOPE_PRECISION: Final = 1.0
"""Of the prior: the raw probability may have half, all or none of its skill."""
BASE_RATE_PRIOR: Final = 10.0
"""Independent outcomes of either sign that are assumed on top of those seen."""
MOST_CERTAIN: Final = 0.99
"""Raw probabilities are cut to within 1 - this and this."""

_ITERATIONS: Final = 100
_CONVERGED: Final = 1e-12

Floats = npt.NDArray[np.float64]


class Platt(msgspec.Struct, frozen=True):
    """A curve, and how much is known about it."""

    base_rate: float
    """Where the prior is: the probability of a rise, whatever the forecast."""
    intercept: float
    slope: float
    information: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Of the remembered outcomes, not divided by the horizon: of the intercept, of both, of the slope."""

    def __post_init__(self) -> None:
        if not 0.0 < self.base_rate < 1.0:
            raise ValueError(f"base_rate is {self.base_rate}; it must be above 0 and below 1")

    def calibrated(self, score: float) -> float:
        """The probability of a rise.

        Args:
            score: see ``score_of``.
        """
        return _logistic(self.intercept + self.slope * score)


def score_of(raw: float) -> float:
    """Logit of a raw probability, cut to ``MOST_CERTAIN``."""
    return _logit(min(max(raw, 1.0 - MOST_CERTAIN), MOST_CERTAIN))


def rise_of(outcome: float) -> float:
    """1 for a rise, 0 for a fall; an outcome of exactly 0 counts half."""
    return 0.5 * ((outcome > 0.0) - (outcome < 0.0) + 1.0)


def unskilled(base_rate: float = 0.5) -> Platt:
    """The curve that nothing is known about."""
    return Platt(base_rate, _logit(base_rate), 0.0)


def update(platt: Platt, score: float, rise: float, horizon: int) -> Platt:
    """The curve after an outcome: one Newton step, whose size is one over the outcomes remembered.

    Args:
        platt: the curve.
        score: what the forecast said, see ``score_of``.
        rise: what came, see ``rise_of``.
        horizon: bars that outcomes reach over.
    """
    probability = platt.calibrated(score)
    weight = probability * (1.0 - probability)
    kept = 1.0 - 1.0 / WINDOW
    first, both, second = platt.information
    first, both, second = kept * first + weight, kept * both + weight * score, kept * second + weight * score * score
    # The prior is forgotten no faster than the outcomes: at rest they are in balance as in ``fit``.
    fading = horizon / WINDOW
    pull = fading * INTERCEPT_PRECISION * (platt.intercept - _logit(platt.base_rate))
    intercept, slope = _solved(
        first + horizon * INTERCEPT_PRECISION,
        both,
        second + horizon * SLOPE_PRECISION,
        rise - probability - pull,
        (rise - probability) * score - fading * SLOPE_PRECISION * platt.slope,
    )
    return Platt(platt.base_rate, platt.intercept + intercept, platt.slope + slope, (first, both, second))


def fit(scores: Floats, rises: Floats, independent: float, horizon: int) -> Platt:
    """The most probable curve given outcomes, by Newton's method with halved steps; exact.

    Args:
        scores: ``[n]`` see ``score_of``.
        rises: ``[n]`` see ``rise_of``.
        independent: how many independent outcomes they are worth, at most ``n``.
        horizon: bars that outcomes reach over.
    """
    if not len(scores):
        return unskilled()
    share = independent / len(scores)
    base_rate = float((BASE_RATE_PRIOR + share * rises.sum()) / (2.0 * BASE_RATE_PRIOR + independent))
    centre = np.array([_logit(base_rate), 0.0])
    precision = np.array([INTERCEPT_PRECISION, SLOPE_PRECISION])
    inputs = np.stack([np.ones(len(scores)), scores], axis=1)

    def objective(point: Floats) -> float:
        logits = inputs @ point
        loss = np.logaddexp(0.0, logits) - rises * logits
        return float(share * loss.sum() + 0.5 * (precision * (point - centre) ** 2).sum())

    point, value = centre, objective(centre)
    for _ in range(_ITERATIONS):
        probabilities = 0.5 * (1.0 + np.tanh(0.5 * (inputs @ point)))
        gradient = share * inputs.T @ (probabilities - rises) + precision * (point - centre)
        weights = probabilities * (1.0 - probabilities)
        step = np.linalg.solve(share * (inputs.T * weights) @ inputs + np.diag(precision), gradient)
        while (moved := objective(point - step)) > value and np.abs(step).max() > _CONVERGED:
            step = 0.5 * step
        point, value = point - step, moved
        if np.abs(step).max() <= _CONVERGED:
            break
    remembered = min(independent * horizon, WINDOW) / len(scores)
    probabilities = 0.5 * (1.0 + np.tanh(0.5 * (inputs @ point)))
    known = remembered * (inputs.T * (probabilities * (1.0 - probabilities))) @ inputs
    information = (float(known[0, 0]), float(known[0, 1]), float(known[1, 1]))
    return Platt(base_rate, float(point[0]), float(point[1]), information)


def _solved(first: float, both: float, second: float, left: float, right: float) -> tuple[float, float]:
    """Solution of the symmetric system of two, ``[[first, both], [both, second]]``, whose determinant is positive."""
    determinant = first * second - both * both
    return (second * left - both * right) / determinant, (first * right - both * left) / determinant


def _logit(probability: float) -> float:
    return log(probability / (1.0 - probability))


def _logistic(value: float) -> float:
    if value >= 0.0:
        return 1.0 / (1.0 + exp(-value))
    return exp(value) / (1.0 + exp(value))
