"""The fill model: every rule of its docstring, and that it never flatters the account."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.execution.fills import BookSide, Costs, FillModel
from bot.execution.instruments import Instrument, exact
from bot.orders import ZERO, Execution, ExecutionKind, Order, OrderType, Side
from strategies.bars import Bar
from tests.bot.scenes import FREE, A, B, bar, instruments, order

BUY, SELL = Side.BUY, Side.SELL
MARKET, LIMIT, TAKEN = ExecutionKind.MARKET, ExecutionKind.LIMIT, ExecutionKind.TAKEN
STOP, TARGET = ExecutionKind.STOP_LOSS, ExecutionKind.TAKE_PROFIT


def model_of(*orders: Order, costs: Costs = FREE, tick: str = "0.01") -> FillModel:
    model = FillModel(costs, instruments(A, B, tick=tick))
    for each in orders:
        model.submit(each)
    return model


def fills_of(model: FillModel, *bars: Bar) -> list[tuple[ExecutionKind, str, str]]:
    """Kind, signed quantity and price of all fills that these bars bring."""
    found = [execution for each in bars for execution in model.on_bars([each])]
    return [(fill.kind, f"{fill.signed_quantity.normalize():f}", f"{fill.price.normalize():f}") for fill in found]


def test_a_market_order_fills_whole_at_the_next_open_and_is_named_after_itself() -> None:
    model = model_of(order(BUY, "2", name="id-7"))
    assert model.has_working(A)
    assert not model.has_working(B)
    (fill,) = model.on_bars([bar(3, 101.0, 105.0, 95.0, 104.0)])
    assert fill == Execution("id-7-f", "id-7", A, BUY, Decimal(2), Decimal(101), ZERO, MARKET, bar(3).open_time)
    assert not model.has_working(A)
    assert model.on_bars([bar(4)]) == []


def test_an_order_waits_while_only_other_symbols_have_bars() -> None:
    model = model_of(order(BUY, "1"))
    assert fills_of(model, bar(1, symbol=B), bar(2, symbol=B)) == []
    assert fills_of(model, bar(3, 90.0)) == [(MARKET, "1", "90")]


@pytest.mark.parametrize(("side", "price"), [(BUY, "100.02"), (SELL, "99.98")])
def test_slippage_and_tick_rounding_go_against_the_account(side: Side, price: str) -> None:
    """100 moved by a basis point is 100.01 or 99.99; moved by a little more it is the next tick, never the nearest."""
    costs = Costs(slippage=Decimal("0.000101"), taker_fee=ZERO)
    assert fills_of(model_of(order(side, "1"), costs=costs), bar(0, 100.0))[0][2] == price


@pytest.mark.parametrize(("side", "price"), [(BUY, "100.5"), (SELL, "100")])
def test_an_open_between_two_ticks_is_rounded_against_the_account_even_without_slippage(side: Side, price: str) -> None:
    assert fills_of(model_of(order(side, "1"), tick="0.5"), bar(0, 100.25))[0][2] == price


def test_a_sale_never_brings_less_than_one_tick() -> None:
    costs = Costs(slippage=Decimal("0.9"))
    assert fills_of(model_of(order(SELL, "1"), costs=costs), bar(0, 0.01))[0][2] == "0.01"


def test_market_orders_stops_and_targets_pay_the_taker_fee_and_limits_the_maker_fee() -> None:
    costs = Costs(taker_fee=Decimal("0.001"), maker_fee=Decimal("0.0002"), slippage=ZERO)
    model = model_of(order(BUY, "2", stop="90"), costs=costs)
    fees = [fill.fee for each in (bar(0, 100.0), bar(1, 95.0, low=89.0)) for fill in model.on_bars([each])]
    assert fees == [Decimal("0.2"), Decimal("0.18")]
    model = model_of(order(BUY, "2", limit="95", target="110"), costs=costs)
    fees = [fill.fee for each in (bar(0, 100.0, low=94.0), bar(1, 100.0, 111.0)) for fill in model.on_bars([each])]
    assert fees == [Decimal("0.038"), Decimal("0.22")]


@pytest.mark.parametrize(
    ("side", "touched", "passed"), [(BUY, (100.0, 95.0), (100.0, 94.99)), (SELL, (105.0, 100.0), (105.01, 100.0))]
)
def test_a_limit_order_needs_the_price_to_go_through_not_only_to_touch(
    side: Side, touched: tuple[float, float], passed: tuple[float, float]
) -> None:
    limit = "95" if side is BUY else "105"
    model = model_of(order(side, "1", limit=limit))
    assert fills_of(model, bar(0, 100.0, *touched)) == []
    assert model.has_working(A)
    assert fills_of(model, bar(1, 100.0, *passed)) == [(LIMIT, "1" if side is BUY else "-1", limit)]
    assert not model.has_working(A)


def test_a_limit_order_gains_nothing_from_an_open_beyond_its_limit() -> None:
    """Whether it takes on arrival, or has waited."""
    assert fills_of(model_of(order(BUY, "1", limit="95")), bar(0, 90.0)) == [(TAKEN, "1", "95")]
    assert fills_of(model_of(order(BUY, "1", limit="95")), bar(0), bar(1, 90.0)) == [(LIMIT, "1", "95")]


@pytest.mark.parametrize(
    ("side", "stop", "extreme"),
    [(BUY, "95", (101.0, 95.0)), (SELL, "105", (105.0, 99.0))],
)
def test_a_stop_fills_at_its_level_when_touched_in_the_bar_of_the_entry_too(
    side: Side, stop: str, extreme: tuple[float, float]
) -> None:
    sign = "-" if side is BUY else ""
    entered = (MARKET, "1" if side is BUY else "-1", "100")
    assert fills_of(model_of(order(side, "1", stop=stop)), bar(0, 100.0, *extreme)) == [
        entered,
        (STOP, f"{sign}1", stop),
    ]


@pytest.mark.parametrize(("side", "stop", "opened"), [(BUY, "95", 93.0), (SELL, "105", 107.0)])
def test_a_stop_that_the_open_has_passed_fills_at_the_open(side: Side, stop: str, opened: float) -> None:
    model = model_of(order(side, "1", stop=stop))
    assert fills_of(model, bar(0, 100.0), bar(1, opened, 110.0, 90.0))[1][::2] == (STOP, str(int(opened)))


def test_an_entry_that_opens_beyond_its_own_stop_is_stopped_out_at_once() -> None:
    costs = Costs(slippage=Decimal("0.01"), taker_fee=ZERO)
    assert fills_of(model_of(order(BUY, "1", stop="95"), costs=costs), bar(0, 90.0)) == [
        (MARKET, "1", "90.9"),
        (STOP, "-1", "89.1"),
    ]


@pytest.mark.parametrize(
    ("side", "target", "touched", "passed"), [(BUY, "105", 105.0, 105.01), (SELL, "95", 95.0, 94.99)]
)
def test_a_target_needs_the_price_to_go_through(side: Side, target: str, touched: float, passed: float) -> None:
    model = model_of(order(side, "1", target=target))
    first, second = (bar(n, 100.0, max(100.0, at), min(100.0, at)) for n, at in enumerate((touched, passed)))
    assert [kind for kind, _, _ in fills_of(model, first)] == [MARKET]
    assert fills_of(model, second) == [(TARGET, "-1" if side is BUY else "1", target)]


@pytest.mark.parametrize(("side", "stop", "extreme"), [(BUY, "95", (101.0, 95.0)), (SELL, "105", (105.0, 99.0))])
def test_a_stop_that_a_later_bar_only_touches_fills(side: Side, stop: str, extreme: tuple[float, float]) -> None:
    model = model_of(order(side, "1", stop=stop))
    model.on_bars([bar(0)])
    assert [(kind, price) for kind, _, price in fills_of(model, bar(1, 100.0, *extreme))] == [(STOP, stop)]


def test_the_levels_of_a_position_guard_it_after_a_crash() -> None:
    model, restored = model_of(order(BUY, "1", stop="95", target="105")), model_of()
    model.on_bars([bar(0)])
    restored.restore(model.state())
    assert fills_of(restored, bar(1, low=94.0)) == [(STOP, "-1", "95")]


@pytest.mark.parametrize(("side", "target", "opened"), [(BUY, "105", 108.0), (SELL, "95", 92.0)])
def test_a_target_that_the_open_has_passed_fills_at_the_open(side: Side, target: str, opened: float) -> None:
    """Also right after an entry there: nothing is ever filled at a price that the bar did not trade."""
    at_open = str(int(opened))
    model = model_of(order(side, "1", target=target))
    assert fills_of(model, bar(0, 100.0), bar(1, opened))[1][::2] == (TARGET, at_open)
    assert [price for _, _, price in fills_of(model_of(order(side, "1", target=target)), bar(0, opened))] == [
        at_open
    ] * 2


@pytest.mark.parametrize("side", list(Side))
def test_the_stop_comes_before_the_target_in_a_bar_that_touches_both(side: Side) -> None:
    stop, target = ("95", "105") if side is BUY else ("105", "95")
    model = model_of(order(side, "1", stop=stop, target=target))
    assert fills_of(model, bar(0, 100.0, 120.0, 80.0))[1:] == [(STOP, "-1" if side is BUY else "1", stop)]


def test_triggered_stops_and_targets_are_worsened_by_the_slippage() -> None:
    costs = Costs(slippage=Decimal("0.01"), taker_fee=ZERO)
    longs = model_of(order(BUY, "1", stop="90", target="110"), costs=costs)
    assert fills_of(longs, bar(0), bar(1, low=89.0))[1] == (STOP, "-1", "89.1")
    shorts = model_of(order(SELL, "1", stop="110", target="90"), costs=costs)
    assert fills_of(shorts, bar(0), bar(1, low=89.0))[1] == (TARGET, "1", "90.9")


def test_no_target_fills_in_the_bar_of_a_limit_entry_but_a_stop_does() -> None:
    """The price may have been at the target before it came down to the limit."""
    model = model_of(order(BUY, "1", limit="95", target="105"))
    assert fills_of(model, bar(0, 100.0, 110.0, 94.0)) == [(LIMIT, "1", "95")]
    assert fills_of(model, bar(1, 100.0, 106.0)) == [(TARGET, "-1", "105")]
    model = model_of(order(BUY, "1", limit="95", stop="93", target="105"))
    assert fills_of(model, bar(0, 100.0, 110.0, 92.0)) == [(LIMIT, "1", "95"), (STOP, "-1", "93")]


def test_the_stop_comes_before_a_limit_order_that_would_have_taken_the_position_out() -> None:
    model = model_of(order(BUY, "2", stop="95"))
    model.on_bars([bar(0)])
    model.submit(order(SELL, "2", limit="105", reduce_only=True, name="o2"))
    assert fills_of(model, bar(1, 100.0, 106.0, 94.0)) == [(STOP, "-2", "95")]
    assert not model.has_working(A)


def test_a_limit_order_that_adds_fills_before_the_stop_and_is_stopped_out_too() -> None:
    model = model_of(order(BUY, "2", stop="95"))
    model.on_bars([bar(0)])
    model.submit(order(BUY, "1", limit="97", stop="95", name="o2"))
    assert fills_of(model, bar(1, 100.0, 106.0, 94.0)) == [(LIMIT, "1", "97"), (STOP, "-3", "95")]


def test_a_limit_order_that_turns_the_position_has_its_own_stop_looked_at() -> None:
    model = model_of(order(BUY, "2"))
    model.on_bars([bar(0)])
    model.submit(order(SELL, "3", limit="105", stop="107", name="o2"))
    assert fills_of(model, bar(1, 100.0, 108.0)) == [(LIMIT, "-3", "105"), (STOP, "1", "107")]


def test_a_reduce_only_order_is_cut_to_the_position_and_keeps_its_levels() -> None:
    model = model_of(order(BUY, "2", stop="95", target="105"))
    model.on_bars([bar(0)])
    model.submit(order(SELL, "1", reduce_only=True, name="o2"))
    assert fills_of(model, bar(1)) == [(MARKET, "-1", "100")]
    (book, _) = model.state()
    assert (book.quantity, book.stop_loss, book.take_profit) == (1, 95, 105)
    model.submit(order(SELL, "5", reduce_only=True, name="o3"))
    assert fills_of(model, bar(2)) == [(MARKET, "-1", "100")]
    (book, _) = model.state()
    assert (book.quantity, book.stop_loss, book.take_profit) == (0, None, None)


@pytest.mark.parametrize("side", list(Side))
def test_a_reduce_only_order_does_nothing_without_a_position_or_on_its_side(side: Side) -> None:
    model = model_of(order(side, "1", reduce_only=True))
    assert fills_of(model, bar(0)) == []
    assert not model.has_working(A)
    model = model_of(order(side, "1"), order(side, "1", reduce_only=True, name="o2"))
    assert len(fills_of(model, bar(0))) == 1


def test_the_levels_of_the_newest_order_are_those_in_force() -> None:
    model = model_of(order(BUY, "1", stop="95", name="o1"))
    model.on_bars([bar(0)])
    model.submit(order(BUY, "1", stop="80", name="o2"))
    assert fills_of(model, bar(1, low=94.0), bar(2, low=90.0)) == [(MARKET, "1", "100")]
    (fill,) = model.on_bars([bar(3, low=79.0)])
    assert (fill.execution_id, fill.client_order_id, fill.quantity) == ("o2-p1", "o2", 2)


def test_a_turned_position_is_guarded_by_the_levels_of_the_order_that_turned_it() -> None:
    model = model_of(order(BUY, "1", stop="95", target="105"))
    model.on_bars([bar(0)])
    model.submit(order(SELL, "2", stop="104", target="96", name="o2"))
    assert fills_of(model, bar(1), bar(2, high=104.0)) == [(MARKET, "-2", "100"), (STOP, "1", "104")]


# -- never better than the friendliest order of events ---------------------------------------------------


@st.composite
def wild_bars(draw: st.DrawFn, number: int = 0) -> Bar:
    prices = [cents / 4 for cents in draw(st.lists(st.integers(320, 480), min_size=4, max_size=4))]
    return bar(number, prices[0], max(prices), min(prices), prices[3])


@st.composite
def orders_of(draw: st.DrawFn, name: str) -> Order:
    side = draw(st.sampled_from(list(Side)))
    close = Decimal(100)
    distance = [Decimal(draw(st.integers(1, 60))) / 4 for _ in range(3)]
    stop = close - side.sign * distance[0] if draw(st.booleans()) else None
    target = close + side.sign * distance[1] if draw(st.booleans()) else None
    limit = close - side.sign * distance[2] if draw(st.booleans()) else None
    return Order(
        name,
        A,
        side,
        Decimal(draw(st.integers(1, 4))),
        0,
        0,
        OrderType.MARKET if limit is None else OrderType.LIMIT,
        limit,
        draw(st.booleans()),
        stop,
        target,
    )


worlds = st.tuples(
    st.lists(orders_of("first"), min_size=1, max_size=1),
    st.lists(orders_of("second"), max_size=1),
    st.lists(orders_of("third"), max_size=1),
)
runs = st.lists(wild_bars(), min_size=1, max_size=3)
Account = tuple[Decimal, Decimal]
"""Cash and position."""


def worth(fills: Iterable[Execution], account: Account, mark: float) -> Decimal:
    cash, quantity = account
    for fill in fills:
        cash -= fill.signed_quantity * fill.price + fill.fee
        quantity += fill.signed_quantity
    return cash + quantity * exact(mark)


def friendly_outcomes(book: BookSide, seen: Bar) -> Iterator[Decimal]:
    """Cash plus position at the close after every conceivable order of what this bar can make happen, at no cost.

    Written without the model: a list of things that may happen, tried in all orders. Each happens at its friendliest
    price within the bar. Only market orders have a place in it: the open.
    """
    market = [o for o in book.working if o.order_type is OrderType.MARKET]
    others: list[Order | str] = [
        o for o in book.working if o.limit_price is not None and exact(seen.low) <= o.limit_price <= exact(seen.high)
    ]
    gapped = [
        o
        for o in book.working
        if o.limit_price is not None and o not in others and (seen.low < o.limit_price) == (o.side is BUY)
    ]
    for sequence in permutations([*others, *gapped, "stop", "target"]):
        for length in range(len(sequence) + 1):
            yield happen(book, [*market, *sequence[:length]], seen)


def happen(book: BookSide, sequence: list[Order | str], seen: Bar) -> Decimal:
    low, high = exact(seen.low), exact(seen.high)
    cash, quantity = ZERO, book.quantity
    stop, target = book.stop_loss, book.take_profit
    for each in sequence:
        if isinstance(each, str):
            level = stop if each == "stop" else target
            if level is None or not quantity:
                continue
            is_below = (quantity > 0) == (each == "stop")
            if (low > level) if is_below else (high < level):
                continue
            # The friendliest price on this side of the level that the bar traded.
            best = min(max(level, exact(seen.open)), high) if quantity > 0 else max(min(level, exact(seen.open)), low)
            cash, quantity, stop, target = cash + quantity * best, ZERO, None, None
            continue
        amount = each.quantity
        if each.reduce_only:
            amount = min(amount, abs(quantity)) if quantity * each.side.sign < 0 else ZERO
        if not amount:
            continue
        price = exact(seen.open)
        if each.limit_price is not None:
            price = min(each.limit_price, price) if each.side is BUY else max(each.limit_price, price)
        cash -= each.side.sign * amount * price
        quantity += each.side.sign * amount
        if not each.reduce_only:
            stop, target = each.stop_loss, each.take_profit
        if not quantity:
            stop = target = None
    return cash + quantity * exact(seen.close)


@given(worlds, runs)
def test_the_account_is_never_better_off_than_under_the_friendliest_order_of_events(
    submitted: tuple[list[Order], list[Order], list[Order]], bars: list[Bar]
) -> None:
    model = model_of(costs=Costs(), tick="0.25")
    for orders, seen in zip(submitted, bars, strict=False):
        for each in orders:
            model.submit(each)
        (book, _) = model.state()
        friendliest = max(friendly_outcomes(book, seen))
        assert worth(model.on_bars([seen]), (ZERO, book.quantity), seen.close) <= friendliest


@given(worlds, runs)
def test_fills_lie_on_the_grid_inside_the_bar_and_belong_to_their_orders(
    submitted: tuple[list[Order], list[Order], list[Order]], bars: list[Bar]
) -> None:
    """A limit's own price may lie outside, where the open was better than the limit."""
    model = model_of(tick="0.25")
    names = set()
    position = ZERO
    for number, (orders, seen) in enumerate(zip(submitted, bars, strict=False)):
        for each in orders:
            model.submit(msgspec.structs.replace(each, client_order_id=f"{each.client_order_id}-{number}"))
        for fill in model.on_bars([seen]):
            assert fill.quantity > 0
            assert fill.price % Decimal("0.25") == 0
            assert fill.kind in (LIMIT, TAKEN) or exact(seen.low) <= fill.price <= exact(seen.high)
            assert fill.time == seen.open_time
            assert fill.execution_id not in names
            names.add(fill.execution_id)
            position += fill.signed_quantity
    assert model.state()[0].quantity == position


