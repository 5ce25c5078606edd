"""Settled funding rates of one symbol, apart from how they are stored: what decides about a run needs no Parquet."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class FundingRates:
    """Settlements of one symbol in increasing order of time."""

    times: tuple[int, ...] = ()
    """Milliseconds, UTC."""
    rates: tuple[Decimal, ...] = ()
    """What a long position pays of its value; a short one receives it."""

    def following(self, time: int) -> int:
        """Position of the first settlement after ``time``."""
        return bisect_right(self.times, time)
