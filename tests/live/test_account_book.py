"""What a run believes of its account: the same whatever order its messages come in, and put right by one look at the venue."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bot.execution.bybit.account_book import LOOK_BACK_MS, AccountBook
from bot.execution.bybit.decode import ExecutionType, VenueExecution, VenueOrder, VenueOrderStatus
from bot.execution.bybit.reconciliation import VenueView
from bot.execution.instruments import Instrument
from bot.execution.venue_books import VenueBooks
from bot.orders import (
    AccountEvent,
    Execution,
    ExecutionKind,
    Funding,
    Order,
    OrderReason,
    OrderStatus,
    OrderUpdate,
    Side,
    Transfer,
)
from bot.portfolio import Portfolio
from strategies.bars import HOUR_MS

SYMBOL = "BTCUSDT"
T0 = 480_000 * HOUR_MS
CASH = Decimal(10_000)
Message = VenueOrder | VenueExecution
Status = VenueOrderStatus


def order_of(number: int, side: Side, quantity: int) -> Order:
    stop = Decimal(90 if side is Side.BUY else 110)
    return Order(f"run-{number}", SYMBOL, side, Decimal(quantity), T0 + number, T0, stop_loss=stop)


def told(order: Order, status: Status, filled: int = 0) -> VenueOrder:
    number = order.client_order_id
    return VenueOrder(
        f"v-{number}", number, SYMBOL, order.side, status, order.quantity, Decimal(filled), None, "", order.decided_at
    )


def fill_of(order: Order, part: int, quantity: int = 1, **changes: Any) -> VenueExecution:
    values: dict[str, Any] = {
        "execution_id": f"e-{order.client_order_id}-{part}",
        "order_id": f"v-{order.client_order_id}",
        "client_order_id": order.client_order_id,
        "symbol": SYMBOL,
        "kind": ExecutionType.TRADE,
        "side": order.side,
        "quantity": Decimal(quantity),
        "price": Decimal(100 + part),
        "fee": Decimal("0.05"),
        "is_maker": False,
        "stop_type": "",
        "time": order.decided_at,
        "sequence": part,
    }
    return VenueExecution(**{**values, **changes})


def empty_book(**known: Any) -> AccountBook:
    instruments = {SYMBOL: Instrument(SYMBOL)}
    return AccountBook(Portfolio(CASH, instruments), VenueBooks(instruments), **known)


@st.composite
def histories(draw: Any) -> tuple[list[Order], list[Message], VenueView]:
    """Orders of a run, all that the venue ever says of them, and how the account stands in the end."""
    orders, messages, held = [], [], Decimal(0)
    final: list[VenueOrder] = []
    fills: list[VenueExecution] = []
    for number in range(draw(st.integers(1, 4))):
        order = order_of(number, draw(st.sampled_from(list(Side))), draw(st.integers(1, 3)))
        filled = draw(st.integers(0, int(order.quantity)))
        parts = [fill_of(order, part) for part in range(filled)]
        end = told(order, Status.FILLED if filled == order.quantity else Status.CANCELLED, filled)
        messages += [told(order, Status.NEW), *parts, end]
        orders.append(order)
        final.append(end)
        fills += parts
        held += filled * order.side.sign
    stop = None if not held else Decimal(90 if held > 0 else 110)
    return orders, messages, VenueView(tuple(final), tuple(fills), {SYMBOL: held} if held else {}, {SYMBOL: stop})


@st.composite
def received(draw: Any) -> tuple[list[Order], list[Message], list[Message], VenueView]:
    """A history of which some is heard before a look at the venue and some after, in any order, repeated or never."""
    orders, messages, view = draw(histories())
    heard = st.lists(st.sampled_from(messages), max_size=2 * len(messages))
    return orders, draw(heard), draw(heard), view


def hear(book: AccountBook, message: Message) -> list[AccountEvent]:
    if isinstance(message, VenueOrder):
        return book.heard(message)
    events = book.executed(message)
    assert events is not None, "a fill of ours was taken for somebody else's"
    return events


def look(book: AccountBook, view: VenueView) -> tuple[AccountEvent, ...]:
    found = book.compare(view, list(book.working), book.newest)
    assert not found.foreign
    return found.events


def believed(book: AccountBook) -> Any:
    return book.portfolio.positions[SYMBOL].quantity, book.portfolio.cash, book.venue.books[SYMBOL], book.working


@settings(deadline=None)
@given(received())
def test_one_look_at_the_venue_puts_everything_right_and_a_second_finds_nothing(scene):
    orders, before, after, view = scene
    book = empty_book()
    for order in orders:
        book.submit(order)
    events = [event for message in before for event in hear(book, message)]
    events += look(book, view)
    assert book.portfolio.positions[SYMBOL].quantity == view.positions.get(SYMBOL, 0)
    paid = sum((fill.quantity * fill.price * fill.side.sign + fill.fee for fill in view.executions), Decimal(0))
    assert book.portfolio.cash == CASH - paid
    assert not book.working
    fills = [event.execution_id for event in events if isinstance(event, Execution)]
    assert sorted(fills) == sorted(fill.execution_id for fill in view.executions)
    ends = [event.client_order_id for event in events if isinstance(event, OrderUpdate)]
    cut_short = [order.client_order_id for order in view.orders if order.status is Status.CANCELLED]
    assert sorted(ends) == sorted(cut_short), "an order that was filled whole needs no word more"
    state = believed(book)
    assert look(book, view) == ()
    assert [event for message in after for event in hear(book, message)] == []
    assert believed(book) == state


@settings(deadline=None)
@given(received())
def test_whoever_applies_the_events_believes_what_the_book_believes(scene):
    orders, before, after, view = scene
    book, run = empty_book(), empty_book()
    events: list[AccountEvent] = []
    for order in orders:
        book.submit(order)
        run.venue.submit(order)
    for message in before:
        events += hear(book, message)
    events += look(book, view)
    for message in after:
        events += hear(book, message)
    for event in events:
        run.venue.apply(event)
        if isinstance(event, Execution):
            run.portfolio.apply_execution(event)
    assert believed(run) == believed(book)


@settings(deadline=None)
@given(received(), st.integers(0, 40))
def test_a_book_made_again_from_the_journal_goes_on_as_if_nothing_had_happened(scene, cut):
    """What was heard after the crash's last commit is asked for, and nothing is booked twice."""
    orders, before, after, view = scene
    book = empty_book()
    for order in orders:
        book.submit(order)
    journal: list[AccountEvent] = []
    for message in before[:cut]:
        journal += hear(book, message)
    state = empty_book()
    for order in orders:
        state.venue.submit(order)
    for event in journal:
        state.venue.apply(event)
        if isinstance(event, Execution):
            state.portfolio.apply_execution(event)
    again = AccountBook(
        state.portfolio,
        state.venue,
        known=[order.client_order_id for order in orders],
        fills=[event for event in journal if isinstance(event, Execution)],
        since=T0,
        newest=T0 + 48 * HOUR_MS,
    )
    events = [event for message in after for event in hear(again, message)]
    events += look(again, view)
    booked = [event.execution_id for event in [*journal, *events] if isinstance(event, Execution)]
    assert sorted(booked) == sorted(fill.execution_id for fill in view.executions)
    assert again.portfolio.positions[SYMBOL].quantity == view.positions.get(SYMBOL, 0)
    assert not again.working


