"""Market regimes: a causal label of trend and volatility for every bar.

A bar is *bull* or *bear* where its trend over ``TREND_SPAN`` bars is stronger than the median strength seen so far,
else *sideways*; it is *volatile* where its volatility is above the median seen so far, else *calm*. "So far" ends with
the bar itself, so a label never changes once given. It begins with the first bar shown, so a label depends on where the
history began: show a state the same bars from the same start to get the same labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import frexp
from typing import Final

import numpy as np
import numpy.typing as npt

from strategies.features import LONG_VOLATILITY_FEATURE, TREND_FEATURES, TREND_LIMIT, TREND_SPANS

REGIME_NAMES: Final = (
    "sideways calm",
    "sideways volatile",
    "bull calm",
    "bull volatile",
    "bear calm",
    "bear volatile",
)
"""Name of every label; a label is an index into this."""

TREND_SPAN: Final = 72
_TREND: Final = TREND_FEATURES[TREND_SPANS.index(TREND_SPAN)]
_SIDEWAYS, _BULL, _BEAR = 0, 2, 4

_TREND_STEPS: Final = 64  # bins per unit of trend
_TREND_BINS: Final = int(TREND_LIMIT) * _TREND_STEPS + 1
_OCTAVE_STEPS: Final = 32  # bins per doubling of volatility
_OCTAVES: Final = 64  # volatilities from 2**-48 to 2**16 per bar
_LOWEST_EXPONENT: Final = -48
_VOLATILITY_BINS: Final = _OCTAVES * _OCTAVE_STEPS


class ExpandingMedian:
    """Median of all whole numbers added so far, exact, in constant time when it moves slowly.

    The numbers lie in ``[0, bins)``. The median is the smallest number that at least half of them do not exceed.
    """

    __slots__ = ("_below", "_counts", "_median", "_total")

    def __init__(self, bins: int) -> None:
        self._counts = [0] * bins
        self._median = 0
        self._below = 0  # how many lie below the median
        self._total = 0

    def add(self, number: int) -> int:
        """Take in a number; the median with it."""
        counts = self._counts
        counts[number] += 1
        self._total += 1
        if number < self._median:
            self._below += 1
        while 2 * self._below >= self._total:
            self._median -= 1
            self._below -= counts[self._median]
        while 2 * (self._below + counts[self._median]) < self._total:
            self._below += counts[self._median]
            self._median += 1
        return self._median


def _volatility_bin(volatility: float) -> int:
    """A bin of about 2 % width; exact arithmetic, so that it is the same on every machine."""
    mantissa, exponent = frexp(volatility)  # mantissa in [0.5, 1), or 0 for 0
    if mantissa == 0.0 or exponent <= _LOWEST_EXPONENT:
        return 0
    place = (exponent - _LOWEST_EXPONENT - 1) * _OCTAVE_STEPS + int((mantissa - 0.5) * (2 * _OCTAVE_STEPS))
    return min(place, _VOLATILITY_BINS - 1)


class RegimeState:
    """The regime of one symbol, bar by bar."""

    __slots__ = ("_strength", "_volatility")

    def __init__(self) -> None:
        self._strength = ExpandingMedian(_TREND_BINS)
        self._volatility = ExpandingMedian(_VOLATILITY_BINS)

    def update(self, features: Sequence[float]) -> int:
        """Label of the next bar from its features, an index into ``REGIME_NAMES``."""
        return self._label(features[_TREND], features[LONG_VOLATILITY_FEATURE])

    def update_many(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Labels of the next bars, ``[n]``, from their features ``[n, F]``."""
        labels = map(self._label, features[:, _TREND].tolist(), features[:, LONG_VOLATILITY_FEATURE].tolist())
        return np.fromiter(labels, dtype=np.int64, count=len(features))

    def _label(self, trend: float, volatility: float) -> int:
        strength = int(abs(trend) * _TREND_STEPS)
        level = _volatility_bin(volatility)
        direction = _SIDEWAYS
        if strength > self._strength.add(strength):
            direction = _BULL if trend > 0.0 else _BEAR
        return direction + (level > self._volatility.add(level))
