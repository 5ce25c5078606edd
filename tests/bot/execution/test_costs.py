"""What a fill costs: size over volume, latency, spread, the queue before a limit order, and that more cost is never better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.execution.fills import PLAIN, BookSide, Costs, FillModel, FillRules
from bot.execution.instruments import exact
from bot.orders import ZERO, Execution, ExecutionKind, Order, OrderType, Side, TimeInForce, TriggerDirection
from bot.portfolio import Portfolio
from strategies.bars import HOUR_MS, Bar
from tests.bot.scenes import FREE, START, A, bar, instruments, order

BUY, SELL = Side.BUY, Side.SELL
SIGMA = 1.0 / (2.0 * math.sqrt(math.log(2.0)))
"""Parkinson's volatility of a bar whose high is twice its low."""


def model_of(*orders: Order, rules: FillRules = PLAIN, costs: Costs = FREE, tick: str = "0.01") -> FillModel:
    model = FillModel(costs, instruments(A, tick=tick), rules)
    for each in orders:
        model.submit(each)
    return model


def volume(each: Bar, amount: float) -> Bar:
    return msgspec.structs.replace(each, volume=amount)


def prices(model: FillModel, *bars: Bar) -> list[float]:
    return [float(fill.price) for each in bars for fill in model.on_bars([each])]


# -- impact and latency ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("quantity", "share"), [("4", 0.04), ("16", 0.16), ("100", 1.0)])
@pytest.mark.parametrize("side", list(Side))
def test_impact_is_volatility_times_the_root_of_size_over_volume(side: Side, quantity: str, share: float) -> None:
    rules = replace(PLAIN, impact=0.5)
    (price,) = prices(model_of(order(side, quantity), rules=rules), volume(bar(0, 100.0, 150.0, 75.0), 100.0))
    assert price == pytest.approx(100.0 * (1 + side.sign * 0.5 * SIGMA * math.sqrt(share)), abs=0.01)


def test_a_stop_pays_for_its_size_but_not_for_the_network() -> None:
    """The venue has it already: what an order pays that is on its way, a level does not."""
    sent = model_of(order(BUY, "4", stop="90"), rules=replace(PLAIN, latency_ms=100))
    assert prices(sent, bar(0), volume(bar(1, 100.0, 170.0, 85.0), 100.0))[1] == 90.0
    large = model_of(order(BUY, "4", stop="90"), rules=replace(PLAIN, impact=1.0))
    stopped = prices(large, bar(0), volume(bar(1, 100.0, 170.0, 85.0), 100.0))[1]
    assert stopped == pytest.approx(90.0 * (1 - SIGMA * math.sqrt(0.04)), abs=0.01)


@pytest.mark.parametrize("side", list(Side))
def test_latency_costs_what_the_price_usually_moves_in_that_time(side: Side) -> None:
    quarter = HOUR_MS // 4
    rules = replace(PLAIN, latency_ms=quarter)
    (price,) = prices(model_of(order(side, "1"), rules=rules), bar(0, 100.0, 150.0, 75.0))
    assert price == pytest.approx(100.0 * (1 + side.sign * SIGMA * 0.5), abs=0.01)


def test_in_a_bar_without_volume_who_trades_is_the_market() -> None:
    (price,) = prices(
        model_of(order(BUY, "1"), rules=replace(PLAIN, impact=1.0)), volume(bar(0, 100.0, 150.0, 75.0), 0.0)
    )
    assert price == pytest.approx(100.0 * (1 + SIGMA), abs=0.01)


def test_a_taker_pays_half_the_spread_and_a_maker_none_of_it() -> None:
    costs = replace(FREE, spread=Decimal("0.02"))
    assert prices(model_of(order(BUY, "1"), costs=costs), bar(0, 100.0)) == [101.0]
    assert prices(model_of(order(SELL, "1"), costs=costs), bar(0, 100.0)) == [99.0]
    assert prices(model_of(order(BUY, "1", limit="95"), costs=costs), bar(0, 100.0, low=94.0)) == [95.0]


@pytest.mark.parametrize("delay", [1, 3])
def test_a_delayed_order_lets_so_many_bars_of_its_symbol_pass(delay: int) -> None:
    model = model_of(order(BUY, "1"), rules=replace(PLAIN, delay_bars=delay))
    seen = [len(model.on_bars([bar(number)])) for number in range(delay + 1)]
    assert seen == [0] * delay + [1]


# -- the queue -------------------------------------------------------------------------------------------


def test_a_limit_order_waits_for_the_volume_that_stood_before_it() -> None:
    """A tenth of 1,000 stands before it; bars go through the limit with half their range, that is with half their volume."""
    model = model_of(order(BUY, "1", limit="95"), rules=replace(PLAIN, queue=0.1))
    assert prices(model, volume(bar(0, 100.0), 1000.0)) == []
    through = bar(1, 95.5, 96.0, 94.0)
    assert prices(model, volume(through, 100.0)) == []
    assert prices(model, volume(through, 90.0)) == []
    assert prices(model, volume(through, 20.0)) == [95.0]


