"""Whether choosing the best of some trials chooses anything: combinatorially symmetric and purged cross-validation.

Bailey, Borwein, Lopez de Prado and Zhu, "The probability of backtest overfitting", 2017
(https://doi.org/10.21314/JCF.2016.322) and Lopez de Prado, "Advances in Financial Machine Learning", 2018, chapter 12, by the
library ``purgedcv``. Both judge the choice, not a trial: in each split the trial that was best on one part of the days is
looked at on the others.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from backtest.significance.sharpe import daily_sharpe
from strategies.bars import DAY_MS, FloatArray, IntArray

BLOCKS: Final = 12
"""924 splits; the paper's 16 would be 12,870, which take fifteen times as long."""
GROUPS: Final = 10
TEST_GROUPS: Final = 2
"""45 splits, 9 paths."""


@dataclass(frozen=True, slots=True)
class Overfitting:
    """What choosing the best of some trials is worth."""

    probability: float
    """Of a choice that is below the median elsewhere; 0.5 and more chooses noise."""
    slope: float
    """Of the chosen trial's Sharpe ratio elsewhere on that where it was chosen; 1 keeps all, 0 nothing."""
    path_sharpe: tuple[float, ...]
    """Annual Sharpe ratio along every path of choices on days that took no part in them, sorted."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def overfitting(
    returns: FloatArray, days: IntArray, days_per_year: int, *, purge_days: int, blocks: int = BLOCKS
) -> Overfitting | None:
    """Judge the choice of the best trial.

    Args:
        returns: daily, ``[trials, n]``, on the same days.
        days: UTC days since the epoch, ``[n]``, increasing.
        days_per_year: of the calendar.
        purge_days: days around every test group that take no part in the choice, as positions reach across its ends.
        blocks: of the symmetric cross-validation, even.

    Returns:
        ``None`` with fewer than two trials that move, or too few days.
    """
    moving = returns[[daily_sharpe(row) is not None for row in returns]] if len(returns) else returns
    if len(moving) < 2 or moving.shape[1] < max(4 * blocks, 4 * GROUPS):
        return None
    from purgedcv import probability_of_backtest_overfitting

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = probability_of_backtest_overfitting(moving, blocks)
    paths = chosen_paths(moving, days, purge_days=purge_days)
    ratios = [daily_sharpe(path) for path in paths]
    annual = sorted(ratio * days_per_year**0.5 for ratio in ratios if ratio is not None)
    return Overfitting(float(found.pbo), float(found.slope), tuple(annual))


def chosen_paths(
    returns: FloatArray, days: IntArray, *, purge_days: int, groups: int = GROUPS, test_groups: int = TEST_GROUPS
) -> FloatArray:
    """Daily returns of the trial that was best on the other groups, along all paths, ``[paths, n]``.

    Args:
        returns: daily, ``[trials, n]``.
        days: UTC days since the epoch, ``[n]``.
        purge_days: left out on both sides of every test group.
        groups: of consecutive days.
        test_groups: of them left out at a time.
    """
    import pandas as pd
    from purgedcv import CombinatorialPurgedCV, reconstruct_paths

    moments = pd.Series(pd.to_datetime(days * DAY_MS, unit="ms"))
    splitter = CombinatorialPurgedCV(
        groups,
        test_groups,
        prediction_times=moments,
        evaluation_times=moments + pd.Timedelta(days=1),
        purge_horizon=pd.Timedelta(days=purge_days),
        embargo=pd.Timedelta(days=purge_days),
    )
    chosen, tests = [], []
    for train, test in splitter.split(np.empty((len(days), 1))):
        ratios = [daily_sharpe(row[train]) for row in returns]
        best = int(np.argmax([-np.inf if ratio is None else ratio for ratio in ratios]))
        chosen.append(returns[best][test])
        tests.append(test)
    return np.asarray(reconstruct_paths(chosen, tests, groups, test_groups, len(days)))
