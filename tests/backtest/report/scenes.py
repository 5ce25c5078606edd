"""What tests of reports share: curves and trades."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np

from backtest.report.judgement import Judgement
from backtest.significance.assessment import Account, Evidence, assess
from backtest.significance.certificate import LeakCertificate
from bot.portfolio import ClosedTrade
from strategies.bars import DAY_MS, HOUR_MS, Calendar, FloatArray, IntArray

START = 1_704_067_200_000  # 2024-01-01T00:00Z
CERTIFICATE = LeakCertificate(None, None, None, 0.5, 1, "", None, (0, DAY_MS))


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


def judged(days: int, mean: float, seed: int = 3, **more: Any) -> Judgement:
    """The judgement on normal daily returns."""
    returns = np.random.default_rng(seed).normal(mean, 0.01, days)
    times = DAY_MS * np.arange(1, days + 1, dtype=np.int64)
    account = Account(times, 1000.0 * np.cumprod(1.0 + returns), 1000.0, Calendar.CONTINUOUS)
    return Judgement(assess(Evidence(account, **more), resamples=200).to_json(), CERTIFICATE)
