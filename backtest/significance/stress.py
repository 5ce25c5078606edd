"""The decisions of a run under other costs, and one bar late: an edge that these take away was none to trade on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from decimal import Decimal
from typing import Any, Final

import numpy as np

from backtest.replay import replay
from backtest.significance.recording import RecordedStrategy, SignalTape
from backtest.significance.verdict import LATE
from bot.engine import AccountSettings, SimulatedEngine
from bot.execution.fills import Costs
from bot.orders import Execution, ExecutionKind
from strategies.bars import BarSeries, FloatArray
from strategies.base import Strategy

EngineOf = Callable[[Strategy, AccountSettings], SimulatedEngine]
COST_FACTORS: Final = (0, 1, 2)


def stress_runs(
    tape: SignalTape,
    account: AccountSettings,
    make_engine: EngineOf,
    series: Mapping[str, BarSeries],
    *,
    closes: bool = False,
) -> dict[str, FloatArray]:
    """Equity at every batch under other assumptions: ``costs x0``, ``costs x1``, ``costs x2``, ``one bar late``.

    Args:
        tape: of a replay of ``series``.
        account: of that replay.
        make_engine: gives a fresh engine of that replay, with another strategy and other settings of the account.
        series: the bars.
        closes: the last equity has paid for closing what is held.
    """
    cases = {f"costs x{factor}": (replace(account, costs=scaled(account.costs, factor)), 0) for factor in COST_FACTORS}
    cases[LATE] = (account, 1)
    found: dict[str, FloatArray] = {}
    for name, (settings, bars_late) in cases.items():
        engine = make_engine(RecordedStrategy(tape, bars_late=bars_late), settings)
        equity = replay(engine, series, trades=[]).equity
        found[name] = closed(equity, engine) if closes else equity
    return found


def closed(equity: FloatArray, engine: SimulatedEngine) -> FloatArray:
    """The equity of a run whose last value has paid the costs of a taker for closing what the engine holds."""
    costs, portfolio = engine.account.costs, engine.portfolio
    held = sum(abs(portfolio.notional(symbol)) for symbol in engine.instruments)
    paid = equity.copy()
    paid[-1] -= held * float(costs.taker_fee + costs.slippage + costs.spread / 2)
    return paid


def scaled(costs: Any, factor: int) -> Any:
    """Costs of trading (a dataclass of fractions) with every fraction so many times as large."""
    decimals = {each.name for each in fields(costs) if isinstance(getattr(costs, each.name), Decimal)}
    return replace(costs, **{name: getattr(costs, name) * factor for name in decimals})


def slippage_of(executions: list[Execution], series: Mapping[str, BarSeries], costs: Costs) -> float:
    """What fills of a taker paid more, or got less, than the price before slippage, in quote units.

    For market orders that is the open of the bar that they met, so that impact is included; for stops and targets, whose level
    the candle does not tell, it is counted by the rate alone, without the rounding to the tick.

    Args:
        executions: of a run.
        series: the bars of that run.
        costs: of that run; every price of a taker is worse by its slippage and half its spread.
    """
    rate = costs.slippage + costs.spread / 2
    total = 0.0
    for each in executions:
        bars = series[each.symbol]
        reference = float(bars.open[min(int(np.searchsorted(bars.open_time, each.time)), len(bars) - 1)])
        sign, quantity, price = each.side.sign, float(each.quantity), float(each.price)
        if each.kind is ExecutionKind.MARKET:
            total += sign * (price - reference) * quantity
        elif not each.is_maker:
            total += quantity * price * float(rate / (1 + sign * rate))
    return total
