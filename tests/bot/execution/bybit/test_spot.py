"""The spot market: coins in the wallet are the position, to the last digit, and fees are paid in them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.config import load_config
from bot.errors import UsageError
from bot.execution.bybit.account_book import AccountBook
from bot.execution.bybit.client import BybitAccount
from bot.execution.bybit.decode import VenueExecution, VenueWallet, decode_executions
from bot.execution.bybit.order_entry import order_parameters
from bot.execution.bybit.reconciliation import JournalView, VenueView, corrected, reconcile
from bot.execution.bybit.snapshot import look_at
from bot.execution.bybit.spot import base_coin, coins_held, fee_of
from bot.execution.fills import FillRules, MarginMode
from bot.execution.instruments import Instrument
from bot.execution.venue_books import VenueBooks
from bot.live_start import require_stop_loss
from bot.market.bybit_rest import BybitRest
from bot.orders import Execution, Order, OrderStatus, OrderUpdate, Side, Transfer
from bot.portfolio import ClosedTrade, Portfolio
from bot.spot_start import coins_outside
from tests.backtest.sandbox.client import RULES, trading_venue
from tests.bot.execution.bybit.test_account import AT_ONCE, account_at, market
from tests.bot.market.scenes import T0

COIN = msgspec.structs.replace(RULES, is_spot=True, maximum_leverage=Decimal(1), lot_size=Decimal("0.001"))
NOTHING_SEEN = VenueView((), (), {})
THIN = FillRules(impact=0.0, latency_ms=0, participation=0.001, queue=0.0, margin=MarginMode.NONE)


def book_for(orders: Iterable[Order], *, outside: str = "0", cash: str = "10000") -> AccountBook:
    rules = {"BTCUSDT": COIN}
    book = AccountBook(
        Portfolio(Decimal(cash), rules), VenueBooks(rules), since=T0, coins={"BTCUSDT": Decimal(outside)}
    )
    for order in orders:
        book.submit(order)
    return book


async def compared(account: BybitAccount, book: AccountBook) -> Any:
    """What a comparison finds, and the wallet after it."""
    asked, asked_at = dict(book.working), book.newest
    view = await look_at(account, [(order.symbol, name) for name, order in asked.items()], book.since, book.coins)
    return book.compare(view, asked, asked_at), (await account.wallet()).coins


def test_after_a_purchase_and_a_sale_journal_and_wallet_agree_to_the_last_digit_and_the_dust_is_left() -> None:
    buy, sell = market("buy", quantity="1.237"), market("sell", Side.SELL, "1.235", reduce_only=True)

    async def run() -> Any:
        async with account_at(trading_venue(), category="spot") as account:
            await account.synchronise()
            book, seen = book_for([buy]), []
            for order in (buy, sell):
                if order is sell:
                    book.submit(sell)
                assert (await account.send(order)).is_accepted
                found, wallet = await compared(account, book)
                held = book.portfolio.positions["BTCUSDT"].quantity
                seen.append((held, wallet["BTC"], book.expected_wallet(NOTHING_SEEN), wallet["USDT"], found.foreign))
                assert not book.working and not book.missing_fills
            again, _ = await compared(account, book)
            return seen, again

    (bought, sold), again = asyncio.run(run())
    assert bought[:2] == (Decimal("1.235763"), Decimal("1.235763"))
    assert sold[:2] == (Decimal("0.000763"), Decimal("0.000763"))
    for _, _, believed, wallet, foreign in (bought, sold):
        assert (believed, foreign) == (wallet, {})
    assert not again.events and not again.unseen and not again.naked


def test_an_order_that_is_filled_in_part_leaves_what_arrived_and_is_over() -> None:
    order = market("parts", quantity="2")

    async def run() -> Any:
        async with account_at(trading_venue(fills=THIN), category="spot") as account:
            await account.synchronise()
            book = book_for([order])
            assert (await account.send(order)).is_accepted
            return book, *await compared(account, book)

    book, found, wallet = asyncio.run(run())
    (update,) = [event for event in found.events if isinstance(event, OrderUpdate)]
    assert (update.status, update.filled) == (OrderStatus.CANCELLED, 1)
    assert not book.working and not found.foreign
    assert book.portfolio.positions["BTCUSDT"].quantity == wallet["BTC"] == Decimal("0.999")
    assert book.expected_wallet(NOTHING_SEEN) == wallet["USDT"]


@pytest.mark.parametrize("restarts", [False, True])
def test_an_order_is_over_when_the_venue_has_filled_it_though_less_of_the_coin_arrived(restarts: bool) -> None:
    order = msgspec.structs.replace(market("o"), quantity=Decimal(2))
    book = book_for([order])
    (first,) = book.executed(fill(Side.BUY, "BTC", "1.2", "1")) or ()
    assert "o" in book.working and not book.missing_fills
    if restarts:
        assert isinstance(first, Execution)
        book = AccountBook(book.portfolio, book.venue, known=["o"], fills=[first], coins=book.coins)
    told = book.executed(fill(Side.BUY, "BTC", "0.8", "2"))
    assert told is not None and len(told) == 1 and not book.working
    assert book.portfolio.positions["BTCUSDT"].quantity == 2 - Decimal("0.004")


def test_coins_that_were_there_are_not_the_runs_and_coins_that_go_are_told() -> None:
    mine, theirs = market("mine"), market("theirs", Side.SELL, "0.5")

    async def run() -> Any:
        async with account_at(trading_venue(coins={"BTC": Decimal(3)}), category="spot") as account:
            await account.synchronise()
            book = book_for([mine], outside="3")
            await account.send(mine)
            before, _ = await compared(account, book)
            held = book.portfolio.positions["BTCUSDT"].quantity
            await account.send(theirs)
            after, _ = await compared(account, book)
            return before.foreign, held, after.foreign

    before, held, after = asyncio.run(run())
    assert (before, held) == ({}, Decimal("0.999"))
    assert after == {"BTCUSDT": "a position of 0.499, the run's is 0.999"}


def test_a_fill_that_was_missed_is_corrected_by_what_arrived_and_one_pass_is_enough() -> None:
    async def run() -> Any:
        async with account_at(trading_venue(), category="spot") as account:
            await account.synchronise()
            await account.send(market("mine"))
            return await look_at(account, [("BTCUSDT", "mine")], T0 - 1000, {"BTCUSDT": Decimal(0)})

    view = asyncio.run(run())
    names = frozenset({"mine"})
    journal = JournalView(names, names, frozenset(), {}, frozenset({"BTCUSDT"}), True)
    found = reconcile(journal, view)
    assert len(found.missed) == 1 and not found.foreign_positions
    after = corrected(journal, found)
    assert after.positions == {"BTCUSDT": Decimal("0.999")}
    assert reconcile(after, view).is_equal


def fill(side: Side, coin: str, quantity: str = "2", name: str = "x") -> VenueExecution:
    wire = {
        "execId": name, "orderId": "v", "orderLinkId": "o", "symbol": "BTCUSDT",
        "execType": "Trade", "side": side.title(), "execQty": quantity,
        "execPrice": "50", "execFee": "0.002", "feeCurrency": coin, "execTime": "5",
    }  # fmt: skip
    (found,) = decode_executions([wire])
    return found


@pytest.mark.parametrize(
    ("side", "coin", "fee", "withheld"),
    [
        (Side.BUY, "BTC", "0.1", "0.002"),
        (Side.BUY, "", "0.1", "0.002"),
        (Side.SELL, "USDT", "0.002", "0"),
        (Side.SELL, "", "0.002", "0"),
        (Side.BUY, "USDT", "0.002", "0"),
        (Side.BUY, "MNT", "0", "0"),
    ],
)
def test_a_fee_is_taken_from_what_is_received_unless_the_venue_names_another_coin(
    side: Side, coin: str, fee: str, withheld: str
) -> None:
    assert fee_of(fill(side, coin)) == (Decimal(fee), Decimal(withheld))


def test_a_spot_order_says_its_unit_and_nothing_of_positions() -> None:
    order = market("m", Side.SELL, "0.5", reduce_only=True, stop_loss=Decimal(90))
    assert order_parameters(order, "spot") == {
        "category": "spot",
        "symbol": "BTCUSDT",
        "side": "Sell",
        "orderType": "Market",
        "qty": "0.5",
        "orderLinkId": "m",
        "marketUnit": "baseCoin",
    }
    assert order_parameters(order, "linear")["category"] == "linear"


def test_rules_of_a_pair_come_from_its_own_fields() -> None:
    async def run() -> dict[str, Instrument]:
        async with trading_venue() as venue:
            rest = BybitRest(venue.rest_url, backoff=AT_ONCE, category="spot")
            try:
                return await rest.instruments(["BTCUSDT"])
            finally:
                rest.close()

    assert asyncio.run(run()) == {"BTCUSDT": COIN}


def test_only_pairs_in_usdt_have_a_coin_and_the_wallet_is_read_by_it() -> None:
    assert (base_coin("BTCUSDT"), base_coin("BTCEUR")) == ("BTC", "")
    wallet = VenueWallet(None, None, {"BTC": Decimal("1.5")})
    outside = {"BTCUSDT": Decimal(1), "ETHUSDT": Decimal(0)}
    assert coins_held(wallet, outside) == {"BTCUSDT": Decimal("0.5"), "ETHUSDT": Decimal(0)}


def test_what_is_not_the_runs_is_read_back_from_its_journal() -> None:
    there = Transfer(Decimal("0.25"), True, "", "BTCUSDT")
    money = Transfer(Decimal(5), True, "")
    rules = {"BTCUSDT": COIN, "ETHUSDT": msgspec.structs.replace(COIN, symbol="ETHUSDT")}
    assert coins_outside(rules, [there, money]) == {"BTCUSDT": Decimal("0.25"), "ETHUSDT": Decimal(0)}
    assert coins_outside({"BTCUSDT": RULES}, [there]) is None
    books = VenueBooks(rules)
    for event in (there, money):
        books.apply(event)
    assert books.outside == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["risk.stop_loss=0"], "require_stop_loss = false"),
        (["live.positions=adopt"], "cannot be taken over"),
        (["market.symbols=BTCEUR"], "not paid for in USDT"),
    ],
)
def test_a_spot_run_refuses_what_the_spot_market_has_not(changes: list[str], words: str) -> None:
    wanted = ["market.category=spot"]
    require_stop_loss(load_config(overrides=wanted, environment={}))
    with pytest.raises(UsageError, match=words):
        require_stop_loss(load_config(overrides=[*wanted, *changes], environment={}))


def execution(number: int, side: Side, quantity: Decimal, price: int) -> Execution:
    bought = side is Side.BUY
    kept = quantity / 1000 if bought else Decimal(0)
    fee = kept * price if bought else quantity * price / 1000
    return Execution(str(number), "o", "BTCUSDT", side, quantity, Decimal(price), fee, "market", number, kept)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(10, 5_000), st.integers(10, 500), st.integers(10, 500)), min_size=1, max_size=12))
def test_round_trips_that_leave_dust_end_and_their_profits_add_up(trips: list[tuple[int, int, int]]) -> None:
    """Every whole lot is sold each time: as many trades as sales, cash exact, and no profit is counted twice or lost."""
    portfolio = Portfolio(Decimal(1_000_000), {"BTCUSDT": COIN})
    closed: list[ClosedTrade] = []
    coins, cash = Decimal(0), Decimal(1_000_000)
    for number, (lots, bought_at, sold_at) in enumerate(trips):
        quantity = lots * COIN.lot_size
        portfolio.apply_execution(execution(2 * number, Side.BUY, quantity, bought_at))
        coins, cash = coins + quantity * Decimal("0.999"), cash - quantity * bought_at
        sold = COIN.lots(coins) * COIN.lot_size
        trade = portfolio.apply_execution(execution(2 * number + 1, Side.SELL, sold, sold_at))
        coins, cash = coins - sold, cash + sold * sold_at * Decimal("0.999")
        closed += [trade] if trade is not None else []
        assert (portfolio.positions["BTCUSDT"].quantity, portfolio.cash, portfolio.wallet) == (coins, cash, cash)
        assert portfolio.lots["BTCUSDT"] == 0
    assert len(closed) == len(trips)
    left = portfolio.positions["BTCUSDT"]
    made = sum((trade.profit for trade in closed), Decimal(0))
    assert abs(made - left.cost - (cash - 1_000_000)) < Decimal("1e-15")
