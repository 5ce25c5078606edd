"""What the tests of the decision core share: bars, orders, and a strategy that wants what it is told to want."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import ClassVar

import numpy as np

from bot.engine import AccountSettings, SimulatedEngine
from bot.execution.fills import Costs
from bot.execution.instruments import Instrument
from bot.orders import BarBatch, Execution, ExecutionKind, Order, OrderType, Side
from bot.portfolio import ClosedTrade
from bot.risk import RiskLimits
from strategies.bars import DAY_MS, HOUR_MS, Bar, BarSeries, Calendar
from strategies.base import Signal, Strategy

A, B, C = "AAAUSDT", "BBBUSDT", "CCCUSDT"
START = 19_000 * DAY_MS
FREE = Costs(taker_fee=Decimal(0), maker_fee=Decimal(0), slippage=Decimal(0))
OPEN_LIMITS = RiskLimits(daily_loss_limit=0.0, stop_loss=0.0, no_trade_band=0.0)
"""Risk limits that leave a target as it is."""


def instruments(*symbols: str, tick: str = "0.01", lot: str = "0.001") -> dict[str, Instrument]:
    """Trading rules of some symbols."""
    grid = {"tick_size": Decimal(tick), "lot_size": Decimal(lot), "minimum_quantity": Decimal(lot)}
    return {symbol: Instrument(symbol, minimum_notional=Decimal(0), **grid) for symbol in symbols}


def bar(
    number: int,
    opened: float = 100.0,
    high: float | None = None,
    low: float | None = None,
    close: float | None = None,
    *,
    symbol: str = A,
) -> Bar:
    """The hourly bar of that number; flat at ``opened`` where nothing else is said."""
    close = opened if close is None else close
    high = max(opened, close) if high is None else high
    low = min(opened, close) if low is None else low
    time = START + number * HOUR_MS
    return Bar(symbol, time, time + HOUR_MS, opened, high, low, close, 1.0)


def batch(*bars: Bar, late: bool = False) -> BarBatch:
    """Bars that close together."""
    return BarBatch(bars, (late,) * len(bars))


def order(
    side: Side,
    quantity: str,
    *,
    limit: str | None = None,
    stop: str | None = None,
    target: str | None = None,
    reduce_only: bool = False,
    name: str = "o1",
) -> Order:
    """An order for symbol A, at the market unless it has a limit."""

    def price(text: str | None) -> Decimal | None:
        return None if text is None else Decimal(text)

    return Order(
        name,
        A,
        side,
        Decimal(quantity),
        START,
        START,
        OrderType.MARKET if limit is None else OrderType.LIMIT,
        price(limit),
        reduce_only,
        price(stop),
        price(target),
    )


def execution(
    side: Side, quantity: str, price: str, fee: str = "0", *, symbol: str = A, number: int = 0, time: int | None = None
) -> Execution:
    """A fill at the market."""
    when = START + number * HOUR_MS if time is None else time
    amounts = (Decimal(quantity), Decimal(price), Decimal(fee))
    return Execution(f"f{number}", f"o{number}", symbol, side, *amounts, ExecutionKind.MARKET, when)


class Scripted(Strategy):
    """Wants, after each bar of each symbol, what the script says; after other bars it does not know."""

    name: ClassVar[str] = "scripted"

    def __init__(self, script: Mapping[tuple[str, int], Signal | float | None]) -> None:
        self._script = script

    @property
    def required_bars(self) -> int:
        return 0

    def warm(self, history: Mapping[str, BarSeries], *, remember: bool = True) -> None:
        """Nothing to know."""

    def on_bar(self, bar: Bar) -> Signal:
        wanted = self._script.get((bar.symbol, (bar.open_time - START) // HOUR_MS))
        return wanted if isinstance(wanted, Signal) else Signal(bar.symbol, bar.open_time, wanted)


def engine_of(
    strategy: Strategy,
    *symbols: str,
    cash: str = "10000",
    costs: Costs = FREE,
    limits: RiskLimits = OPEN_LIMITS,
    lot: str = "0.001",
    trades: list[ClosedTrade] | None = None,
) -> SimulatedEngine:
    """A simulated run of some symbols."""
    account = AccountSettings(Decimal(cash), costs, limits)
    on_trade = None if trades is None else trades.append
    return SimulatedEngine(
        strategy, instruments(*(symbols or (A,)), lot=lot), account, run_id="a run", on_trade=on_trade
    )


def walk(length: int, seed: int, symbol: str = A, *, volatility: float = 0.01, first: int = 0) -> BarSeries:
    """Hourly bars of a random walk on a grid of cents."""
    random = np.random.default_rng(seed)
    close = np.round(100.0 * np.exp(np.cumsum(random.normal(0.0, volatility, length))), 2)
    opened = np.concatenate([[100.0], np.round(close[:-1] * np.exp(random.normal(0.0, volatility / 4, length - 1)), 2)])
    reach = np.abs(random.normal(0.0, volatility, (2, length)))
    high = np.round(np.maximum(opened, close) * (1.0 + reach[0]), 2)
    low = np.round(np.minimum(opened, close) * (1.0 - reach[1]), 2)
    times = START + HOUR_MS * (first + np.arange(length, dtype=np.int64))
    columns = (opened, high, low, close, np.ones(length))
    return BarSeries(symbol, "60", Calendar.CONTINUOUS, times, *columns)
