"""Tests of skill: whether a forecast is better than another by more than chance.

Forecasts over h bars made at every bar have errors that overlap, so that all tests use a variance that allows for
dependence (:func:`long_run_variance`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np
from scipy import stats

from strategies.memory_transformer.dataset import Floats

LAGS_PER_HORIZON: Final = 4
"""Bartlett's weights take from the overlap of h bars what the lag is short of endless: with 4 h a twenty-fourth part."""


@dataclass(frozen=True, slots=True)
class SkillTest:
    """A statistic with its standard error."""

    estimate: float
    """In the unit of what is tested; ``nan``, as all else, where it is not defined."""
    standard_error: float
    statistic: float
    """Estimate over standard error."""
    p_value: float
    """Probability of a statistic like this or further out without any skill; what counts as further is said by the test."""


_UNDEFINED: Final = SkillTest(float("nan"), float("nan"), float("nan"), float("nan"))


def long_run_variance(values: Floats, lag: int) -> float:
    """Variance of sqrt(n) times the mean of dependent values, with Bartlett's weights up to ``lag`` (Newey and West 1987,
    https://doi.org/10.2307/1913610)."""
    centred = values - values.mean()
    total = float(centred @ centred)
    for distance in range(1, min(lag, len(values) - 1) + 1):
        weight = 1.0 - distance / (lag + 1.0)
        total += 2.0 * weight * float(centred[distance:] @ centred[:-distance])
    return total / len(values)


def information_coefficient_test(forecast: Floats, outcome: Floats, lag: int) -> SkillTest:
    """Whether forecast and outcome correlate, two-sided.

    The error is that of the correlation's influence function ``x y - r (x^2 + y^2) / 2`` of standardised values (Devlin,
    Gnanadesikan and Kettenring 1975), with the long-run variance in place of the independent one.
    """
    if len(outcome) < 3 or np.ptp(forecast) == 0.0 or np.ptp(outcome) == 0.0:
        return _UNDEFINED
    x = (forecast - forecast.mean()) / forecast.std()
    y = (outcome - outcome.mean()) / outcome.std()
    r = float(np.mean(x * y))
    return _two_sided(r, x * y - 0.5 * r * (x * x + y * y), lag)


def clark_west(outcome: Floats, nested: Floats, larger: Floats, lag: int) -> SkillTest:
    """Whether a model forecasts better than one nested in it, one-sided.

    A larger model pays for estimating what is zero under the null, which the statistic gives back: the mean of
    ``(y - f0)^2 - [(y - f1)^2 - (f0 - f1)^2]`` (Clark and West, "Approximately normal tests for equal predictive accuracy in
    nested models", 2007, https://doi.org/10.1016/j.jeconom.2006.05.023, equation 2.2).

    Args:
        outcome: ``[n]`` in order of time.
        nested: ``[n]`` forecasts of the smaller model.
        larger: ``[n]`` forecasts of the larger model.
        lag: at least the horizon.
    """
    gain = (outcome - nested) ** 2 - ((outcome - larger) ** 2 - (nested - larger) ** 2)
    test = _two_sided(float(gain.mean()), gain, lag)
    return SkillTest(test.estimate, test.standard_error, test.statistic, float(stats.norm.sf(test.statistic)))


def diebold_mariano(losses: Floats, rival_losses: Floats, horizon: int, lag: int) -> SkillTest:
    """Whether two forecasts that are not nested lose alike, two-sided; positive where the first is better.

    Diebold and Mariano, "Comparing predictive accuracy", 1995, with the correction for few forecasts and Student's
    distribution of Harvey, Leybourne and Newbold, "Testing the equality of prediction mean squared errors", 1997
    (https://doi.org/10.1016/S0169-2070(96)00719-4), equation 9.

    Args:
        losses: ``[n]`` of the first forecast, in order of time.
        rival_losses: ``[n]`` of the second.
        horizon: rows that an outcome spans.
        lag: of the variance, at least the horizon.
    """
    difference = rival_losses - losses
    count = len(difference)
    test = _two_sided(float(difference.mean()), difference, lag)
    correction = (count + 1 - 2 * horizon + horizon * (horizon - 1) / count) / count
    if not correction > 0.0 or np.isnan(test.statistic):
        return _UNDEFINED
    statistic = test.statistic * sqrt(correction)
    p_value = 2.0 * float(stats.t.sf(abs(statistic), count - 1))
    return SkillTest(test.estimate, test.standard_error / sqrt(correction), statistic, p_value)


def _two_sided(estimate: float, influence: Floats, lag: int) -> SkillTest:
    variance = long_run_variance(influence, lag)
    if not variance > 0.0:
        return _UNDEFINED
    error = sqrt(variance / len(influence))
    statistic = estimate / error
    return SkillTest(estimate, error, statistic, 2.0 * float(stats.norm.sf(abs(statistic))))
