"""Which order should guard coins, and when one that the venue has is not that: pure, with properties."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.execution.bybit.account_book import AccountBook
from bot.execution.bybit.decode import VenueOrder, VenueOrderStatus
from bot.execution.bybit.guarding import Guard, guard_order, wanted_guard
from bot.execution.bybit.order_entry import order_parameters
from bot.execution.bybit.reconciliation import VenueView
from bot.execution.fills.book import BookSide, Progress
from bot.execution.venue_books import VenueBooks
from bot.orders import Execution, ExecutionKind, Order, OrderStatus, OrderUpdate, Side, is_guard
from bot.portfolio import Portfolio
from bot.risk import client_order_id, guard_order_id
from tests.bot.execution.bybit.test_account import market
from tests.bot.execution.bybit.test_spot import COIN
from tests.bot.market.scenes import T0

SYMBOL = "BTCUSDT"
STOP = Decimal(90)


def holding(quantity: str, *working: Order, stop_loss: Decimal | None = STOP) -> BookSide:
    return BookSide(SYMBOL, list(working), Decimal(quantity), stop_loss)


@pytest.mark.parametrize(
    ("held", "guarded"),
    [("1.2357", "1.235"), ("0.0009", None), ("0.05", None), ("0.056", "0.056"), ("60", "50"), ("0", None)],
)
def test_whole_lots_are_guarded_that_the_venue_takes_as_an_order(held: str, guarded: str | None) -> None:
    """The least order is worth 5, the largest is of 50 coins."""
    wanted = wanted_guard(holding(held), COIN)
    assert wanted == (None if guarded is None else Guard(Decimal(guarded), STOP))


def test_coins_that_a_sale_takes_are_left_to_it_and_without_a_level_there_is_no_guard() -> None:
    sale = market("s", Side.SELL, "1", reduce_only=True)
    book = holding("1.5", sale)
    assert wanted_guard(book, COIN) == Guard(Decimal("0.500"), STOP)
    book.progress["s"] = Progress(filled=Decimal("0.4"))
    book.quantity = Decimal("1.1")
    assert wanted_guard(book, COIN) == Guard(Decimal("0.500"), STOP)
    assert wanted_guard(holding("1.5", market("b")), COIN) == Guard(Decimal("1.500"), STOP)
    assert wanted_guard(holding("1.5", stop_loss=None), COIN) is None


@given(st.decimals(0, 200, places=6), st.decimals(0, 200, places=3), st.decimals(1, 1000, places=1))
def test_a_guard_and_a_sale_never_take_more_than_is_held(held: Decimal, sold: Decimal, level: Decimal) -> None:
    sale = market("s", Side.SELL, str(sold), reduce_only=True)
    wanted = wanted_guard(holding(str(held), sale, stop_loss=level), COIN)
    if wanted is not None:
        assert wanted.quantity + sold <= held and wanted.quantity % COIN.lot_size == 0
        assert wanted.quantity * level >= COIN.minimum_notional


def test_the_id_of_a_guard_follows_from_the_journal_and_is_told_from_that_of_any_decision() -> None:
    book = holding("1.5")
    wanted = wanted_guard(book, COIN)
    assert wanted is not None
    order = guard_order(wanted, book, "abcdef", T0)
    assert order == guard_order(wanted, book, "abcdef", T0) and order.client_order_id == "abcdef-BTCUSDT-stop1"
    book.guards = 1
    assert guard_order(wanted, book, "abcdef", T0).client_order_id != order.client_order_id
    assert is_guard(order.client_order_id)
    assert len(guard_order_id("abcdef", "A" * 30, 16**6 - 1)) <= 36
    assert not any(is_guard(client_order_id("abcdef", name, T0)) for name in (SYMBOL, "STOPUSDT", "stop"))
    assert order_parameters(order, "spot") == {
        "category": "spot",
        "symbol": SYMBOL,
        "side": "Sell",
        "orderType": "Market",
        "qty": "1.500",
        "orderLinkId": order.client_order_id,
        "triggerPrice": "90",
        "orderFilter": "tpslOrder",
    }


def guarded_book() -> tuple[AccountBook, Order]:
    """A run that holds 1.5 coins under a guard."""
    rules = {SYMBOL: COIN}
    venue = VenueBooks(rules)
    buy = msgspec.structs.replace(market("b"), quantity=Decimal("1.5"), stop_loss=STOP)
    venue.submit(buy)
    book = AccountBook(Portfolio(Decimal(10_000), rules), venue, known=["b"], since=T0, coins={SYMBOL: Decimal(0)})
    filled = Execution("x", "b", SYMBOL, Side.BUY, Decimal("1.5"), Decimal(100), Decimal(0), ExecutionKind.MARKET, T0)
    book.portfolio.apply_execution(filled)
    venue.apply(filled)
    wanted = book.wanted_guard(SYMBOL)
    assert wanted is not None
    guard = guard_order(wanted, venue.books[SYMBOL], "abcdef", T0)
    book.guard(guard)
    return book, guard


def at_venue(guard: Order, **changes: Any) -> VenueOrder:
    waiting = VenueOrder(
        *("v", guard.client_order_id, SYMBOL, Side.SELL, VenueOrderStatus.UNTRIGGERED, guard.quantity, Decimal(0)),
        *(None, "", T0, "tpslOrder", guard.trigger_price, Decimal(100)),
    )
    return msgspec.structs.replace(waiting, **changes)


@pytest.mark.parametrize(
    ("changes", "astray"),
    [
        ({}, False),
        ({"quantity": Decimal(1)}, True),
        ({"trigger_price": Decimal(80)}, True),
        ({"base_price": Decimal(90)}, True),
        ({"base_price": None}, False),
        ({"status": VenueOrderStatus.TRIGGERED, "base_price": Decimal(90)}, False),
        ({"client_order_id": "b"}, False),
    ],
)
def test_a_guard_that_the_venue_has_otherwise_is_noticed(changes: dict[str, Any], astray: bool) -> None:
    book, guard = guarded_book()
    view = VenueView((at_venue(guard, **changes),), (), {SYMBOL: Decimal("1.5")})
    found = book.compare(view, list(book.waiting), book.newest)
    assert bool(found.astray) is astray and not found.foreign


def test_a_guard_that_the_venue_does_not_know_leaves_coins_naked_and_one_that_is_not_the_journals_is_taken_back() -> (
    None
):
    book, guard = guarded_book()
    view = VenueView((), (), {SYMBOL: Decimal("1.5")})
    found = book.compare(view, list(book.waiting), book.newest)
    assert found.naked == (SYMBOL,) and found.unseen == {guard.client_order_id}
    (ended,) = book.heard(at_venue(guard, status=VenueOrderStatus.DEACTIVATED))
    assert isinstance(ended, OrderUpdate) and ended.status is OrderStatus.CANCELLED and not book.waiting
    assert book.compare(view, [], book.newest).naked == (SYMBOL,)
    late = VenueView((at_venue(guard),), (), {SYMBOL: Decimal("1.5")})
    assert [order.order_id for order in book.compare(late, [], book.newest).astray] == ["v"]


def test_what_a_guard_has_sold_ends_it_and_leaves_no_level_behind() -> None:
    book, guard = guarded_book()
    sold = Execution(
        *("y", guard.client_order_id, SYMBOL, Side.SELL, guard.quantity, STOP, Decimal(0)),
        *(ExecutionKind.STOP_LOSS, T0 + 1),
    )
    book.venue.apply(sold)
    side = book.venue.books[SYMBOL]
    assert (side.quantity, side.guard, side.stop_loss, side.protective_fills, side.guards) == (0, None, None, 1, 1)
    assert not side.progress
