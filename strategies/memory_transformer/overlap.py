"""Forecasts over a horizon are held over it: a target is the mean of what the last forecasts wanted.

A forecast of the next day is made anew every hour, and following each of them alone pays the costs of a round trip for
every change of mind. Holding each for its horizon with its share of the capital changes a position by at most that share
per bar (overlapping portfolios: Jegadeesh and Titman, "Returns to buying winners and selling losers", 1993).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec


class OverlappingTargets:
    """What the forecasts of the last bars wanted, symbol by symbol.

    Args:
        bars: for how many bars a forecast is held; 1 follows each forecast alone.
    """

    def __init__(self, bars: int) -> None:
        self.bars = bars
        self._wanted: dict[str, list[float]] = {}

    def target(self, symbol: str, wanted: float) -> float:
        """The exposure to hold now that the newest forecast wants ``wanted``; forecasts that were never made count as 0."""
        if self.bars == 1:
            return wanted
        held = self._wanted.setdefault(symbol, [])
        held.append(wanted)
        del held[: -self.bars]
        # An exact sum does not depend on where a list began, as a running one would.
        return math.fsum(held) / self.bars

    def state(self) -> dict[str, list[float]]:
        """A copy that can be stored."""
        return {symbol: list(wanted) for symbol, wanted in self._wanted.items()}

    def restore(self, state: Mapping[str, Sequence[float]]) -> None:
        """Go on from ``state``."""
        self._wanted = {symbol: list(wanted)[-self.bars :] for symbol, wanted in state.items()}


class StrategyState(msgspec.Struct, frozen=True, tag="memory_transformer"):
    """All of the strategy that bars do not tell."""

    uncertainty: bytes
    """See ``OnlineUncertainty.state``."""
    wanted: dict[str, list[float]]
    """See ``OverlappingTargets.state``."""