@given(worlds, runs, st.integers(0, 3))
def test_a_book_that_went_through_the_journal_goes_on_identically(
    submitted: tuple[list[Order], list[Order], list[Order]], bars: list[Bar], cut: int
) -> None:
    unbroken, broken = model_of(costs=Costs(), tick="0.25"), model_of(costs=Costs(), tick="0.25")
    for number, (orders, seen) in enumerate(zip(submitted, bars, strict=False)):
        for each in orders:
            unbroken.submit(each)
            broken.submit(each)
        if number == cut:
            written = msgspec.json.encode(broken.state())
            broken = model_of(costs=Costs(), tick="0.25")
            broken.restore(msgspec.json.decode(written, type=tuple[BookSide, ...]))
        assert broken.on_bars([seen]) == unbroken.on_bars([seen])
        assert broken.state() == unbroken.state()


def test_a_journalled_book_does_not_move_with_the_matching() -> None:
    model = model_of(order(BUY, "1"))
    (book, _) = model.state()
    model.on_bars([bar(0)])
    assert (len(book.working), book.quantity) == (1, 0)


# -- the grid --------------------------------------------------------------------------------------------


@given(st.integers(1, 10**12), st.sampled_from(["0.01", "0.05", "0.25", "0.0001", "3", "10"]))
def test_prices_are_rounded_onto_the_grid_in_the_direction_asked_for(units: int, step: str) -> None:
    grid = Decimal(step)
    instrument = Instrument(A, tick_size=grid, lot_size=grid)
    value = Decimal(units) / 10**5
    floor, ceiling = instrument.floor_price(value), instrument.ceil_price(value)
    assert floor <= value <= ceiling
    assert ceiling - floor in (0, grid)
    assert floor % grid == ceiling % grid == 0
    assert instrument.lots(floor) * grid == floor


@given(st.floats(1e-9, 1e9))
def test_a_price_of_a_candle_becomes_the_shortest_decimal_that_reads_back(price: float) -> None:
    assert float(exact(price)) == price
    assert str(exact(0.1)) == "0.1"
