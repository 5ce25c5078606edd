"""When to say nothing: only by a score that has been shown to order the error.

How far the nearest remembered moment is does not order the error of a forecast on real hours, plausible as it sounds. So no
score is trusted before it has lowered the mean error of a validation span by dropping the bars that it likes least, by more
than chance does when several scores and several thresholds are tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from strategies.stretches import FEWEST_STRETCHES, standard_error
from strategies.uncertainty.calibration import Abstention, Score
from strategies.uncertainty.risk_coverage import Floats

DROPPED: Final = (0.05, 0.1, 0.2, 0.3)
"""Shares of the bars that are tried; a strategy that is silent more often than that needs another model."""
FALSE_ALARMS: Final = 0.05
"""Chance that a rule comes out where no score orders the error, over all that is tried."""

Integers = npt.NDArray[np.int64]


def choose_abstention(scores: Mapping[Score, Floats], error: Floats, stretches: Integers) -> Abstention | None:
    """The rule with the largest gain beyond its allowance for chance, or none.

    The gain is 1 - risk / mean error. It must exceed its standard error times a quantile of Student's t, at
    ``FALSE_ALARMS`` divided by the number of rules tried (Bonferroni), with one degree of freedom less than there are
    stretches. One standard error alone would let a score that knows nothing pass more often than not.

    Args:
        scores: ``[n]`` each; larger is more uncertain. Bars where one is not a number are left out for that score.
        error: ``[n]`` of the forecasts, not negative, in order of time.
        stretches: ``[n]`` see ``standard_error``: bars of different stretches have outcomes that do not overlap.
    """
    tried = [each for name, score in scores.items() for each in _rules(name, score, error, stretches)]
    best, margin = None, 0.0
    for rule, count in tried:
        needed = student_quantile(1.0 - FALSE_ALARMS / len(tried), count - 1)
        beyond = rule.gain - needed * rule.standard_error
        if beyond > margin:
            best, margin = rule, beyond
    return best


def stretches_of(close_time: Integers, length_ms: int) -> Integers:
    """Numbers of the stretches of time that rows lie in, ``[n]``, without a gap.

    Args:
        close_time: ``[n]`` milliseconds, not decreasing.
        length_ms: as long as outcomes reach, or longer.
    """
    numbers: Integers = np.unique((close_time - close_time[0]) // length_ms, return_inverse=True)[1]
    return numbers


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t above the median, from that of the normal; within 1 % from 4 degrees of freedom on at 0.99.

    Abramowitz and Stegun, "Handbook of mathematical functions", 26.7.5.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        z,
        (z**3 + z) / 4.0,
        (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0,
        (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0,
        (79.0 * z**9 + 776.0 * z**7 + 1482.0 * z**5 - 1920.0 * z**3 - 945.0 * z) / 92160.0,
    )
    return float(sum([term / freedom**power for power, term in enumerate(terms)]))


def _rules(name: Score, score: Floats, error: Floats, stretches: Integers) -> list[tuple[Abstention, int]]:
    """One rule per share that the score can drop, and the number of stretches it was tried on."""
    known = ~np.isnan(score)
    score, error = score[known], error[known]
    numbers: Integers = np.unique(stretches[known], return_inverse=True)[1]
    if not len(score) or numbers[-1] + 1 < FEWEST_STRETCHES or not error.mean() > 0.0:
        return []
    rules: dict[float, tuple[Abstention, int]] = {}
    for share in DROPPED:
        threshold = float(np.quantile(score, 1.0 - share, method="lower"))
        left = score <= threshold
        if left.all() or threshold in rules:
            continue
        mean, risk, coverage = error.mean(), error[left].mean(), left.mean()
        # How much each bar moves the gain (its influence function), whose mean over the bars is 0.
        influence = (error - mean) * risk / mean**2 - left * (error - risk) / (coverage * mean)
        gain, doubt = float(1.0 - risk / mean), standard_error(influence, numbers)
        rules[threshold] = Abstention(name, threshold, float(coverage), gain, doubt), int(numbers[-1]) + 1
    return list(rules.values())