def test_after_a_restart_fills_are_asked_for_from_the_first_order_on_however_far_bars_have_come():
    """Bars may have gone on for hours while fills were not told, and then the process ended."""
    book = empty_book(since=T0, newest=T0 + 5 * HOUR_MS)
    assert book.since == T0
    look(book, VenueView((), (), {}))
    assert book.since == T0 + 5 * HOUR_MS - LOOK_BACK_MS


def test_what_happens_while_the_venue_is_asked_does_not_move_what_is_asked_for_next():
    book = empty_book(since=T0)
    asked_at = book.newest
    book.heard(told(order_of(0, Side.BUY, 1), Status.NEW))
    book.expect(Order("run-9", SYMBOL, Side.BUY, Decimal(1), T0 + 9 * HOUR_MS, T0))
    book.compare(VenueView((), (), {}), [], asked_at)
    assert book.since <= T0


@settings(deadline=None)
@given(received(), st.integers(1, 3))
def test_what_somebody_else_does_is_told_and_never_booked(scene, quantity):
    orders, before, _, view = scene
    book = empty_book()
    for order in orders:
        book.submit(order)
    for message in before:
        hear(book, message)
    theirs = Order("by-hand", SYMBOL, Side.BUY, Decimal(quantity), T0, T0)
    assert book.executed(fill_of(theirs, 0, quantity)) is None
    held = view.positions.get(SYMBOL, Decimal(0)) + quantity
    waiting = told(theirs, Status.NEW)
    seen = VenueView((*view.orders, waiting), (*view.executions, fill_of(theirs, 0, quantity)), {SYMBOL: held})
    found = book.compare(seen, list(book.working), book.newest)
    assert set(found.foreign) == {SYMBOL}
    assert found.naked == ()
    assert book.portfolio.positions[SYMBOL].quantity == held - quantity


