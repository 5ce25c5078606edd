"""How a live run begins: the account is looked at, set up, and taken over or refused; nothing of it is guessed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Final

import msgspec

from bot.config import Config
from bot.errors import UsageError, VenueError
from bot.execution.bybit.account_book import AccountBook
from bot.execution.bybit.client import SETTLE_COIN, BybitAccount, Refused
from bot.execution.bybit.decode import VenuePosition
from bot.execution.instruments import Instrument
from bot.execution.venue_books import VenueBooks
from bot.journal import Journal, schema
from bot.live_engine import LiveEngine
from bot.market.instrument_book import InstrumentBook, InstrumentSource, filter_changes
from bot.orders import AccountEvent, Execution, ExecutionKind, Funding, Notice, NoticeKind, RuleChange, Side, Transfer
from bot.portfolio import Portfolio
from bot.run import Run
from bot.spot_start import coins_outside, coins_there, require_spot_settings

_LEAST_CASH: Final = Decimal(1)


class Opening(msgspec.Struct, frozen=True):
    """What a new run takes over from the account."""

    cash: Decimal
    """What it may trade with, in quote units."""
    costs: dict[str, Decimal]
    """Fees that the venue charges it; empty where the venue does not tell."""
    events: tuple[AccountEvent, ...]
    """What the journal must begin with."""


def require_consent(config: Config, real_money: bool) -> None:
    """
    Raises:
        UsageError: real money would be traded, and not both the configuration and the command say so.
    """
    if config.venue.name != "bybit":
        return
    if config.live.mode != "live" or not real_money:
        raise UsageError(
            'this would trade real money; set live.mode = "live" in config.toml and give --real-money, or choose '
            "--venue testnet, demo or sandbox"
        )


def require_stop_loss(config: Config) -> None:
    """
    Raises:
        UsageError: positions could be without a stop loss, and the configuration does not allow it.
    """
    require_spot_settings(config)
    if config.live.require_stop_loss and not config.risk.stop_loss:
        raise UsageError(
            "risk.stop_loss is 0, so positions could stand at the venue with nothing that closes them; set it, or set "
            "live.require_stop_loss = false"
        )


async def set_leverage(account: BybitAccount, config: Config, instruments: Iterable[Instrument]) -> None:
    """Give every contract more leverage than the risk limits may use, where it has less: fees and losses need margin, too.

    Raises:
        VenueError: the venue does not take it, or does not answer.
    """
    wanted = Decimal(repr(config.risk.max_leverage)).to_integral_value(ROUND_CEILING) + 1
    for instrument in instruments:
        if instrument.is_spot:
            continue
        leverage = max(Decimal(1), min(wanted, instrument.maximum_leverage))
        rows = await account.position_rows(instrument.symbol)
        if any(row.leverage is None or row.leverage < leverage for row in rows):
            try:
                await account.set_leverage(instrument.symbol, leverage)
            except Refused as problem:
                raise VenueError(
                    f"the leverage of {instrument.symbol} cannot be set to {leverage}: {problem}"
                ) from None


async def open_account(account: BybitAccount, config: Config, symbols: Sequence[str]) -> Opening:
    """What a new run takes over.

    Raises:
        UsageError: there is nothing to trade with, or something of these symbols is held already and must not be adopted.
        VenueError: the venue does not answer.
    """
    balances = await account.wallet()
    wallet = balances.coins.get(SETTLE_COIN, Decimal(0))
    capital = config.live.capital
    cash = min(wallet, capital) if capital else wallet
    if cash < _LEAST_CASH:
        raise UsageError(f"the account holds {wallet:f} {SETTLE_COIN}, nothing to trade with; transfer some to it")
    foreign = [order for order in await account.open_orders() if order.symbol in symbols and not order.guards_position]
    if foreign:
        raise UsageError(
            f"there is an open order {foreign[0].order_id} of {foreign[0].symbol} on this account, and a bot must not "
            "share a symbol; cancel it, or take the symbol out of market.symbols"
        )
    is_spot = config.market.category == "spot"
    held = [] if is_spot else [position for position in await account.positions() if position.symbol in symbols]
    if held and config.live.positions == "refuse":
        raise UsageError(
            f"there is a position of {held[0].quantity:f} {held[0].symbol} on this account; close it, or let the run take "
            "it over with --set live.positions=adopt"
        )
    events: list[AccountEvent] = []
    if wallet != cash:
        events.append(Transfer(wallet - cash, True, "not this run's to trade with"))
    if is_spot:
        events += coins_there(balances, symbols)
    for position in held:
        events += _adopted(position)
    return Opening(cash, await _fees(account, symbols), tuple(events))


def rule_changes(
    book: InstrumentBook, source: InstrumentSource, instruments: Mapping[str, Instrument], now: Callable[[], int]
) -> Callable[[], Awaitable[Sequence[AccountEvent]]]:
    """Asks daily for the trading rules, and tells which are no longer those that a run goes by.

    Args:
        book: keeps them.
        source: of the rules.
        instruments: that the run goes by at its start.
        now: the present, milliseconds.
    """
    known = dict(instruments)

    async def changed() -> list[AccountEvent]:
        if not book.is_due(now()):
            return []
        told = await book.refresh(source, tuple(known), now())
        events: list[AccountEvent] = []
        for symbol, instrument in told.instruments.items():
            found = filter_changes(known[symbol], instrument)
            if found:
                text = "the venue's trading rules: " + "; ".join(map(str, found))
                events += [Notice(NoticeKind.CORRECTION, symbol, text), RuleChange(instrument)]
                known[symbol] = instrument
        events += [Notice(NoticeKind.ALARM, symbol, reason) for symbol, reason in told.closed.items()]
        return events

    return changed


def book_of(run: Run, journal: Journal) -> AccountBook:
    """What a run believes of its account, from its engine and its journal. The run must not be deciding meanwhile."""
    engine = run.engine
    assert isinstance(engine, LiveEngine)
    instruments = engine.portfolio.instruments
    portfolio = Portfolio(engine.account.initial_cash, dict(instruments))
    portfolio.restore(engine.portfolio.state())
    venue = VenueBooks(instruments)
    state = engine.state()
    venue.restore(state.books, state.outside)
    fills: list[Execution] = [fill for _, fill in journal.read_executions(run.run_id)]
    told = [event for _, event in journal.read_events(run.run_id)]
    settled = [event.settlement_id for event in told if isinstance(event, Funding)]
    orders = list(journal.read_rows(schema.orders, run_id=run.run_id))
    newest = journal.last_close(run.run_id)
    # What no order of the run and no position that it took over can have caused is not its own.
    causes = [row["decided_at"] for row in orders]
    causes += [fill.time for fill in fills if fill.kind is ExecutionKind.ADOPTED]
    return AccountBook(
        portfolio,
        venue,
        known=[row["client_order_id"] for row in orders],
        fills=fills,
        settlements=settled,
        since=min(causes, default=newest),
        newest=newest,
        coins=coins_outside(engine.instruments, told),
    )


def _adopted(position: VenuePosition) -> list[AccountEvent]:
    side = Side.BUY if position.quantity > 0 else Side.SELL
    name = f"adopted-{position.symbol}"
    taken = Execution(
        name,
        "",
        position.symbol,
        side,
        abs(position.quantity),
        position.average_price,
        Decimal(0),
        ExecutionKind.ADOPTED,
        position.updated_at,
    )
    text = f"a position of {position.quantity:f} at {position.average_price:f} was there already and is taken over"
    return [Notice(NoticeKind.CORRECTION, position.symbol, text), taken]


async def _fees(account: BybitAccount, symbols: Sequence[str]) -> dict[str, Decimal]:
    """The highest of each, where the venue tells all."""
    found = [await account.fee_rates(symbol) for symbol in symbols]
    told = [rates for rates in found if rates is not None]
    if len(told) != len(symbols):
        return {}
    return {"taker_fee": max(taker for taker, _ in told), "maker_fee": max(maker for _, maker in told)}
