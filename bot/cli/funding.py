"""Funding rates for commands: ``recall fetch --funding``, and the rate of a settlement while paper trading goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import structlog

from bot.assembly import home_of
from bot.cli.common import Context
from bot.cli.terminal import output, progress_bar
from bot.config import Config
from bot.engine import SimulatedEngine
from bot.errors import UsageError, VenueError
from bot.market.batches import BarBatch
from bot.market.bybit_rest import BybitRest
from bot.market.funding import FundingStore, fetch_funding, read_funding_file
from strategies.bars import format_time, parse_time

log = structlog.get_logger()

BYBIT_BEGAN: Final = "2018-11-01"
_ATTEMPTS: Final = 3
_WAIT_S: Final = 1.0


def market_rest(config: Config) -> BybitRest:
    """Bybit's public REST interface, or its testnet's."""
    environment: Final = "testnet" if config.venue.name == "testnet" else "mainnet"
    return BybitRest(None, environment, timeout_s=config.venue.rest_timeout, category=config.market.category)


def fetch_rates(
    context: Context, source: str, path: Path | None, names: tuple[str, ...], first: int | None, last: int | None
) -> None:
    """Store funding rates of symbols, and say how many.

    Raises:
        UsageError: a file goes with one symbol, rates come from Bybit or a file only, and coins pay none.
    """
    config = context.config
    if config.market.category == "spot":
        raise UsageError('the spot market has no funding; set market.category = "linear", or leave out --funding')
    store = home_of(config).funding
    if source == "file":
        if path is None or len(names) != 1:
            raise UsageError("--source file takes one PATH and exactly one --symbol")
        results = [_told(store, names[0], store.append(names[0], read_funding_file(path)))]
    elif path is not None:
        raise UsageError(f"PATH {path} goes with --source file; leave it out or add --source file")
    elif source == "yfinance":
        raise UsageError("--funding has no source yfinance; take bybit or file")
    else:
        begin = parse_time(BYBIT_BEGAN) if first is None else first
        end = time.time_ns() // 1_000_000 if last is None else last
        results = [_download(config, store, name, begin, end) for name in names]
    if context.as_json:
        context.answer(results)
        return
    for result in results:
        span = (
            "nothing"
            if not result["settlements"]
            else (f"{format_time(result['first'])} to {format_time(result['last'])}")
        )
        output.print(
            f"[bold]{result['symbol']}[/] funding: {result['added']:,} settlements added, "
            f"{result['settlements']:,} stored, {span}"
        )


def settled_rates(
    engine: SimulatedEngine, rest: BybitRest, store: FundingStore
) -> Callable[[BarBatch], Awaitable[None]]:
    """Asks the venue for the rates of settlements that a batch is going to charge, before it does.

    A rate that the venue does not tell in three attempts counts as unknown: the position pays the configured one.
    """

    async def learn(batch: BarBatch) -> None:
        funding = engine.funding
        close_time = batch.bars[0].close_time
        if funding is None or close_time < funding.next_due:
            return
        for symbol, due in funding.due_symbols(close_time):
            for attempt in range(_ATTEMPTS):
                try:
                    rates = await rest.funding_rates(symbol, due, due)
                except VenueError as problem:
                    log.warning("funding rate unknown", symbol=symbol, reason=str(problem))
                    break
                if rates:
                    store.append(symbol, rates)
                    funding.learn(symbol, *rates[-1])
                    break
                if attempt + 1 < _ATTEMPTS:
                    await asyncio.sleep(_WAIT_S)
            else:
                log.warning("funding rate unknown", symbol=symbol, reason="the venue has not published it yet")

    return learn


def _download(config: Config, store: FundingStore, symbol: str, begin: int, end: int) -> dict[str, Any]:
    rest = market_rest(config)
    try:
        with progress_bar(f"{symbol} funding", None) as update:
            added = fetch_funding(store, rest.funding_page, symbol, begin, end, progress=update)
    finally:
        rest.close()
    return _told(store, symbol, added)


def _told(store: FundingStore, symbol: str, added: int) -> dict[str, Any]:
    times = store.load(symbol).times
    return {
        "symbol": symbol,
        "added": added,
        "settlements": len(times),
        "first": times[0] if times else None,
        "last": times[-1] if times else None,
    }
