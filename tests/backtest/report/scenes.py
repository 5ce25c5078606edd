"""What tests of reports share: curves and trades."""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from bot.portfolio import ClosedTrade
from strategies.bars import HOUR_MS, FloatArray, IntArray

START = 1_704_067_200_000  # 2024-01-01T00:00Z


def path_of(bars: int, seed: int = 1, growth: float = 0.0) -> tuple[IntArray, FloatArray]:
    equity = 1000.0 * np.exp(np.cumsum(np.random.default_rng(seed).normal(growth, 0.004, bars)))
    return START + HOUR_MS * np.arange(1, bars + 1, dtype=np.int64), np.asarray(equity)


def trade(closed_at: int, profit: int) -> ClosedTrade:
    return ClosedTrade(
        symbol="BTCUSDT",
        side="long",
        quantity=Decimal(1),
        entry_price=Decimal(100),
        exit_price=Decimal(101),
        opened_at=closed_at - HOUR_MS,
        closed_at=closed_at,
        profit=Decimal(profit),
        fees=Decimal("0.1"),
        funding=Decimal(0),
    )
