"""The decisions of a run under other costs, and one bar late: an edge that these take away was none to trade on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from decimal import Decimal
from typing import Any, Final

from backtest.replay import replay
from backtest.significance.recording import RecordedStrategy, SignalTape
from bot.engine import AccountSettings, SimulatedEngine
from bot.execution.instruments import Instrument
from bot.orders import Execution, ExecutionKind
from bot.portfolio import ClosedTrade
from strategies.bars import BarSeries, FloatArray

COST_FACTORS: Final = (0, 1, 2)
LATE: Final = "one bar late"


def stress_runs(
    tape: SignalTape,
    account: AccountSettings,
    instruments: dict[str, Instrument],
    series: Mapping[str, BarSeries],
    *,
    closes: bool = False,
) -> dict[str, FloatArray]:
    """Equity at every batch under other assumptions: ``costs x0``, ``costs x1``, ``costs x2``, ``one bar late``.

    Args:
        tape: of a replay of ``series``.
        account: of that replay.
        instruments: of that replay.
        series: the bars.
        closes: the last equity has paid for closing what is held.
    """
    cases = {f"costs x{factor}": (replace(account, costs=scaled(account.costs, factor)), 0) for factor in COST_FACTORS}
    cases[LATE] = (account, 1)
    found: dict[str, FloatArray] = {}
    for name, (settings, bars_late) in cases.items():
        trades: list[ClosedTrade] = []
        strategy = RecordedStrategy(tape, bars_late=bars_late)
        engine = SimulatedEngine(strategy, instruments, settings, run_id="stress", on_trade=trades.append)
        equity = replay(engine, series, trades=trades).equity
        found[name] = closed(equity, engine) if closes else equity
    return found


def closed(equity: FloatArray, engine: SimulatedEngine) -> FloatArray:
    """The equity of a run whose last value has paid the costs of a taker for closing what the engine holds."""
    costs, portfolio = engine.account.costs, engine.portfolio
    held = sum(abs(portfolio.notional(symbol)) for symbol in engine.instruments)
    paid = equity.copy()
    paid[-1] -= held * float(costs.taker_fee + costs.slippage)
    return paid


def scaled(costs: Any, factor: int) -> Any:
    """Costs of trading (a dataclass of fractions) with every fraction so many times as large."""
    decimals = {each.name for each in fields(costs) if isinstance(getattr(costs, each.name), Decimal)}
    return replace(costs, **{name: getattr(costs, name) * factor for name in decimals})


def slippage_of(executions: list[Execution], rate: Decimal) -> float:
    """What fills of a taker paid more, or got less, than the price before slippage, in quote units.

    Args:
        executions: of a run.
        rate: fraction by which every price of a taker is worse (``costs.slippage``).
    """
    total = 0.0
    for each in executions:
        if each.kind is not ExecutionKind.LIMIT:
            sign = each.side.sign
            total += float(each.quantity * each.price * rate / (1 + sign * rate))
    return total
