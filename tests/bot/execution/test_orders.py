"""Orders that wait, trigger, fill in parts, are cancelled or refused: what a venue does with each."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest

from bot.execution.fills import PLAIN, BandAction, BookSide, FillModel, FillRules
from bot.orders import ExecutionKind, Order, OrderReason, OrderStatus, Side, TimeInForce, TriggerDirection
from strategies.bars import Bar
from tests.bot.scenes import FREE, START, A, B, bar, instruments, order

BUY, SELL = Side.BUY, Side.SELL
MARKET, LIMIT, TAKEN = ExecutionKind.MARKET, ExecutionKind.LIMIT, ExecutionKind.TAKEN
RISE, FALL = TriggerDirection.RISE, TriggerDirection.FALL


def model_of(*orders: Order, rules: FillRules = PLAIN, price_limit: str = "0", minimum: str = "0") -> FillModel:
    rows = {
        symbol: msgspec.structs.replace(each, price_limit=Decimal(price_limit), minimum_notional=Decimal(minimum))
        for symbol, each in instruments(A, B).items()
    }
    model = FillModel(FREE, rows, rules)
    for each in orders:
        model.submit(each)
    return model


def fills_of(model: FillModel, *bars: Bar) -> list[tuple[ExecutionKind, str, str]]:
    found = [execution for each in bars for execution in model.on_bars([each])]
    return [(fill.kind, f"{fill.signed_quantity.normalize():f}", f"{fill.price.normalize():f}") for fill in found]


def told(model: FillModel) -> list[tuple[OrderStatus, OrderReason | None]]:
    return [(update.status, update.reason) for update in model.take_updates()]


def changed(base: Order, **changes: object) -> Order:
    return msgspec.structs.replace(base, **changes)


def volume(each: Bar, amount: float) -> Bar:
    return msgspec.structs.replace(each, volume=amount)


SHARE = replace(PLAIN, participation=0.1)


def test_an_order_larger_than_its_share_of_the_volume_fills_in_parts_over_several_bars() -> None:
    model = model_of(order(BUY, "5"), rules=SHARE)
    (first,) = model.on_bars([volume(bar(0, 100.0), 20.0)])
    assert (first.execution_id, first.quantity) == ("o1-f1", 2)
    (waits,) = model.working(A)
    assert (waits.filled, waits.average_price, waits.remaining) == (2, 100, 3)
    assert model.on_bars([volume(bar(1, 110.0), 0.0)]) == []
    (second,) = model.on_bars([volume(bar(2, 102.0), 20.0)])
    assert (second.execution_id, second.quantity) == ("o1-f2", 2)
    (last,) = model.on_bars([volume(bar(3, 103.0), 20.0)])
    assert (last.execution_id, last.quantity) == ("o1-f3", 1)
    assert model.working(A) == ()
    assert model.state()[0].progress == {}


def test_orders_of_one_bar_share_its_volume() -> None:
    model = model_of(order(BUY, "2"), order(BUY, "2", name="o2"), rules=SHARE)
    assert fills_of(model, volume(bar(0), 30.0)) == [(MARKET, "2", "100"), (MARKET, "1", "100")]
    assert [each.order.client_order_id for each in model.working(A)] == ["o2"]


def test_what_cannot_be_filled_at_once_is_cancelled_where_the_order_says_so() -> None:
    model = model_of(changed(order(BUY, "5"), time_in_force=TimeInForce.IOC), rules=SHARE)
    assert fills_of(model, volume(bar(0), 20.0)) == [(MARKET, "2", "100")]
    (update,) = model.take_updates()
    assert (update.status, update.reason) == (OrderStatus.CANCELLED, OrderReason.IMMEDIATE_OR_CANCEL)
    assert (update.filled, update.average_price) == (2, 100)
    assert not model.has_working(A)


@pytest.mark.parametrize(("amount", "filled"), [(20.0, False), (50.0, True)])
def test_all_or_nothing_is_filled_of_an_order_that_says_so(amount: float, filled: bool) -> None:
    model = model_of(changed(order(BUY, "5"), time_in_force=TimeInForce.FOK), rules=SHARE)
    assert bool(fills_of(model, volume(bar(0), amount))) == filled
    assert told(model) == ([] if filled else [(OrderStatus.CANCELLED, OrderReason.FILL_OR_KILL)])


def test_a_limit_order_that_may_not_take_is_cancelled_where_it_would() -> None:
    def sent() -> FillModel:
        return model_of(changed(order(BUY, "1", limit="99"), time_in_force=TimeInForce.POST_ONLY))

    model = sent()
    assert fills_of(model, bar(0, 98.0)) == []
    assert told(model) == [(OrderStatus.CANCELLED, OrderReason.POST_ONLY)]
    model = sent()
    assert fills_of(model, bar(0, 100.0, low=98.0)) == [(LIMIT, "1", "99")]
    assert told(model) == [(OrderStatus.RESTING, None)]


@pytest.mark.parametrize("force", [TimeInForce.IOC, TimeInForce.FOK])
def test_a_limit_order_for_at_once_does_not_wait(force: TimeInForce) -> None:
    model = model_of(changed(order(BUY, "1", limit="99"), time_in_force=force))
    assert fills_of(model, bar(0, 100.0, low=90.0)) == []
    assert [status for status, _ in told(model)] == [OrderStatus.CANCELLED]
    model = model_of(changed(order(BUY, "1", limit="101"), time_in_force=force))
    assert fills_of(model, bar(0, 100.0)) == [(TAKEN, "1", "101")]


def test_a_limit_order_that_takes_gets_the_price_of_the_market_where_that_is_known() -> None:
    rules = replace(PLAIN, improve_limits=True)
    assert fills_of(model_of(order(BUY, "1", limit="110"), rules=rules), bar(0, 100.0)) == [(TAKEN, "1", "100")]


def conditional(side: Side, trigger: str, direction: TriggerDirection, **changes: object) -> Order:
    return changed(order(side, "1"), trigger_price=Decimal(trigger), trigger_direction=direction, **changes)


@pytest.mark.parametrize(
    ("side", "trigger", "direction", "extreme"),
    [(BUY, "105", RISE, (105.0, 100.0)), (SELL, "95", FALL, (100.0, 95.0)), (BUY, "95", FALL, (100.0, 95.0))],
)
def test_a_conditional_order_waits_outside_the_market_until_its_price_is_touched(
    side: Side, trigger: str, direction: TriggerDirection, extreme: tuple[float, float]
) -> None:
    model = model_of(conditional(side, trigger, direction))
    assert fills_of(model, bar(0, 100.0, 104.0, 96.0)) == []
    assert told(model) == []
    assert fills_of(model, bar(1, 100.0, *extreme)) == [(MARKET, "1" if side is BUY else "-1", trigger)]
    assert told(model) == [(OrderStatus.TRIGGERED, None)]


def test_a_conditional_order_whose_price_the_open_has_passed_fills_at_the_open() -> None:
    assert fills_of(model_of(conditional(SELL, "95", FALL)), bar(0, 90.0)) == [(MARKET, "-1", "90")]


def test_a_conditional_limit_order_begins_to_wait_once_triggered_and_fills_in_a_later_bar() -> None:
    model = model_of(changed(order(BUY, "1", limit="99"), trigger_price=Decimal(105), trigger_direction=RISE))
    assert fills_of(model, bar(0, 100.0, 106.0, 98.0)) == []
    assert told(model) == [(OrderStatus.TRIGGERED, None), (OrderStatus.RESTING, None)]
    (waits,) = model.working(A)
    assert (waits.triggered, waits.rests) == (True, True)
    assert fills_of(model, bar(1, 100.0, low=98.0)) == [(LIMIT, "1", "99")]


def test_an_order_that_closes_on_its_trigger_closes_all_and_never_opens() -> None:
    closing = changed(conditional(SELL, "95", FALL, close_on_trigger=True, client_order_id="o2"), quantity=Decimal(0))
    model = model_of(order(BUY, "3"), closing)
    assert fills_of(model, bar(0), bar(1, 100.0, low=94.0)) == [(MARKET, "3", "100"), (MARKET, "-3", "95")]
    model = model_of(closing)
    assert fills_of(model, bar(0, 100.0, low=94.0)) == []
    assert told(model)[-1] == (OrderStatus.CANCELLED, OrderReason.REDUCE_ONLY)


def test_a_stop_order_that_reduces_comes_before_a_limit_order_that_takes_the_profit() -> None:
    stop = conditional(SELL, "95", FALL, reduce_only=True, client_order_id="stop")
    target = order(SELL, "1", limit="105", reduce_only=True, name="target")
    model = model_of(order(BUY, "1"), target, stop)
    assert fills_of(model, bar(0), bar(1, 100.0, 106.0, 94.0)) == [(MARKET, "1", "100"), (MARKET, "-1", "95")]
    assert told(model)[-1] == (OrderStatus.CANCELLED, OrderReason.REDUCE_ONLY)
    assert not model.has_working(A)


def test_an_order_can_be_cancelled_with_what_is_filled_of_it_and_only_while_it_waits() -> None:
    model = model_of(order(BUY, "5"), rules=SHARE)
    model.on_bars([volume(bar(0), 20.0)])
    update = model.cancel("o1", time=START)
    assert update is not None
    assert (update.status, update.reason, update.filled) == (OrderStatus.CANCELLED, OrderReason.CLIENT, 2)
    assert model.cancel("o1", time=START) is None
    assert fills_of(model, volume(bar(1), 1000.0)) == []
    assert model.take_updates() == (update,)


def test_an_amended_order_keeps_its_fills_and_a_new_price_comes_to_the_market_anew() -> None:
    model = model_of(order(BUY, "5", limit="95"))
    model.on_bars([bar(0)])
    model.take_updates()
    assert model.amend("o1", time=START, quantity=Decimal(3), limit_price=Decimal(101)) is not None
    assert fills_of(model, bar(1, 100.0)) == [(TAKEN, "3", "101")]
    model = model_of(order(BUY, "5"), rules=SHARE)
    model.on_bars([volume(bar(0), 20.0)])
    refused = model.amend("o1", time=START, quantity=Decimal(2))
    assert refused is not None
    assert refused.status is OrderStatus.REFUSED
    model.amend("o1", time=START, quantity=Decimal(3))
    assert fills_of(model, volume(bar(1), 20.0)) == [(MARKET, "1", "100")]
    assert model.amend("o1", time=START, quantity=Decimal(9)) is None


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (changed(order(BUY, "0.0005")), OrderReason.OFF_GRID),
        (order(BUY, "1", limit="99.001"), OrderReason.OFF_GRID),
        (order(BUY, "0.001", limit="99"), OrderReason.BELOW_MINIMUM),
        (order(BUY, "0"), OrderReason.BELOW_MINIMUM),
        (order(BUY, "2000000000"), OrderReason.ABOVE_MAXIMUM),
        (changed(order(BUY, "1"), trigger_price=Decimal(99)), OrderReason.INCOMPLETE),
        (changed(order(BUY, "1", limit="99"), limit_price=None), OrderReason.INCOMPLETE),
    ],
)
def test_an_order_that_no_venue_takes_is_refused_at_the_door(sent: Order, reason: OrderReason) -> None:
    model = model_of(minimum="5")
    assert model.submit(sent) is reason
    assert told(model) == [(OrderStatus.REJECTED, reason)]
    assert not model.has_working(A)


def test_a_position_smaller_than_the_minimum_may_be_closed() -> None:
    model = model_of(order(BUY, "0.01"))
    model.on_bars([bar(0)])
    assert model.submit(order(SELL, "0.01", limit="101", reduce_only=True, name="o2")) is None


@pytest.mark.parametrize(("side", "limit", "edge"), [(BUY, "120", "101"), (SELL, "80", "99")])
def test_a_limit_price_beyond_the_band_is_moved_to_its_edge_or_refused(side: Side, limit: str, edge: str) -> None:
    sign = "1" if side is BUY else "-1"
    model = model_of(order(side, "1", limit=limit), price_limit="0.01")
    assert fills_of(model, bar(0, 100.0)) == [(TAKEN, sign, edge)]
    assert told(model) == [(OrderStatus.AMENDED, OrderReason.PRICE_BAND)]
    rules = replace(PLAIN, price_band=BandAction.REJECT)
    model = model_of(order(side, "1", limit=limit), price_limit="0.01", rules=rules)
    assert fills_of(model, bar(0, 100.0)) == []
    assert told(model) == [(OrderStatus.CANCELLED, OrderReason.PRICE_BAND)]


def test_a_position_can_be_given_levels_without_an_order() -> None:
    model = model_of(order(BUY, "1"))
    assert not model.protect(A, stop_loss=Decimal(95), take_profit=None)
    model.on_bars([bar(0)])
    assert model.protect(A, stop_loss=Decimal(95), take_profit=Decimal(105), name="stop-1")
    (fill,) = model.on_bars([bar(1, 100.0, low=94.0)])
    assert (fill.execution_id, fill.client_order_id, fill.price) == ("stop-1-p1", "stop-1", 95)


def test_a_level_that_is_taken_away_guards_no_more() -> None:
    model = model_of(order(BUY, "1", stop="95"))
    model.on_bars([bar(0)])
    model.protect(A, stop_loss=None, take_profit=None)
    assert fills_of(model, bar(1, 100.0, low=50.0)) == []


def test_a_half_filled_order_goes_on_after_a_crash_where_it_was() -> None:
    model, restored = model_of(order(BUY, "5"), rules=SHARE), model_of(rules=SHARE)
    model.on_bars([volume(bar(0), 20.0)])
    text = msgspec.json.encode(model.state())
    restored.restore(msgspec.json.decode(text, type=tuple[BookSide, ...]))
    assert restored.working(A) == model.working(A)
    assert restored.on_bars([volume(bar(1), 20.0)]) == model.on_bars([volume(bar(1), 20.0)])


def test_an_order_and_a_book_write_only_what_the_first_release_did_not_have() -> None:
    """So that old and new journals hold the same text where nothing is new."""
    assert set(msgspec.to_builtins(order(BUY, "1"))) == {
        "client_order_id", "symbol", "side", "quantity", "decided_at", "bar_open_time",
        "order_type", "limit_price", "reduce_only", "stop_loss", "take_profit",
    }  # fmt: skip
    assert set(msgspec.to_builtins(BookSide(A))) == {
        "symbol", "working", "quantity", "stop_loss", "take_profit", "protected_by", "protective_fills"
    }  # fmt: skip
    special = changed(order(BUY, "1"), time_in_force=TimeInForce.FOK, close_on_trigger=True)
    assert msgspec.json.decode(msgspec.json.encode(special), type=Order) == special


def test_executions_at_levels_keep_counting_where_two_half_filled_orders_set_them_in_turn() -> None:
    model = model_of(order(BUY, "4", limit="99", stop="98"), rules=SHARE)
    fallen = volume(bar(0, 100.0, low=97.0), 15.0)
    names = [fill.execution_id for fill in model.on_bars([fallen])]
    assert names == ["o1-f1", "o1-p1"]
    model.submit(order(BUY, "4", stop="90", name="o2"))
    names += [fill.execution_id for fill in model.on_bars([volume(bar(1, 100.0), 10.0)])]
    assert model.books[A].protected_by == "o2"
    names += [fill.execution_id for fill in model.on_bars([volume(bar(2, 98.5, low=97.0), 60.0)])]
    assert "o1-p2" in names
    assert len(names) == len(set(names))
