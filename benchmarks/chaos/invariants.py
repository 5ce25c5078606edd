"""What must hold after a rehearsal, whatever went wrong in it: each breach as a sentence."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

from backtest.sandbox.exchange import Exchange
from backtest.sandbox.records import Category, Status, VenueOrder
from backtest.sandbox.venue import SandboxVenue
from benchmarks.chaos.rehearsal import INTERVAL, Rehearsal
from bot.execution.bybit.guarding import wanted_guard
from bot.execution.bybit.spot import base_coin
from bot.journal import schema
from bot.live_engine import LiveEngine
from bot.orders import Execution, Funding, Transfer
from bot.risk import run_token
from strategies.bars import interval_ms

_CENT_OF_A_CENT: Final = Decimal("0.0001")
"""Both sides divide for average prices; what they differ by is no money."""


def breaches(rehearsal: Rehearsal, *, transferred: Decimal | None = Decimal(0)) -> list[str]:
    """All that does not hold.

    Args:
        rehearsal: played to its end.
        transferred: money that came or went other than by the run's trading, in quote units;
            ``None`` where nobody has reckoned that up.
    """
    found = [f"it did not come to rest: {rehearsal.unsettled}"] if rehearsal.unsettled else []
    found += _coins(rehearsal) if _is_spot(rehearsal) else _positions(rehearsal)
    found += _orders(rehearsal)
    found += _fills(rehearsal)
    found += _money(rehearsal, transferred)
    found += _bars(rehearsal)
    report = rehearsal.audit()
    found += [
        f"audit: {each.where}: {each.field}: {each.recorded} is not {each.replayed}" for each in report.differences
    ]
    return found


def exchange_of(venue: SandboxVenue) -> Exchange:
    """The account behind a venue."""
    assert venue.exchange is not None, "the venue has no account"
    return venue.exchange


def orders_of(rehearsal: Rehearsal) -> list[VenueOrder]:
    """What the venue has of the run's orders, in the order of their creation."""
    token = run_token(rehearsal.run_id)
    orders = exchange_of(rehearsal.venue).records.orders.values()
    return [order for order in orders if order.link_id.startswith(f"{token}-")]


def _positions(rehearsal: Rehearsal) -> Iterator[str]:
    """Venue position == bot position, and a stop loss at the venue where the run wants one."""
    engine = rehearsal.run.engine
    assert isinstance(engine, LiveEngine)
    for symbol in rehearsal.scene.symbols:
        (view,) = exchange_of(rehearsal.venue).positions(symbol)
        believed, book = engine.portfolio.positions[symbol].quantity, engine.venue.books[symbol]
        if view.quantity != believed or book.quantity != believed:
            yield f"{symbol}: the venue holds {view.quantity}, the run {believed}, its book {book.quantity}"
        if book.quantity and view.stop_loss != book.stop_loss:
            yield f"{symbol}: the stop loss at the venue is {view.stop_loss}, the run's {book.stop_loss}"


def _is_spot(rehearsal: Rehearsal) -> bool:
    return rehearsal.config.market.category == "spot"


def _coins(rehearsal: Rehearsal) -> Iterator[str]:
    """Coins in the wallet == the run's, and a stop loss of just these at the venue where the run wants one."""
    engine = rehearsal.run.engine
    assert isinstance(engine, LiveEngine)
    exchange = exchange_of(rehearsal.venue)
    wallet = {coin.coin: coin.balance for coin in exchange.coins()}
    for symbol in rehearsal.scene.symbols:
        believed, book = engine.portfolio.positions[symbol].quantity, engine.venue.books[symbol]
        held = wallet.get(base_coin(symbol), Decimal(0))
        if held != believed or book.quantity != believed:
            yield f"{symbol}: the wallet holds {held}, the run {believed}, its book {book.quantity}"
        wanted = wanted_guard(book, engine.portfolio.instruments[symbol])
        guards = [
            (order.quantity, order.trigger_price, order.trigger_direction)
            for order in exchange.open_orders()
            if order.book.category is Category.SPOT and order.book.symbol == symbol and order.is_conditional
        ]
        due = [] if wanted is None else [(wanted.quantity, wanted.trigger, 2)]
        if guards != due:
            yield f"{symbol}: the stop losses at the venue are {guards}, the run wants {due}"


def _orders(rehearsal: Rehearsal) -> Iterator[str]:
    """Each order at most once at the venue, none that the journal does not have, and the same end on both sides."""
    venue = orders_of(rehearsal)
    for name, times in Counter(order.link_id for order in venue).items():
        if times > 1:
            yield f"order {name} is at the venue {times} times"
    known = {order.link_id: order for order in venue}
    written = {
        row["client_order_id"]: row for row in rehearsal.journal.read_rows(schema.orders, run_id=rehearsal.run_id)
    }
    for name in sorted(known.keys() - written.keys()):
        yield f"order {name} is at the venue and not in the journal"
    for name, row in written.items():
        status, order = row["status"], known.get(name)
        if order is None:
            if status != "rejected":
                yield f"order {name} is {status} in the journal and the venue does not know it"
        elif order.is_conditional:
            if status != "intended":
                yield f"order {name} is {status} in the journal and waits at the venue"
        elif status != _END.get(order.status):
            yield f"order {name} is {status} in the journal and {order.status} at the venue"