def test_of_what_trades_beyond_a_limit_the_order_gets_its_share_only() -> None:
    model = model_of(order(BUY, "9", limit="95"), rules=replace(PLAIN, participation=0.1))
    model.on_bars([volume(bar(0, 100.0), 100.0)])
    (fill,) = model.on_bars([volume(bar(1, 95.5, 96.0, 94.0), 100.0)])
    assert fill.quantity == 5
    assert fill.kind is ExecutionKind.LIMIT
    (rest,) = model.on_bars([volume(bar(2, 94.0, 95.0, 93.0), 100.0)])
    assert rest.quantity == 4


def test_a_new_price_goes_to_the_end_of_the_queue_and_a_smaller_quantity_does_not() -> None:
    model = model_of(order(BUY, "2", limit="95"), rules=replace(PLAIN, queue=0.1))
    model.on_bars([volume(bar(0), 100.0)])
    model.on_bars([volume(bar(1, 94.0), 6.0)])
    assert model.state()[0].progress["o1"].ahead == 4
    model.amend("o1", time=START, quantity=Decimal(1))
    model.on_bars([volume(bar(2), 100.0)])
    assert model.state()[0].progress["o1"].ahead == 4
    model.amend("o1", time=START, limit_price=Decimal(94))
    model.on_bars([volume(bar(3), 100.0)])
    assert model.state()[0].progress["o1"].ahead == 10


# -- invariants ------------------------------------------------------------------------------------------


@st.composite
def wild_bars(draw: st.DrawFn, number: int) -> Bar:
    values = [cents / 4 for cents in draw(st.lists(st.integers(320, 480), min_size=4, max_size=4))]
    return volume(bar(number, values[0], max(values), min(values), values[3]), draw(st.integers(0, 60)) / 2)


@st.composite
def any_order(draw: st.DrawFn, name: str) -> Order:
    side = draw(st.sampled_from(list(Side)))

    def level() -> Decimal:
        return Decimal(draw(st.integers(320, 480))) / 4

    limit = level() if draw(st.booleans()) else None
    trigger = level() if draw(st.integers(0, 2)) == 0 else None
    return Order(
        name,
        A,
        side,
        Decimal(draw(st.integers(1, 12))) / 2,
        START,
        START,
        OrderType.MARKET if limit is None else OrderType.LIMIT,
        limit,
        draw(st.booleans()),
        level() if draw(st.booleans()) else None,
        level() if draw(st.booleans()) else None,
        draw(st.sampled_from(list(TimeInForce))) if limit is not None else TimeInForce.GTC,
        trigger,
        None if trigger is None else draw(st.sampled_from(list(TriggerDirection))),
    )


@st.composite
def worlds(draw: st.DrawFn) -> list[tuple[list[Order], Bar]]:
    """What is sent before each bar, and the bar."""
    return [
        ([draw(any_order(f"o{number}-{each}")) for each in range(draw(st.integers(0, 2)))], draw(wild_bars(number)))
        for number in range(draw(st.integers(1, 6)))
    ]


rule_sets = st.builds(
    FillRules,
    impact=st.sampled_from([0.0, 1.0]),
    latency_ms=st.sampled_from([0, 1000]),
    delay_bars=st.sampled_from([0, 1]),
    participation=st.sampled_from([0.0, 0.1, 0.5]),
    queue=st.sampled_from([0.0, 0.1]),
    improve_limits=st.booleans(),
    leverage=st.sampled_from([Decimal(1), Decimal(10)]),
)


def run(world: Sequence[tuple[list[Order], Bar]], rules: FillRules, costs: Costs = FREE) -> list[list[Execution]]:
    """Executions bar by bar."""
    model = model_of(rules=rules, costs=costs, tick="0.25")
    found = []
    for orders, seen in world:
        for each in orders:
            model.submit(each)
        found.append(model.on_bars([seen]))
    return found


@given(worlds(), rule_sets)
def test_an_account_only_ever_changes_by_its_fills(world: list[tuple[list[Order], Bar]], rules: FillRules) -> None:
    """The position is the sum of the fills, and cash is what they cost with their fees."""
    model = model_of(rules=rules, costs=Costs(), tick="0.25")
    portfolio = Portfolio(Decimal(1000), instruments(A))
    cash, position = Decimal(1000), ZERO
    for orders, seen in world:
        for each in orders:
            model.submit(each)
        for fill in model.on_bars([seen]):
            portfolio.apply_execution(fill)
            cash -= fill.signed_quantity * fill.price + fill.fee
            position += fill.signed_quantity
        assert portfolio.cash == cash
        assert portfolio.positions[A].quantity == position == model.books[A].quantity