def test_an_order_that_the_venue_never_heard_of_ends_as_lost():
    book = empty_book()
    book.submit(order_of(0, Side.BUY, 1))
    assert book.compare(VenueView((), (), {}), ["run-0"], book.newest).unseen == {"run-0"}
    _, update = book.lost("run-0")
    assert isinstance(update, OrderUpdate)
    assert (update.status, update.reason, book.working) == (OrderStatus.REJECTED, OrderReason.LOST, {})
    assert book.lost("run-0") == []


def test_a_stop_that_fills_names_the_order_that_set_it_and_leaves_the_book_flat():
    book, order = empty_book(), order_of(0, Side.BUY, 2)
    book.submit(order)
    hear(book, fill_of(order, 0, 2))
    stop = fill_of(
        order, 7, 2, side=Side.SELL, client_order_id="", order_id="level", stop_type="StopLoss", execution_id="stop"
    )
    (event,) = hear(book, stop)
    assert isinstance(event, Execution)
    assert (event.client_order_id, event.kind) == ("run-0", ExecutionKind.STOP_LOSS)
    assert (book.venue.books[SYMBOL].quantity, book.venue.books[SYMBOL].stop_loss) == (0, None)


def test_a_position_whose_stop_is_not_at_the_venue_is_naked_only_once_its_order_is_done():
    book, order = empty_book(), order_of(0, Side.BUY, 2)
    book.submit(order)
    hear(book, fill_of(order, 0))
    first = VenueView((told(order, Status.PARTIALLY_FILLED, 1),), (fill_of(order, 0),), {SYMBOL: Decimal(1)})
    assert book.compare(first, ["run-0"], book.newest).naked == ()
    hear(book, fill_of(order, 1))
    both = (fill_of(order, 0), fill_of(order, 1))
    naked = VenueView((), both, {SYMBOL: Decimal(2)}, {SYMBOL: None})
    assert book.compare(naked, [], book.newest).naked == (SYMBOL,)
    safe = VenueView((), both, {SYMBOL: Decimal(2)}, {SYMBOL: Decimal(90)})
    assert book.compare(safe, [], book.newest).naked == ()


def test_an_order_that_adds_to_a_position_without_levels_leaves_those_that_it_has():
    """As the venue does; one that turns the position round brings its own or none."""
    book = empty_book()
    for number, (side, quantity, stop) in enumerate([(Side.BUY, 1, 90), (Side.BUY, 1, None), (Side.SELL, 3, None)]):
        level = None if stop is None else Decimal(stop)
        order = Order(f"run-{number}", SYMBOL, side, Decimal(quantity), T0, T0, stop_loss=level)
        book.submit(order)
        hear(book, fill_of(order, 0, quantity))
        assert book.venue.books[SYMBOL].stop_loss == (90 if number < 2 else None)


@settings(deadline=None)
@given(st.decimals("-50", "50", places=2), st.booleans())
def test_money_that_trading_does_not_explain_is_booked_once(amount, outside):
    book = empty_book()
    flat = VenueView((), (), {})
    wallet = book.expected_wallet(flat) + amount
    if book.explains(wallet, flat):
        assert abs(amount) <= Decimal("0.01")
        return
    _, transfer = book.transferred(wallet, flat, outside=outside)
    assert isinstance(transfer, Transfer)
    assert (transfer.amount, transfer.outside) == (amount, outside)
    assert book.explains(wallet, flat)
    assert book.portfolio.cash == CASH + (0 if outside else amount)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=12))
def test_a_settlement_is_paid_once_however_often_it_is_told(numbers):
    book, order = empty_book(), order_of(0, Side.BUY, 1)
    book.submit(order)
    hear(book, fill_of(order, 0))
    before = book.portfolio.cash
    for number in numbers:
        events = book.executed(
            fill_of(order, 0, kind=ExecutionType.FUNDING, execution_id=f"f-{number}", client_order_id="", order_id="x")
        )
        assert all(isinstance(event, Funding) for event in events or [])
    assert book.portfolio.cash == before - len(set(numbers)) * Decimal("0.05")
