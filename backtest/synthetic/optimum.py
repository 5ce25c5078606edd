"""The best that can be known: closed forms and exact filters of the synthetic tasks.

The setting of all of them: a pattern has a hidden sign ``s``, +1 or -1 with even odds. After each of its occurrences the
return over the horizon is ``s * drift + noise * e`` with ``e`` standard normal, so ``n`` outcomes whose sum is ``y`` leave
the posterior mean ``drift * tanh(drift * y / noise**2)`` for the next one (Bayes' rule for two normal hypotheses).
"""

from __future__ import annotations

from collections.abc import Callable
from math import erf, exp, pi, sqrt, tanh
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_NODES: Final = 201
"""Of the Gauss-Hermite rule; what is integrated is smooth, so this is exact to far below 1e-9."""


def posterior_mean(total: float, drift: float, noise: float) -> float:
    """Expected return after a pattern whose matured outcomes sum to ``total``."""
    return drift * tanh(drift * total / noise**2)


def bayes_r2(occurrences: int, drift: float, noise: float) -> float:
    """Share of the variance of the next outcome that the best forecast explains after some matured occurrences.

    The forecast is the posterior mean ``m``, so the share is ``E[m**2] / (drift**2 + noise**2)``. Given ``s``, the sum of
    ``n`` outcomes is normal with mean ``n s drift`` and variance ``n noise**2``; by symmetry ``s = 1`` is enough.
    """
    if occurrences == 0:
        return 0.0
    mean_square = _expect(lambda total: drift**2 * np.tanh(drift * total / noise**2) ** 2, occurrences, drift, noise)
    return mean_square / (drift**2 + noise**2)


def bayes_sign_accuracy(occurrences: int, drift: float, noise: float) -> float:
    """How often the best forecast has the sign of the next outcome: ``p q + (1 - p)(1 - q)``."""
    right = normal_cdf(sqrt(occurrences) * drift / noise)
    follows = normal_cdf(drift / noise)
    return right * follows + (1.0 - right) * (1.0 - follows)


def best_profit(occurrences: int, drift: float, noise: float, cost: float) -> float:
    """Expected profit per occurrence of trading one unit where the posterior mean exceeds the cost of a round trip.

    One-shot optimum: ``E[max(|m| - cost, 0)]``.
    """
    if occurrences == 0:
        return 0.0
    # The edge of max() is no polynomial, so this one is summed on a fine grid.
    grid = np.linspace(-9.0, 9.0, 20_001)
    density = np.exp(-0.5 * grid**2) / sqrt(2.0 * pi)
    total = occurrences * drift + sqrt(occurrences) * noise * grid
    gain = np.maximum(np.abs(drift * np.tanh(drift * total / noise**2)) - cost, 0.0)
    return float(np.trapezoid(gain * density, grid))


def flip_filter(outcomes: Floats, drift: float, noise: float, hazard: float) -> Floats:
    """Best forecast before every outcome of a pattern whose sign flips with a hazard between occurrences.

    The two-state Bayes filter: predict ``p' = (1 - hazard) p + hazard (1 - p)``, then update by the likelihood ratio.

    Args:
        outcomes: ``[n]`` of one pattern, in order.
        drift: size of the expected return.
        noise: standard deviation around it.
        hazard: probability that the sign flips between two occurrences.

    Returns:
        ``[n]`` posterior means, each from the outcomes before it alone.
    """
    means = np.empty(len(outcomes))
    odds = 1.0  # of +1 against -1
    for place, value in enumerate(outcomes.tolist()):
        up = odds / (1.0 + odds)
        means[place] = drift * (2.0 * up - 1.0)
        up = _likely(up, value, drift, noise)
        up = (1.0 - hazard) * up + hazard * (1.0 - up)
        odds = up / (1.0 - up)
    return means


def decoy_filter(outcomes: Floats, drift: float, noise: float, decoys: float) -> Floats:
    """Best forecast before every outcome of a pattern that may mean nothing, for one who knows only how many do.

    Bayes' rule for three normal hypotheses: means of ``drift``, ``-drift`` and 0, the last with a prior of ``decoys``.

    Args:
        outcomes: ``[n]`` of one pattern, in order.
        drift: size of the expected return of a pattern that means something.
        noise: standard deviation around it.
        decoys: share of patterns that mean nothing.

    Returns:
        ``[n]`` posterior means, each from the outcomes before it alone.
    """
    sums = np.concatenate(([0.0], np.cumsum(outcomes)[:-1]))
    evidence, price = drift * sums / noise**2, np.arange(len(outcomes)) * drift**2 / (2.0 * noise**2)
    # Logarithms of the three posteriors, up to a constant; the largest is taken off before they are raised.
    with np.errstate(divide="ignore"):
        prior = np.log([0.5 * (1.0 - decoys), 0.5 * (1.0 - decoys), decoys])
    logs = np.stack((evidence - price, -evidence - price, np.zeros(len(outcomes)))) + prior[:, None]
    rise, fall, nothing = np.exp(logs - logs.max(axis=0))
    means: Floats = drift * (rise - fall) / (rise + fall + nothing)
    return means


def normal_mixture_crps(means: Floats, deviations: Floats, weights: Floats, outcome: Floats) -> Floats:
    """Continuous ranked probability score of mixtures of normals, ``[n]``; smaller is better.

    ``sum_i w_i A(y - m_i, s_i) - sum_ij w_i w_j A(m_i - m_j, sqrt(s_i**2 + s_j**2)) / 2`` with ``A(m, s) =
    E|N(m, s**2)|`` (Grimit, Gneiting, Berrocal and Johnson, "The continuous ranked probability score for circular
    variables", 2006, equation 5).

    Args:
        means: ``[states]`` of the parts.
        deviations: ``[states]`` of the parts, positive.
        weights: ``[n, states]``, rows summing to 1.
        outcome: ``[n]`` what came.
    """
    error = (weights * _mean_size(outcome[:, None] - means, np.broadcast_to(deviations, weights.shape))).sum(axis=1)
    apart = _mean_size(means[:, None] - means, np.sqrt(deviations[:, None] ** 2 + deviations**2))
    score: Floats = error - 0.5 * np.einsum("ni,ij,nj->n", weights, apart, weights)
    return score


def _mean_size(mean: Floats, deviation: Floats) -> Floats:
    """``E|X|`` of normal ``X``."""
    ratio = mean / deviation
    density = np.exp(-0.5 * ratio**2) / sqrt(2.0 * pi)
    rising = np.vectorize(normal_cdf, otypes=[np.float64])(ratio)
    size: Floats = mean * (2.0 * rising - 1.0) + 2.0 * deviation * density
    return size


def normal_cdf(value: float) -> float:
    """Probability that a standard normal number is at most ``value``."""
    return 0.5 * (1.0 + erf(value / sqrt(2.0)))


def _likely(up: float, value: float, drift: float, noise: float) -> float:
    """Probability of +1 after an outcome; bounded away from certainty so that odds stay numbers."""
    ratio = exp(min(700.0, max(-700.0, 2.0 * drift * value / noise**2)))
    posterior = up * ratio / (up * ratio + 1.0 - up)
    return min(max(posterior, 1e-15), 1.0 - 1e-15)


def _expect(function: Callable[[Floats], Floats], occurrences: int, drift: float, noise: float) -> float:
    """Mean of a function of the sum of ``occurrences`` outcomes of sign +1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    values = function(occurrences * drift + sqrt(occurrences) * noise * nodes)
    return float((values * weights).sum() / weights.sum())