@given(worlds(), rule_sets)
def test_no_fill_is_better_than_its_limit_or_more_than_was_ordered(
    world: list[tuple[list[Order], Bar]], rules: FillRules
) -> None:
    """But for orders that take where the market's price is known: those may get it, never a worse one than their limit."""
    orders = {each.client_order_id: each for sent, _ in world for each in sent}
    filled: dict[str, Decimal] = {}
    names = set()
    for fill in (fill for found in run(world, rules) for fill in found):
        assert fill.execution_id not in names
        names.add(fill.execution_id)
        sent = orders[fill.client_order_id]
        if fill.kind not in (ExecutionKind.MARKET, ExecutionKind.LIMIT, ExecutionKind.TAKEN):
            continue
        filled[sent.client_order_id] = filled.get(sent.client_order_id, ZERO) + fill.quantity
        assert ZERO < filled[sent.client_order_id] <= sent.quantity
        assert fill.side is sent.side
        if sent.limit_price is not None:
            gain = sent.side.sign * (sent.limit_price - fill.price)
            assert gain >= 0 if rules.improve_limits and fill.kind is ExecutionKind.TAKEN else gain == 0


@given(worlds(), rule_sets)
def test_an_order_that_only_reduces_never_opens_or_turns(
    world: list[tuple[list[Order], Bar]], rules: FillRules
) -> None:
    reducing = {each.client_order_id for sent, _ in world for each in sent if each.reduce_only}
    position = ZERO
    for fill in (fill for found in run(world, rules) for fill in found):
        after = position + fill.signed_quantity
        if fill.client_order_id in reducing:
            assert abs(after) < abs(position)
            assert after * position >= 0
        position = after


@given(worlds(), rule_sets, st.integers(0, 5), wild_bars(0))
def test_what_a_later_bar_is_changes_no_earlier_fill(
    world: list[tuple[list[Order], Bar]], rules: FillRules, cut: int, other: Bar
) -> None:
    changed = [
        (orders, seen if number < cut else msgspec.structs.replace(other, open_time=seen.open_time))
        for number, (orders, seen) in enumerate(world)
    ]
    assert run(changed, rules)[:cut] == run(world, rules)[:cut]


@given(worlds(), rule_sets)
def test_a_book_that_went_through_the_journal_after_every_bar_goes_on_identically(
    world: list[tuple[list[Order], Bar]], rules: FillRules
) -> None:
    unbroken, broken = model_of(rules=rules, tick="0.25"), model_of(rules=rules, tick="0.25")
    for orders, seen in world:
        for each in orders:
            unbroken.submit(each)
            broken.submit(each)
        assert broken.on_bars([seen]) == unbroken.on_bars([seen])
        text = msgspec.json.encode(broken.state())
        assert text == msgspec.json.encode(unbroken.state())
        broken = model_of(rules=rules, tick="0.25")
        broken.restore(msgspec.json.decode(text, type=tuple[BookSide, ...]))


costs_of = st.builds(
    lambda amounts: (
        Costs(*[Decimal(amount) / 10_000 for amount in amounts[:4]]),
        replace(PLAIN, impact=amounts[4] / 4, latency_ms=amounts[5] * 1000),
    ),
    st.lists(st.integers(0, 8), min_size=6, max_size=6),
)


def equity(found: Sequence[list[Execution]], world: Sequence[tuple[list[Order], Bar]]) -> list[Decimal]:
    cash = position = ZERO
    curve = []
    for fills, (_, seen) in zip(found, world, strict=True):
        for fill in fills:
            cash -= fill.signed_quantity * fill.price + fill.fee
            position += fill.signed_quantity
        curve.append(cash + position * exact(seen.close))
    return curve


@given(worlds(), costs_of, costs_of)
def test_more_of_any_cost_never_gives_a_better_account_for_the_same_orders(
    world: list[tuple[list[Order], Bar]], one: tuple[Costs, FillRules], more: tuple[Costs, FillRules]
) -> None:
    """Holds for fees, slippage, spread, impact and latency: they change the price of a fill, never whether there is one.

    It does not hold for participation, queue, delay and margin, which change which fills there are: a fill that is missed
    can turn out to have been lucky.
    """
    worst = Costs(
        *[
            max(getattr(one[0], name), getattr(more[0], name))
            for name in ("taker_fee", "maker_fee", "slippage", "spread")
        ]
    )
    rules = replace(
        PLAIN,
        impact=max(one[1].impact, more[1].impact),
        latency_ms=max(one[1].latency_ms, more[1].latency_ms),
    )
    cheap, dear = run(world, one[1], one[0]), run(world, rules, worst)
    assert [len(fills) for fills in cheap] == [len(fills) for fills in dear]
    assert all(low <= high for low, high in zip(equity(dear, world), equity(cheap, world), strict=True))
