"""The plain numbers against an independent engine: backtesting.py, given the same bars and the same rule of size.

Its strategy is written with its own machinery. Both sides decide the size at the close, as the whole units that the equity
at that close buys; both fill at the next open. Nothing else is shared.
"""

from __future__ import annotations

import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import backtesting
import numpy as np
import pandas as pd
import pytest

from backtest.replay import ReplayResult, replay
from bot.engine import AccountSettings, SimulatedEngine
from bot.execution.fills import Costs
from bot.execution.instruments import Instrument
from bot.orders import Side
from bot.portfolio import ClosedTrade
from bot.risk import RiskLimits
from strategies.bars import BarSeries
from strategies.baselines import SmaCross
from tests.bot.scenes import A, walk
from tests.strategies.markets import real_candles

CASH = 10_000_000
CENT = 0.01
FAST, SLOW = 20, 50


class Cross(backtesting.Strategy):  # type: ignore[misc]
    """Long above, short below, flat between; whole units; the averages in integers, so that equal means equal."""

    long_only: ClassVar[bool] = False

    def init(self) -> None:
        """Nothing in advance: an indicator would make the engine begin a bar later."""

    def next(self) -> None:
        if len(self.data) < SLOW:
            return
        ticks = np.rint(self.data.Close[-SLOW:] * 100).astype(np.int64)
        lead = int(ticks[-FAST:].sum()) * SLOW - int(ticks.sum()) * FAST
        side = 1 if lead > 0 else -1 if lead < 0 else 0
        if self.long_only:
            side = max(side, 0)
        if side == np.sign(self.position.size):
            return
        units = int(self.equity // self.data.Close[-1])
        self.position.close()
        if side > 0:
            self.buy(size=units)
        elif side < 0:
            self.sell(size=units)


class LongCross(Cross):
    """Flat instead of short."""

    long_only = True


def theirs(series: BarSeries, commission: float, long_only: bool) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    """Closed trades, and equity at every close."""
    columns = {name.capitalize(): getattr(series, name) for name in ("open", "high", "low", "close", "volume")}
    frame = pd.DataFrame(columns, index=pd.to_datetime(series.open_time, unit="ms"))
    with warnings.catch_warnings():
        # About the trade that is open at the end, and the package's own use of pandas.
        warnings.simplefilter("ignore")
        # Twice the margin, so that no order is refused for an open above the close that it was sized at.
        test = backtesting.Backtest(
            frame, LongCross if long_only else Cross, cash=CASH, commission=commission, margin=0.5, trade_on_close=False
        )
        result = test.run()
    return result["_trades"].sort_values("EntryTime"), result["_equity_curve"]["Equity"].to_numpy()


def ours(series: BarSeries, commission: str, long_only: bool) -> ReplayResult:
    costs = Costs(taker_fee=Decimal(commission), slippage=Decimal(0))
    limits = RiskLimits(daily_loss_limit=0.0, stop_loss=0.0, no_trade_band=100.0)
    instrument = Instrument(A, lot_size=Decimal(1), minimum_quantity=Decimal(1), minimum_notional=Decimal(0))
    trades: list[ClosedTrade] = []
    engine = SimulatedEngine(
        SmaCross(FAST, SLOW, long_only=long_only),
        {A: instrument},
        AccountSettings(Decimal(CASH), costs, limits),
        run_id="a run",
        on_trade=trades.append,
    )
    return replay(engine, {A: series}, trades=trades)


def milliseconds(times: pd.Series[Any]) -> list[int]:
    return [int(time.value) // 1_000_000 for time in times]


def assert_same(series: BarSeries, commission: str, long_only: bool, *, trades: int) -> None:
    result = ours(series, commission, long_only)
    table, equity = theirs(series, float(commission), long_only)
    assert len(result.trades) == len(table) >= trades
    assert [trade.opened_at for trade in result.trades] == milliseconds(table["EntryTime"])
    assert [trade.closed_at for trade in result.trades] == milliseconds(table["ExitTime"])
    sizes = [int(trade.quantity) * (1 if trade.side == "long" else -1) for trade in result.trades]
    assert sizes == table["Size"].tolist()
    for name, column in (
        ("entry_price", "EntryPrice"),
        ("exit_price", "ExitPrice"),
        ("profit", "PnL"),
        ("fees", "Commission"),
    ):
        values = np.array([float(getattr(trade, name)) for trade in result.trades])
        assert np.abs(values - table[column].to_numpy()).max() < CENT, name
    assert np.abs(result.equity - equity).max() < CENT
    assert abs(result.equity[-1] - equity[-1]) < CENT
    assert sum(fill.fee for fill in result.executions) > 0 or commission == "0"
    assert long_only or {fill.side for fill in result.executions} == set(Side)


@pytest.mark.parametrize("long_only", [False, True])
@pytest.mark.parametrize("commission", ["0", "0.00055"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_cross_on_synthetic_hours_trades_and_ends_to_the_cent_like_backtesting_py(
    seed: int, commission: str, long_only: bool
) -> None:
    assert_same(walk(3_000, seed, volatility=0.004), commission, long_only, trades=25)


@pytest.mark.parametrize("commission", ["0", "0.00055"])
def test_a_cross_on_real_hours_of_bitcoin_trades_and_ends_to_the_cent_like_backtesting_py(
    real_data: Path, commission: str
) -> None:
    assert_same(real_candles(real_data, "bybit_linear_BTCUSDT_1h", A), commission, False, trades=900)
