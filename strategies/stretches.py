"""Means over outcomes that overlap: only stretches of time that share none are independent of each other."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

FEWEST_STRETCHES: Final = 5
"""Stretches of time without which a standard error means little, and nothing is chosen."""


def standard_error(differences: npt.NDArray[np.float64], stretches: npt.NDArray[np.int64]) -> float:
    """Standard error of the mean of ``[n]`` differences that depend on each other within stretches only.

    Args:
        differences: in order of time.
        stretches: ``[n]`` number of the stretch of each, from 0 on, two or more of them.
    """
    centred = np.bincount(stretches, weights=differences - differences.mean())
    count = len(centred)
    return float(np.sqrt(count / (count - 1) * np.square(centred).sum()) / len(differences))
