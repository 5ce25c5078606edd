"""How much of an account was in the market, from its fills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bot.orders import Execution
from strategies.bars import BarSeries, FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Exposure:
    """Value of the positions as a share of equity, marked at the closes of bars."""

    times: IntArray
    """``[n]`` milliseconds."""
    net: FloatArray
    """``[n]`` longs less shorts."""
    gross: FloatArray
    """``[n]`` longs and shorts together."""

    @property
    def share_of_time(self) -> float:
        """Share of closes at which anything was held."""
        return float(np.mean(self.gross > 0.0)) if len(self.gross) else 0.0

    @property
    def mean(self) -> float:
        """Mean of ``gross`` over the closes at which equity was positive; 0 without any."""
        known = self.gross[np.isfinite(self.gross)]
        return float(known.mean()) if len(known) else 0.0


def exposure_of(
    executions: Sequence[Execution], candles: dict[str, BarSeries], times: IntArray, equity: FloatArray
) -> Exposure:
    """Exposure at every close of ``candles``.

    Args:
        executions: all fills of the run, by time.
        candles: bars of every symbol that was traded.
        times: of the equity curve, ``[m]`` milliseconds, increasing.
        equity: ``[m]`` quote units; between two points the earlier one counts.
    """
    closes = np.unique(np.concatenate([np.empty(0, np.int64), *(series.close_time for series in candles.values())]))
    if not len(closes) or not len(times):
        return Exposure(closes[:0], np.empty(0), np.empty(0))
    closes = closes[(closes >= times[0]) & (closes <= times[-1])]
    net, gross = np.zeros(len(closes)), np.zeros(len(closes))
    for symbol, series in candles.items():
        fills = [each for each in executions if each.symbol == symbol]
        if not fills or not len(series):
            continue
        held = np.cumsum([0.0, *(float(each.signed_quantity) for each in fills)])
        # A fill names the open of its bar, so that the close of that bar is the first that it is held at.
        quantity = held[np.searchsorted([each.time for each in fills], closes, side="left")]
        # Sums of binary fractions leave dust where exact decimals are zero.
        quantity[np.abs(quantity) < 1e-9 * max(1e-9, float(np.abs(held).max()))] = 0.0
        at = np.searchsorted(series.close_time, closes, side="right")
        value = quantity * np.concatenate(([series.open[0]], series.close))[at]
        net += value
        gross += np.abs(value)
    account = equity[np.searchsorted(times, closes, side="right") - 1]
    account = np.where(account > 0.0, account, np.nan)
    return Exposure(closes, net / account, gross / account)
