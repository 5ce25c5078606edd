"""Which bars may become memories: not those whose wick is a print that nothing followed.

A wrong tick, or one order that swept an empty book, leaves a bar with an enormous wick: for a moment the price was
somewhere where no market was. Remembered, it would answer queries for as long as the memory lasts. A crash that was
turned around leaves the same wick and is exactly what a memory is for; it differs in that many traded there. So a bar is
refused where its wick is many times an ordinary range, *and* it closed back inside, *and* its volume was ordinary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Final

import numpy as np
import numpy.typing as npt

from strategies.bars import Bar, BarSeries

SPAN: Final = 48
"""Bars before a bar that say what is ordinary; a bar with fewer before it is not judged."""
LARGEST_BODY: Final = 0.5
"""A bar closed back inside if its body is at most this part of its wick."""
ORDINARY_VOLUME: Final = 2.0
"""Medians of the volume; bars that traded more have their wick from a market."""


class AdmissionState:
    """The judge of one symbol, bar by bar. It looks at a bar and the ``SPAN`` bars before it, never further.

    Args:
        glitch_wick: medians of the range that a wick must exceed to be a glitch; 0 admits everything.
    """

    __slots__ = ("_ranges", "_volumes", "_wick")

    def __init__(self, glitch_wick: float) -> None:
        self._wick = glitch_wick
        self._ranges: deque[float] = deque(maxlen=SPAN)
        self._volumes: deque[float] = deque(maxlen=SPAN)

    def admit(self, bar: Bar) -> bool:
        """Whether the next bar may become a memory."""
        if self._wick == 0.0:
            return True
        glitch = len(self._ranges) == SPAN and self._is_glitch(bar)
        self._ranges.append(bar.high - bar.low)
        self._volumes.append(bar.volume)
        return not glitch

    def admit_many(self, series: BarSeries) -> npt.NDArray[np.bool_]:
        """Whether each of the next bars may, ``[n]``."""
        if self._wick == 0.0:
            return np.ones(len(series), dtype=np.bool_)
        return np.fromiter(map(self.admit, series.bars()), dtype=np.bool_, count=len(series))

    def _is_glitch(self, bar: Bar) -> bool:
        top, bottom = (bar.open, bar.close) if bar.open > bar.close else (bar.close, bar.open)
        wick = max(bar.high - top, bottom - bar.low)
        return (
            top - bottom <= LARGEST_BODY * wick
            and wick > self._wick * _median(self._ranges)
            and bar.volume <= ORDINARY_VOLUME * _median(self._volumes)
        )


def _median(numbers: Collection[float]) -> float:
    """Of ``SPAN`` numbers, which is even: the mean of the middle two."""
    ordered = sorted(numbers)
    return 0.5 * ordered[SPAN // 2 - 1] + 0.5 * ordered[SPAN // 2]
