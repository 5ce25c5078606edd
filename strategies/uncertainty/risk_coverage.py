"""Does a score know which forecasts will be wrong? The error of those that are left when the most uncertain are dropped."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class RiskCoverage(NamedTuple):
    """The curve of El-Yaniv and Wiener, "On the foundations of noise-free selective classification", JMLR 2010."""

    coverage: Floats
    """``[m]`` share of the forecasts that are left, increasing to 1; forecasts with equal scores leave together."""
    risk: Floats
    """``[m]`` mean error of these."""
    area: float
    """Under the curve (AURC: Geifman, Uziel, El-Yaniv, "Bias-reduced uncertainty estimation for deep neural classifiers",
    ICLR 2019, https://arxiv.org/abs/1805.08206): the mean risk over the coverages 1/n to 1. A score that knows nothing
    comes near the mean error."""


def risk_coverage(score: Floats, error: Floats) -> RiskCoverage:
    """The curve of a score.

    Args:
        score: ``[n]`` larger is more uncertain; one or more, without nan.
        error: ``[n]`` of the forecasts.
    """
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    counts = np.arange(1, len(score) + 1)
    risks = np.cumsum(error[order]) / counts
    # Which of several equals is dropped first is not for the score to say: they share the risk at the last of them.
    last = np.append(ordered[1:] != ordered[:-1], True)
    ends = np.flatnonzero(last)
    groups = np.diff(ends, prepend=-1)
    return RiskCoverage(counts[ends] / len(score), risks[ends], float((groups * risks[ends]).sum() / len(score)))
