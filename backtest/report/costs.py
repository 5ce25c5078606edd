"""Where the money of a run went, and which side brought it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backtest.report.material import Material
from bot.portfolio import ClosedTrade


@dataclass(frozen=True, slots=True)
class CostBreakdown:
    """Of closed round trips, in quote units."""

    gross: float
    """Profit before fees and funding; slippage is in the prices."""
    fees: float
    funding: float
    """Negative when more was received than paid."""

    @property
    def net(self) -> float:
        """What was left."""
        return self.gross - self.fees - self.funding


@dataclass(frozen=True, slots=True)
class SideSplit:
    """Closed round trips of one side."""

    name: str
    trades: int
    win_rate: float | None
    profit_factor: float | None
    net: float
    """Quote units."""
    mean_hours: float | None
    """How long one was held."""


def costs_of(material: Material) -> CostBreakdown:
    """The costs of a run's closed round trips."""
    fees = sum(float(trade.fees) for trade in material.trades)
    funding = sum(float(trade.funding) for trade in material.trades)
    net = sum(float(trade.profit) for trade in material.trades)
    return CostBreakdown(net + fees + funding, fees, funding)


def by_side(trades: Sequence[ClosedTrade]) -> list[SideSplit]:
    """Longs, shorts and all."""
    sides: dict[str, list[ClosedTrade]] = {"long": [], "short": [], "all": list(trades)}
    for trade in trades:
        sides[trade.side].append(trade)
    return [_split(name, chosen) for name, chosen in sides.items()]


def _split(name: str, trades: list[ClosedTrade]) -> SideSplit:
    profits = [float(trade.profit) for trade in trades]
    won, lost = sum(p for p in profits if p > 0.0), -sum(p for p in profits if p < 0.0)
    held = [(trade.closed_at - trade.opened_at) / 3_600_000 for trade in trades]
    return SideSplit(
        name,
        len(trades),
        sum(p > 0.0 for p in profits) / len(profits) if profits else None,
        won / lost if lost > 0.0 else None,
        sum(profits),
        sum(held) / len(held) if held else None,
    )