_END: Final = {
    Status.FILLED: "filled",
    Status.CANCELLED: "cancelled",
    Status.PARTIALLY_FILLED_CANCELLED: "cancelled",
    Status.DEACTIVATED: "cancelled",
    Status.REJECTED: "rejected",
}


def _fills(rehearsal: Rehearsal) -> Iterator[str]:
    """Fills and settlements in the journal == those of the account, by id, quantity, price and fee."""
    exchange = exchange_of(rehearsal.venue)
    ours = {order.order_id for order in orders_of(rehearsal)}
    at_venue = {
        fill.execution_id: (fill.book.symbol, fill.side, fill.quantity, fill.price, fill.fee)
        for fill in exchange.records.executions
        if fill.kind == "Trade" and fill.book.category == rehearsal.config.market.category
        if fill.order_id in ours or (fill.stop_order_type and fill.book.symbol in rehearsal.scene.symbols)
    }
    bought = {fill.execution_id for fill in exchange.records.executions if fill.fee_coin not in ("", "USDT")}
    recorded: list[Execution] = [fill for _, fill in rehearsal.journal.read_executions(rehearsal.run_id)]
    for name, times in Counter(fill.execution_id for fill in recorded).items():
        if times > 1:
            yield f"fill {name} is in the journal {times} times"
    written = {
        fill.execution_id: (
            *(fill.symbol, fill.side, fill.quantity, fill.price),
            # A purchase on the spot market pays its fee in the coin.
            fill.withheld if fill.execution_id in bought else fill.fee,
        )
        for fill in recorded
    }
    yield from _unlike("fill", at_venue, written)
    paid = {
        each.execution_id: (each.book.symbol, each.fee)
        for each in exchange.records.executions
        if each.kind == "Funding" and each.book.symbol in rehearsal.scene.symbols
    }
    events = [event for _, event in rehearsal.journal.read_events(rehearsal.run_id) if isinstance(event, Funding)]
    yield from _unlike("funding", paid, {event.settlement_id: (event.symbol, event.paid) for event in events})


def _unlike(
    what: str, at_venue: Mapping[str, tuple[object, ...]], written: Mapping[str, tuple[object, ...]]
) -> Iterator[str]:
    for name in sorted(at_venue.keys() | written.keys()):
        if at_venue.get(name) != written.get(name):
            yield f"{what} {name} is {at_venue.get(name)} at the venue and {written.get(name)} in the journal"


def _money(rehearsal: Rehearsal, transferred: Decimal | None) -> Iterator[str]:
    """What trading and transfers explain is what the wallet holds."""
    engine = rehearsal.run.engine
    assert isinstance(engine, LiveEngine)
    wallet = next(coin.balance for coin in exchange_of(rehearsal.venue).coins() if coin.coin == "USDT")
    # Not the run's own cost of what it holds: the average price depends on the order in which fills were booked.
    views = [view for symbol in rehearsal.scene.symbols for view in exchange_of(rehearsal.venue).positions(symbol)]
    # Coins are paid for, and are no part of the money.
    held = sum((view.quantity * view.entry_price for view in views if not _is_spot(rehearsal)), Decimal(0))
    believed = engine.portfolio.cash + held + engine.venue.outside
    if abs(wallet - believed) > _CENT_OF_A_CENT:
        yield f"the wallet holds {wallet}, the run explains {believed}"
    events = [event for _, event in rehearsal.journal.read_events(rehearsal.run_id)]
    booked = sum((event.amount for event in events if isinstance(event, Transfer)), Decimal(0))
    if transferred is not None and abs(booked - transferred) > _CENT_OF_A_CENT:
        yield f"transfers of {booked} are in the journal, there were {transferred}"


def _bars(rehearsal: Rehearsal) -> Iterator[str]:
    """No bar is missed, doubled or out of order, but for those that the venue did not have when it was asked."""
    tape = rehearsal.venue.tape
    begin = rehearsal.journal.find_run(rehearsal.run_id).record.warmed_until
    for symbol in rehearsal.scene.symbols:
        decided = [row["open_time"] for row in rehearsal.journal.read_bars(rehearsal.run_id, symbol=symbol)]
        if any(later <= before for before, later in itertools.pairwise(decided)):
            yield f"{symbol}: bars were doubled or out of order"
        known = set(decided)
        closed = range(begin, tape.now(), interval_ms(INTERVAL))
        missing = [time for time in closed if time not in known and (symbol, time) not in tape.withheld]
        if missing:
            yield f"{symbol}: {len(missing)} bars were missed, the first at {missing[0]}"
        if extra := known - set(closed):
            yield f"{symbol}: {len(extra)} bars are none of the venue's"
