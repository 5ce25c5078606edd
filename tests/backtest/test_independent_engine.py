"""The plain numbers against an independent engine: backtesting.py, given the same bars and the same rule of size.

Its strategy is written with its own machinery. Both sides decide the size at the close, as the whole units that the equity
at that close buys; both fill at the next open. Nothing else is shared.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

from backtest.replay import ReplayResult, replay
from bot.engine import AccountSettings, SimulatedEngine
from bot.execution.fills import Costs, FillModel
from bot.execution.instruments import Instrument, exact
from bot.orders import ExecutionKind, Order, OrderType, Side
from bot.portfolio import ClosedTrade, Portfolio
from bot.risk import RiskLimits
from strategies.bars import BarSeries
from strategies.baselines import SmaCross
from tests.bot.scenes import A, walk
from tests.strategies.markets import real_candles

backtesting = pytest.importorskip("backtesting", reason="backtesting.py is not installed: pip install recall-bot[dev]")

CASH = 10_000_000
CENT = 0.01
FAST, SLOW = 20, 50
STOP, TARGET = 0.0123457, 0.0176543
"""So odd that no level lies on the grid of cents: whether a touch is enough does not matter then."""
BELOW, ABOVE, UNITS = 0.0034567, 0.0045679, 1000


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


class GuardedCross(Cross):
    """With a stop and a target, as far from the close that was decided on as ours; what they close is opened anew."""

    def buy(self, **order: Any) -> Any:
        return super().buy(**order, **self.levels(1))

    def sell(self, **order: Any) -> Any:
        return super().sell(**order, **self.levels(-1))

    def levels(self, sign: int) -> dict[str, float]:
        close = exact(float(self.data.Close[-1]))
        return {"sl": float(close * (1 - sign * exact(STOP))), "tp": float(close * (1 + sign * exact(TARGET)))}


class Quotes(backtesting.Strategy):  # type: ignore[misc]
    """Buys at a limit below the close when flat, sells at one above it when not; a quote stands for one bar."""

    def init(self) -> None:
        """Nothing in advance."""

    def next(self) -> None:
        for waiting in list(self.orders):
            waiting.cancel()
        close = exact(float(self.data.Close[-1]))
        if self.position:
            self.sell(size=UNITS, limit=float(close * (1 + exact(ABOVE))))
        else:
            self.buy(size=UNITS, limit=float(close * (1 - exact(BELOW))))


def theirs(
    series: BarSeries, commission: float, strategy: type[backtesting.Strategy]
) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    """Closed trades, and equity at every close."""
    columns = {name.capitalize(): getattr(series, name) for name in ("open", "high", "low", "close", "volume")}
    frame = pd.DataFrame(columns, index=pd.to_datetime(series.open_time, unit="ms"))
    with warnings.catch_warnings():
        # About the trade that is open at the end, and the package's own use of pandas.
        warnings.simplefilter("ignore")
        # Twice the margin, so that no order is refused for an open above the close that it was sized at.
        test = backtesting.Backtest(frame, strategy, cash=CASH, commission=commission, margin=0.5, trade_on_close=False)
        result = test.run()
    trades = result["_trades"].sort_values(["ExitTime", "EntryTime"])
    return trades, result["_equity_curve"]["Equity"].to_numpy()


def fine_instrument() -> Instrument:
    """Whole units, and a grid of prices so fine that no level is touched without the price going through it."""
    return Instrument(
        A,
        tick_size=Decimal("1e-9"),
        lot_size=Decimal(1),
        minimum_quantity=Decimal(1),
        minimum_notional=Decimal(0),
    )


def ours(
    series: BarSeries, commission: str, long_only: bool, *, stop: float = 0.0, target: float = 0.0
) -> ReplayResult:
    costs = Costs(taker_fee=Decimal(commission), slippage=Decimal(0))
    limits = RiskLimits(daily_loss_limit=0.0, stop_loss=stop, take_profit=target, no_trade_band=100.0)
    instrument = fine_instrument()
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
    table, equity = theirs(series, float(commission), LongCross if long_only else Cross)
    assert_equal(result, table, equity, trades=trades)
    assert sum(fill.fee for fill in result.executions) > 0 or commission == "0"
    assert long_only or {fill.side for fill in result.executions} == set(Side)


def assert_equal(result: ReplayResult, table: pd.DataFrame, equity: np.ndarray[Any, Any], *, trades: int) -> None:
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


@pytest.mark.parametrize("commission", ["0", "0.00055"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_stops_and_targets_end_trades_to_the_cent_as_in_backtesting_py(seed: int, commission: str) -> None:
    """Gaps beyond a level, stop and target in one bar, and both in the bar of the entry included."""
    series = walk(3_000, seed, volatility=0.008)
    result = ours(series, commission, False, stop=STOP, target=TARGET)
    assert_equal(result, *theirs(series, float(commission), GuardedCross), trades=300)
    kinds = [fill.kind for fill in result.executions]
    assert min(kinds.count(kind) for kind in (ExecutionKind.STOP_LOSS, ExecutionKind.TAKE_PROFIT)) > 50


def test_stops_and_targets_on_real_hours_end_trades_to_the_cent_as_in_backtesting_py(real_data: Path) -> None:
    series = real_candles(real_data, "bybit_linear_BTCUSDT_1h", A)
    result = ours(series, "0", False, stop=STOP, target=TARGET)  # thousands of fees would leave nothing to trade with
    assert_equal(result, *theirs(series, 0.0, GuardedCross), trades=2_000)


def continuous(series: BarSeries) -> BarSeries:
    """The same closes, but every bar opens where the one before closed."""
    opened = np.concatenate([series.open[:1], series.close[:-1]])
    return replace(series, open=opened, high=np.maximum(series.high, opened), low=np.minimum(series.low, opened))


def quoted(series: BarSeries, commission: str) -> ReplayResult:
    """``Quotes`` with our fill model and books, without a risk layer, which makes no limit orders."""
    fills = FillModel(Costs(maker_fee=Decimal(commission)), {A: fine_instrument()})
    portfolio = Portfolio(Decimal(CASH), {A: fine_instrument()})
    executions, trades, equity = [], [], []
    for number, each in enumerate(series.bars()):
        for fill in fills.on_bars([each]):
            executions.append(fill)
            closed = portfolio.apply_execution(fill)
            trades += [] if closed is None else [closed]
        portfolio.mark(A, each.close)
        equity.append(portfolio.equity)
        fills.cancel(f"o{number - 1}", time=each.close_time)
        if number == 0:
            continue  # The peer's first decision is on the second bar.
        close, held = exact(each.close), portfolio.positions[A].quantity
        side, factor = (Side.SELL, 1 + exact(ABOVE)) if held else (Side.BUY, 1 - exact(BELOW))
        fills.submit(
            Order(f"o{number}", A, side, Decimal(UNITS), 0, 0, OrderType.LIMIT, close * factor, reduce_only=bool(held))
        )
    return ReplayResult(
        len(series), 0.0, series.close_time, np.array(equity), "", "", executions=executions, trades=trades
    )


@pytest.mark.parametrize("commission", ["0", "0.0002"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_limit_orders_fill_to_the_cent_as_in_backtesting_py(seed: int, commission: str) -> None:
    """On bars that open where the one before closed: where they open beyond a limit, ours is the more pessimistic."""
    series = continuous(walk(3_000, seed, volatility=0.006))
    result = quoted(series, commission)
    assert_equal(result, *theirs(series, float(commission), Quotes), trades=500)
    assert {fill.kind for fill in result.executions} == {ExecutionKind.LIMIT}
