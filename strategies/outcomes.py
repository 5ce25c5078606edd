"""What came after a moment: log returns over horizons counted in received bars, and when each became known."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Final

import numpy as np
import numpy.typing as npt

from strategies.features import LONG_VOLATILITY_FEATURE, VOLATILITY_FEATURE

NEVER: Final = int(np.iinfo(np.int64).max)
"""A time that does not come: when an outcome beyond the end of the bars is known."""
SMALLEST_VOLATILITY: Final = 1e-6
"""Per bar; a market that stood still is treated as if it moved this much."""


def outcome(close_then: float, close_now: float) -> float:
    """Log return from one close to a later one."""
    return log(close_now / close_then)


def outcome_matrix(close: npt.NDArray[np.float64], horizons: Sequence[int]) -> npt.NDArray[np.float64]:
    """Outcome of every bar at every horizon, ``[n, H]``; nan where the bars end before it.

    Args:
        close: ``[n]`` closes of one symbol in order, one per received bar.
        horizons: spans in received bars.

    The values are bit for bit those of ``outcome``.
    """
    outcomes = np.full((len(close), len(horizons)), np.nan, dtype=np.float64)
    for column, horizon in enumerate(horizons):
        known = len(close) - horizon
        if known > 0:
            outcomes[:known, column] = list(map(log, (close[horizon:] / close[:known]).tolist()))
    return outcomes


def realised_volatility_matrix(close: npt.NDArray[np.float64], horizons: Sequence[int]) -> npt.NDArray[np.float64]:
    """Realised volatility after every bar over every horizon, ``[n, H]``; nan where the bars end before it.

    The root of the sum of the squared log returns of the next h bars (Andersen, Bollerslev, Diebold and Labys, "Modeling
    and forecasting realized volatility", 2003), so that it is in the unit of the outcome over the same horizon.

    Args:
        close: ``[n]`` closes of one symbol in order, one per received bar.
        horizons: spans in received bars.
    """
    squares = np.diff(np.log(close)) ** 2
    volatility = np.full((len(close), len(horizons)), np.nan, dtype=np.float64)
    for column, horizon in enumerate(horizons):
        if len(squares) >= horizon:
            # Window by window rather than by a running sum, which would remember every bar that it once added.
            windows = np.lib.stride_tricks.sliding_window_view(squares, horizon)
            volatility[: len(windows), column] = np.sqrt(windows.sum(axis=1))
    return volatility


def settled_times(close_time: npt.NDArray[np.int64], horizons: Sequence[int]) -> npt.NDArray[np.int64]:
    """When every outcome is known, ``[n, H]`` milliseconds: the close of the h-th later bar, ``NEVER`` beyond the end.

    Args:
        close_time: ``[n]`` close times of one symbol in order, one per received bar.
        horizons: spans in received bars.
    """
    times = np.full((len(close_time), len(horizons)), NEVER, dtype=np.int64)
    for column, horizon in enumerate(horizons):
        known = len(close_time) - horizon
        if known > 0:
            times[:known, column] = close_time[horizon:]
    return times


def trailing_volatility(features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Volatility per bar that outcomes are measured in, ``[...]`` from features ``[..., F]``; always positive.

    Root mean square of the short and the long volatility: on hours and days of BTC and ETH it explains the size of what
    follows better than either alone. Multiply by the square root of a horizon for that horizon's.
    """
    short, long = features[..., VOLATILITY_FEATURE], features[..., LONG_VOLATILITY_FEATURE]
    volatility: npt.NDArray[np.float64] = np.sqrt(0.5 * (short * short + long * long))
    return np.maximum(volatility, SMALLEST_VOLATILITY)
