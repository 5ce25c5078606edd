"""Stops and targets of positions larger than the volume lets out leave in parts, never better than when they were reached."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.engine import AccountSettings, SimulatedEngine
from bot.execution.fills import PLAIN, BookSide, FillModel, FillRules, MarginMode
from bot.orders import ExecutionKind, OrderReason, Side, Verdict
from bot.risk import RiskLimits
from strategies.bars import Bar
from tests.bot.scenes import FREE, START, A, Scripted, bar, batch, instruments, order

BUY, SELL = Side.BUY, Side.SELL
MARKET, STOP, TARGET = ExecutionKind.MARKET, ExecutionKind.STOP_LOSS, ExecutionKind.TAKE_PROFIT
LIQUIDATION = ExecutionKind.LIQUIDATION
SHARED = replace(PLAIN, participation=0.1, share_exits=True)
Fills = list[tuple[ExecutionKind, str, str]]


def volume(each: Bar, amount: float) -> Bar:
    return msgspec.structs.replace(each, volume=amount)


def fills_of(model: FillModel, *bars: Bar) -> Fills:
    found = [execution for each in bars for execution in model.on_bars([each])]
    return [(fill.kind, f"{fill.signed_quantity.normalize():f}", f"{fill.price.normalize():f}") for fill in found]


def holding(side: Side, quantity: str, *, rules: FillRules = SHARED, **levels: str) -> FillModel:
    """A model that holds a position from 100, opened in a bar of more than enough volume."""
    model = FillModel(FREE, instruments(A), rules)
    model.submit(order(side, quantity, **levels))
    model.on_bars([volume(bar(0), 1e6)])
    return model


def test_a_stop_larger_than_its_share_of_the_volume_leaves_with_the_next_opens() -> None:
    model = holding(BUY, "5", stop="95")
    assert fills_of(model, volume(bar(1, 100.0, low=94.0), 20.0)) == [(STOP, "-2", "95")]
    assert model.has_working(A)
    assert fills_of(model, volume(bar(2, 93.0, 99.0, 92.0), 0.0), volume(bar(3, 91.0), 20.0)) == [(STOP, "-2", "91")]
    assert fills_of(model, volume(bar(4, 92.0), 20.0), volume(bar(5, 50.0), 1e6)) == [(STOP, "-1", "92")]
    assert not model.has_working(A)
    assert model.state()[0].leaving is None


@pytest.mark.parametrize(("side", "reached", "after", "price"), [(BUY, 94.0, 120.0, "95"), (SELL, 106.0, 80.0, "105")])
def test_a_price_that_comes_back_does_not_make_good_what_a_stop_could_not_sell(
    side: Side, reached: float, after: float, price: str
) -> None:
    model = holding(side, "5", stop=price)
    sign = -side.sign
    first = volume(bar(1, 100.0, max(100.0, reached), min(100.0, reached)), 20.0)
    assert fills_of(model, first, volume(bar(2, after), 1e6)) == [
        (STOP, f"{sign * 2}", price),
        (STOP, f"{sign * 3}", price),
    ]


def test_what_a_target_could_not_sell_is_sold_at_the_next_opens_and_no_better_than_at_it() -> None:
    model = holding(BUY, "5", target="105")
    assert fills_of(model, volume(bar(1, 100.0, 106.0), 20.0)) == [(TARGET, "-2", "105")]
    assert fills_of(model, volume(bar(2, 110.0), 20.0), volume(bar(3, 99.0), 20.0)) == [
        (TARGET, "-2", "105"),
        (TARGET, "-1", "99"),
    ]


def test_what_the_option_says_is_false_closes_the_whole_position_at_once() -> None:
    model = holding(BUY, "5", stop="95", rules=replace(SHARED, share_exits=False))
    assert fills_of(model, volume(bar(1, 100.0, low=94.0), 20.0)) == [(STOP, "-5", "95")]


def test_a_stop_and_the_orders_of_its_bar_share_the_volume() -> None:
    model = holding(BUY, "5", stop="95")
    model.submit(order(BUY, "1", stop="95", name="o2"))
    assert fills_of(model, volume(bar(1, 100.0, low=94.0), 30.0)) == [(MARKET, "1", "100"), (STOP, "-2", "95")]


def test_orders_wait_behind_a_position_on_its_way_out_and_reductions_go_with_it() -> None:
    model = holding(BUY, "5", stop="95")
    model.on_bars([volume(bar(1, 100.0, low=94.0), 20.0)])
    model.submit(order(BUY, "1", stop="80", name="again"))
    model.submit(order(SELL, "1", reduce_only=True, name="less"))
    assert fills_of(model, volume(bar(2, 93.0), 20.0)) == [(STOP, "-2", "93")]
    model.cancel("again", time=START)
    assert fills_of(model, volume(bar(3, 93.0), 1e6)) == [(STOP, "-1", "93")]
    assert [update.reason for update in model.take_updates()] == [OrderReason.CLIENT, OrderReason.REDUCE_ONLY]


def test_what_is_left_of_a_stop_is_liquidated_where_the_price_falls_on() -> None:
    rules = replace(SHARED, margin=MarginMode.ISOLATED, leverage=Decimal(10), maintenance_rate=Decimal("0.005"))
    falls = volume(bar(1, 100.0, low=80.0), 20.0)
    assert fills_of(holding(BUY, "5", stop="95", rules=rules), falls) == [(STOP, "-2", "95"), (LIQUIDATION, "-3", "90")]
    model = holding(BUY, "5", stop="95", rules=rules)
    model.on_bars([volume(bar(1, 100.0, low=94.0), 20.0)])
    assert fills_of(model, volume(bar(2, 85.0), 1e6)) == [(LIQUIDATION, "-3", "90")]


def test_a_stop_that_could_not_sell_all_bounds_nothing_under_cross_margin() -> None:
    rules = replace(SHARED, margin=MarginMode.CROSS, maintenance_rate=Decimal("0.01"))
    limits = RiskLimits(max_position=5.0, max_leverage=5.0, no_trade_band=0.0, daily_loss_limit=0.0, stop_loss=0.1)
    rows = {name: msgspec.structs.replace(each, maximum_leverage=Decimal(5)) for name, each in instruments(A).items()}
    engine = SimulatedEngine(
        Scripted({(A, 0): 5.0}), rows, AccountSettings(Decimal(10_000), FREE, limits, rules), run_id="a run"
    )
    for each in (bar(0), bar(1)):
        engine.step(batch(volume(each, 1e6)))
    step = engine.step(batch(volume(bar(2, 100.0, low=70.0), 1000.0)))
    assert [(fill.kind, fill.quantity) for fill in step.executions] == [(STOP, 100), (LIQUIDATION, 400)]


def test_no_new_order_is_made_for_a_position_on_its_way_out() -> None:
    script = {(A, number): 1.0 if number == 0 else -1.0 for number in range(5)}
    limits = RiskLimits(no_trade_band=0.0, daily_loss_limit=0.0, stop_loss=0.05)
    engine = SimulatedEngine(
        Scripted(script), instruments(A), AccountSettings(Decimal(10_000), FREE, limits, SHARED), run_id="a run"
    )
    engine.step(batch(volume(bar(0), 1e6)))
    engine.fills.submit(order(SELL, "100", name="gone"))
    engine.fills.cancel("gone", time=START)
    step = engine.step(batch(volume(bar(1, 100.0, low=94.0, close=95.0), 1200.0)))
    assert [fill.kind for fill in step.executions] == [MARKET, STOP]
    assert step.decisions[0].verdicts[-1] is Verdict.ORDER_WORKING
    assert step.decisions[0].orders == ()


def test_half_an_exit_goes_on_after_a_crash_where_it_was() -> None:
    model, restored = holding(BUY, "5", stop="95"), FillModel(FREE, instruments(A), SHARED)
    model.on_bars([volume(bar(1, 100.0, low=94.0), 20.0)])
    text = msgspec.json.encode(model.state())
    restored.restore(msgspec.json.decode(text, type=tuple[BookSide, ...]))
    assert restored.has_working(A)
    assert restored.on_bars([volume(bar(2, 93.0), 20.0)]) == model.on_bars([volume(bar(2, 93.0), 20.0)])


@given(
    st.lists(st.tuples(st.integers(50, 150), st.integers(0, 40), st.integers(0, 40), st.integers(0, 60)), max_size=12),
    st.sampled_from(list(Side)),
    st.integers(1, 9),
)
def test_exits_take_no_more_than_their_share_close_no_more_than_is_held_and_never_gain_from_thin_bars(
    walk: list[tuple[int, int, int, int]], side: Side, quantity: int
) -> None:
    levels = {"stop": "95", "target": "110"} if side is BUY else {"stop": "105", "target": "90"}
    bars = [
        volume(bar(1 + number, float(opened), float(opened + up), float(opened - down)), float(amount))
        for number, (opened, up, down, amount) in enumerate(walk)
    ]
    shared = holding(side, str(quantity), **levels)
    whole = holding(side, str(quantity), rules=replace(SHARED, share_exits=False), **levels)
    cash = {True: Decimal(0), False: Decimal(0)}
    for each in bars:
        found = shared.on_bars([each])
        assert sum((fill.quantity for fill in found), Decimal(0)) <= Decimal(str(0.1 * each.volume)) + Decimal("1e-9")
        assert all(fill.side is not side for fill in found)
        for is_shared, fills in ((True, found), (False, whole.on_bars([each]))):
            cash[is_shared] -= sum((fill.signed_quantity * fill.price for fill in fills), Decimal(0))
    held = shared.books[A].quantity
    assert 0 <= held * side.sign <= quantity
    if not held and not whole.books[A].quantity:
        assert cash[True] <= cash[False]


def test_levels_of_the_future_do_not_change_what_a_bar_let_out() -> None:
    """Whatever comes after a bar, its fills are the same."""
    past = [volume(bar(1, 100.0, low=94.0), 20.0), volume(bar(2, 93.0), 10.0)]
    futures: list[list[Bar]] = [[volume(bar(3, 10.0), 1e6)], [volume(bar(3, 200.0), 0.0)], []]
    seen = [fills_of(holding(BUY, "5", stop="95"), *past, *future)[:2] for future in futures]
    assert seen == [[(STOP, "-2", "95"), (STOP, "-1", "93")]] * 3
