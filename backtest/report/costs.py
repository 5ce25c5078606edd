"""Where the money of a run went."""

from __future__ import annotations

from dataclasses import dataclass

from backtest.report.material import Material


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


def costs_of(material: Material) -> CostBreakdown:
    """The costs of a run's closed round trips."""
    fees = sum(float(trade.fees) for trade in material.trades)
    funding = sum(float(trade.funding) for trade in material.trades)
    net = sum(float(trade.profit) for trade in material.trades)
    return CostBreakdown(net + fees + funding, fees, funding)
