"""The simulated run: when decisions meet bars, and that core and fill model never disagree."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.replay import batches
from bot.engine import EngineState
from bot.execution.fills import Costs
from bot.orders import ExecutionKind, OperatorAction, OperatorCommand, Verdict
from bot.portfolio import ClosedTrade
from bot.risk import RiskLimits
from strategies.base import Signal
from tests.bot.scenes import START, A, B, Scripted, bar, batch, engine_of, walk


def test_an_order_decided_at_a_close_fills_at_the_next_open_before_the_next_decision() -> None:
    engine = engine_of(Scripted({(A, 0): 1.0}))
    first = engine.step(batch(bar(0, 90.0, close=100.0)))
    assert first.executions == []
    assert engine.portfolio.positions[A].quantity == 0
    assert engine.fills.has_working(A)
    second = engine.step(batch(bar(1, 101.0, close=103.0)))
    (fill,) = second.executions
    assert (fill.price, fill.quantity, fill.time) == (101, 100, bar(1).open_time)
    assert second.decisions[0].position == 100
    assert second.decisions[0].equity == 10_000.0 + 100 * 2.0
    assert second.batch == batch(bar(1, 101.0, close=103.0))


def test_an_order_stays_working_until_its_symbol_has_a_bar() -> None:
    engine = engine_of(Scripted({(A, 0): 1.0}), A, B)
    engine.step(batch(bar(0), bar(0, symbol=B)))
    for number in (1, 2):
        assert engine.step(batch(bar(number, symbol=B))).executions == []
        assert engine.fills.has_working(A)
    (fill,) = engine.step(batch(bar(3, 99.0), bar(3, symbol=B))).executions
    assert fill.price == 99


def test_a_stop_guards_from_the_bar_of_the_fill_on_and_the_strategy_may_enter_again() -> None:
    limits = RiskLimits(daily_loss_limit=0.0, stop_loss=0.05, no_trade_band=0.0)
    engine = engine_of(Scripted({(A, 0): 1.0, (A, 1): 1.0}), limits=limits)
    engine.step(batch(bar(0, low=10.0)))
    step = engine.step(batch(bar(1, low=94.0)))
    assert [fill.kind for fill in step.executions] == [ExecutionKind.MARKET, ExecutionKind.STOP_LOSS]
    assert step.decisions[0].position == 0
    assert step.decisions[0].verdicts == (Verdict.FOLLOWED,)


def test_flattening_closes_at_the_next_bar_and_stays_flat() -> None:
    engine = engine_of(Scripted({(A, number): 1.0 for number in range(6)}))
    for number in range(2):
        engine.step(batch(bar(number)))
    engine.apply([OperatorCommand(OperatorAction.FLATTEN, "news")])
    (decision,) = engine.step(batch(bar(2))).decisions
    assert decision.verdicts == (Verdict.FLATTENED_BY_OPERATOR, Verdict.FOLLOWED)
    for number in (3, 4):
        (decision,) = engine.step(batch(bar(number))).decisions
        assert (decision.position, decision.orders) == (0, ())


def test_a_daily_loss_ends_in_a_flat_account() -> None:
    limits = RiskLimits(daily_loss_limit=0.05, stop_loss=0.0)
    engine = engine_of(Scripted({(A, number): 1.0 for number in range(5)}), limits=limits)
    prices = (100.0, 100.0, 94.0, 93.0, 93.0)
    verdicts = [engine.step(batch(bar(number, price))).decisions[0].verdicts for number, price in enumerate(prices)]
    assert verdicts[2:4] == [(Verdict.HALTED_BY_LOSS, Verdict.FOLLOWED), (Verdict.HALTED_BY_LOSS, Verdict.ON_TARGET)]
    assert engine.portfolio.equity == 9300.0


def test_a_run_repeated_gives_its_orders_the_same_ids() -> None:
    repeated = []
    for _ in range(2):
        engine = engine_of(Scripted({(A, 0): 1.0}))
        repeated.append(engine.step(batch(bar(0))).decisions[0].orders[0].client_order_id)
    assert repeated[0] == repeated[1]


targets = st.one_of(st.none(), st.floats(-1.2, 1.2), st.sampled_from([1.0, -1.0, 0.0]))
scripts = st.dictionaries(st.tuples(st.sampled_from([A, B]), st.integers(0, 24)), targets, max_size=50)


@settings(max_examples=40)
@given(scripts, st.integers(0, 2**16), st.sampled_from([0.0, 0.01]), st.sampled_from([0.0, 0.02]))
def test_core_and_fill_model_agree_on_every_position_and_books_close_to_the_last_digit(
    script: dict[tuple[str, int], float | None], seed: int, stop: float, take: float
) -> None:
    signals: dict[tuple[str, int], Signal | float | None] = dict(script)
    limits = RiskLimits(daily_loss_limit=0.0, stop_loss=stop, take_profit=take, no_trade_band=0.05)
    trades: list[ClosedTrade] = []
    engine = engine_of(Scripted(signals), A, B, limits=limits, costs=Costs(), trades=trades)
    names = set()
    for one in batches({A: walk(25, seed), B: walk(25, seed + 1, B)}):
        step = engine.step(one)
        for book in engine.fills.state():
            assert book.quantity == engine.portfolio.positions[book.symbol].quantity
        for fill in step.executions:
            assert fill.execution_id not in names
            names.add(fill.execution_id)
    portfolio = engine.portfolio
    open_flows = sum(p.cash_flow - p.fees - p.funding for p in portfolio.positions.values())
    assert portfolio.cash - 10_000 == sum((trade.profit for trade in trades), Decimal(0)) + open_flows
    assert portfolio.trades_closed == len(trades)


@pytest.mark.parametrize("cut", range(5))
def test_working_orders_and_levels_survive_a_crash(cut: int) -> None:
    limits = RiskLimits(daily_loss_limit=0.0, stop_loss=0.05, take_profit=0.02, no_trade_band=0.0)
    script = {(A, 0): 1.0, (A, 2): -1.0}
    bars = [bar(0), bar(1), bar(2, high=103.0), bar(3), bar(4, high=106.0)]
    unbroken, broken = (engine_of(Scripted(script), limits=limits, costs=Costs()) for _ in range(2))
    for number, one in enumerate(bars):
        if number == cut:
            written = msgspec.json.encode(broken.state())
            broken = engine_of(Scripted(script), limits=limits, costs=Costs())
            broken.restore(msgspec.json.decode(written, type=EngineState))
        assert broken.step(batch(one)) == unbroken.step(batch(one))
    assert broken.state() == unbroken.state()
    assert unbroken.portfolio.trades_closed == 2
    assert unbroken.state().core.last_open_times == {A: START + 4 * 3_600_000}
