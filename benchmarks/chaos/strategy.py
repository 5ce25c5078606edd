"""A strategy that trades much for no reason, so that a rehearsal of few bars has many orders of every sort."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import ClassVar, Final

from strategies.bars import Bar, BarSeries
from strategies.base import Signal, Strategy

_TARGETS: Final = (1.0, -1.0, 0.5, -0.5, 0.25, 0.0, None, None, None, None)
"""Flips, reductions, additions, flat, and as often: hold."""
_STOPS: Final = (0.002, 0.004, 0.05, 0.01)
"""Some so near that the next bar reaches them."""


class Restless(Strategy):
    """Wants something else at every third bar; what, follows from the bar's time alone."""

    name: ClassVar[str] = "restless"

    def __init__(self, seed: int = 0, share: float = 0.4) -> None:
        """
        Args:
            seed: another one wants other things.
            share: largest part of equity that one symbol may be.
        """
        self._seed = seed
        self._share = share

    @property
    def required_bars(self) -> int:
        """One, as any run needs a past."""
        return 1

    def warm(self, history: Mapping[str, BarSeries], *, remember: bool = True) -> None:
        """Nothing: it learns from no bar."""

    def on_bar(self, bar: Bar) -> Signal:
        """What the time says."""
        draw = zlib.crc32(f"{self._seed}/{bar.symbol}/{bar.open_time}".encode())
        target = _TARGETS[draw % len(_TARGETS)]
        return Signal(
            bar.symbol,
            bar.open_time,
            None if target is None else target * self._share,
            "as drawn",
            stop_distance=_STOPS[draw // 16 % len(_STOPS)],
            target_distance=0.006 if draw // 64 % 4 == 0 else None,
        )
