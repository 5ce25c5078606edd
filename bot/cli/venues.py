"""Which venue a command talks to: addresses of Bybit, and sandboxes that start inside the process."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from backtest.sandbox.account import AccountSetting
from backtest.sandbox.clock import ClockSetting
from backtest.sandbox.faults import FaultPlan
from backtest.sandbox.market import SyntheticMarket
from backtest.sandbox.sources import BarSource
from backtest.sandbox.venue import SandboxVenue
from bot.assembly import Home, home_of, instruments_of
from bot.cli.common import stored_calendars
from bot.config import Config
from bot.doctor import KEY_FIX
from bot.errors import NothingLeftToPlay, UsageError
from bot.execution.bybit.client import BybitAccount, Credentials
from bot.execution.bybit.trade_stream import TradeStream
from bot.market.bybit_rest import BybitRest, Environment
from bot.market.funding_rates import FundingRates
from strategies.bars import BarSeries, Calendar, interval_ms, parse_time

# https://bybit-exchange.github.io/docs/v5/ws/connect; the demo environment has mainnet's public data
_PUBLIC_STREAMS: Final = {
    "bybit": "wss://stream.bybit.com",
    "testnet": "wss://stream-testnet.bybit.com",
    "demo": "wss://stream.bybit.com",
}
_PRIVATE_STREAMS: Final = {**_PUBLIC_STREAMS, "demo": "wss://stream-demo.bybit.com"}
_ENVIRONMENTS: dict[str, Literal["mainnet", "testnet", "demo"]] = {
    "bybit": "mainnet",
    "testnet": "testnet",
    "demo": "mainnet",
}
SANDBOX_KEY: Final = ("sandbox", "sandbox")
"""Key and secret of the account of a sandbox that starts inside a process."""


@dataclass(frozen=True, slots=True)
class Trade:
    """What makes a sandbox more than a source of public data."""

    account: AccountSetting
    faults: FaultPlan
    partial_pushes: int = 0
    tls: ssl.SSLContext | None = None


Advance = Callable[[int], Awaitable[bool]]


@dataclass(slots=True)
class Connection:
    """How to reach a venue's public data."""

    rest: BybitRest
    stream_url: str


def connect(config: Config, sandbox: SandboxVenue | None) -> Connection:
    """A connection to the configured venue, or to a sandbox that has been started."""
    timeout, category = config.venue.rest_timeout, config.market.category
    if sandbox is not None:
        rest = BybitRest(sandbox.rest_url, timeout_s=timeout, category=category)
        return Connection(rest, sandbox.stream_url(category))
    environment = _ENVIRONMENTS.get(config.venue.name, "mainnet")
    rest = BybitRest(_rest_host(config), environment, timeout_s=timeout, category=category)
    return Connection(rest, f"{_stream_host(config, _PUBLIC_STREAMS)}/v5/public/{category}")


def account_at(config: Config, sandbox: SandboxVenue | None = None, *, needs_key: bool = True) -> BybitAccount:
    """The account of the configured venue and key, or that of a sandbox that has been started inside this process.

    Without a key, where none is needed, it can be asked for its clock.

    Raises:
        UsageError: there is no key, or the venue is a sandbox inside a process that has not been started.
    """
    name, timeout, category = config.venue.name, config.venue.rest_timeout, config.market.category
    credentials = Credentials(*_key_of(config, sandbox)) if needs_key else Credentials("", "")
    if sandbox is not None:
        return BybitAccount(credentials, sandbox.rest_url, timeout_s=timeout, category=category)
    if name == "sandbox" and not config.venue.sandbox_url:
        raise UsageError(
            "the sandbox inside this process has no account; start recall sandbox and set venue.sandbox_url to its URL"
        )
    environment: Environment = "testnet" if name == "testnet" else "demo" if name == "demo" else "mainnet"
    return BybitAccount(credentials, _rest_host(config), environment, timeout_s=timeout, category=category)


def private_stream_at(config: Config, sandbox: SandboxVenue | None = None) -> tuple[str, str, str]:
    """URL of the private stream of the configured venue, or of a sandbox that has been started, with key and secret.

    Raises:
        UsageError: there is no key.
    """
    key, secret = _key_of(config, sandbox)
    if sandbox is not None:
        return sandbox.private_url, key, secret
    return f"{_stream_host(config, _PRIVATE_STREAMS)}/v5/private", key, secret


def order_entry_at(config: Config, account: BybitAccount, sandbox: SandboxVenue | None = None) -> TradeStream | None:
    """The trade socket of the configured venue, not connected yet; ``None`` where orders go over REST, as at the demo
    environment, which has none.

    Args:
        config: the settings.
        account: whose clock stamps the requests; set its ``entry`` to what is returned.
        sandbox: that has been started inside this process.

    Raises:
        UsageError: there is no key.
    """
    if config.live.order_entry == "rest" or config.venue.name == "demo":
        return None
    url = f"{_stream_host(config, _PRIVATE_STREAMS)}/v5/trade" if sandbox is None else sandbox.trade_url
    credentials = Credentials(*_key_of(config, sandbox))
    return TradeStream(url, credentials, account.stamp, answer_timeout_s=config.venue.rest_timeout)


def _rest_host(config: Config) -> str | None:
    """What takes the place of Bybit's own host, if anything does."""
    venue = config.venue
    own = {"sandbox": venue.sandbox_url, "bybit": venue.rest_url}.get(venue.name, "")
    return own.rstrip("/") or None


def _stream_host(config: Config, hosts: Mapping[str, str]) -> str:
    venue = config.venue
    if venue.name == "sandbox":
        return f"ws://{venue.sandbox_url.rstrip('/').partition('://')[2]}"
    return (venue.name == "bybit" and venue.stream_url) or hosts[venue.name]


def _key_of(config: Config, sandbox: SandboxVenue | None) -> tuple[str, str]:
    if sandbox is not None:
        return SANDBOX_KEY
    key, secret = config.live.api_key.get_secret_value(), config.live.api_secret.get_secret_value()
    if not key or not secret:
        raise UsageError(f"there is no API key; {KEY_FIX}")
    return key, secret


def plays_store(config: Config) -> bool:
    """Whether the venue is an embedded sandbox that plays the candle store."""
    venue = config.venue
    return venue.name == "sandbox" and not venue.sandbox_url and config.sandbox.source == "store"


def sandbox_clock(config: Config) -> ClockSetting:
    """The configured clock: speed 0 is stepped, 1 is real time."""
    speed = config.sandbox.speed
    if speed == 0:
        return ClockSetting.stepped()
    return ClockSetting.real() if speed == 1 else ClockSetting.accelerated(speed)


def make_sandbox(
    config: Config,
    symbols: tuple[str, ...],
    interval: str,
    clock: ClockSetting,
    *,
    start: int | None,
    end: int | None,
    history_until: int | None = None,
    paused: bool = False,
    trade: Trade | None = None,
) -> SandboxVenue:
    """A sandbox that is not started yet, playing what the configuration says.

    ``history_until`` is where a run that goes on once began: bars that were forming when it stopped are still released.
    Without ``trade`` it has public data only.

    Raises:
        UsageError: the candle store lacks a symbol, or nothing is left to play.
    """
    if config.sandbox.source == "synthetic":
        calendars = dict.fromkeys(symbols, Calendar.CONTINUOUS)
        instruments = instruments_of(config, symbols, calendars)
        if interval == "M":
            raise UsageError("the synthetic market has no monthly bars; give an --interval of a week or less")
        sources: dict[str, BarSeries | BarSource] = {
            symbol: SyntheticMarket(config.sandbox.seed, symbol, interval, instrument=instruments[symbol])
            for symbol in symbols
        }
        begin = synthetic_start(config) if start is None else start
        return SandboxVenue(
            sources,
            interval,
            clock,
            start=begin,
            history_until=history_until,
            end=end,
            instruments=instruments,
            paused=paused,
            **_trading(trade, {}),
        )
    home = home_of(config, venue="sandbox")
    calendars = stored_calendars(home.candles, symbols, interval)
    instruments = instruments_of(config, symbols, calendars, tiers=home.margin_tiers.load())
    stored: dict[str, BarSeries | BarSource] = {
        symbol: home.candles.load(symbol, interval, end=end) for symbol in symbols
    }
    begin = stored_start(home, symbols, interval) if start is None else start
    rates = {symbol: home.funding.load(symbol) for symbol in symbols}
    try:
        return SandboxVenue(
            stored,
            interval,
            clock,
            start=begin,
            history_until=history_until,
            end=end,
            instruments=instruments,
            paused=paused,
            **_trading(trade, rates),
        )
    except ValueError:
        raise NothingLeftToPlay(
            "the candle store has no bars left to play in that span; choose an earlier --start or a later --end"
        ) from None


def _trading(trade: Trade | None, funding: dict[str, FundingRates]) -> dict[str, Any]:
    """Arguments of a venue that has an account."""
    if trade is None:
        return {}
    return {
        "account": trade.account,
        "faults": trade.faults,
        "partial_pushes": trade.partial_pushes,
        "tls": trade.tls,
        "funding": funding,
    }


def synthetic_start(config: Config) -> int:
    """Where a new run on the synthetic market starts.

    Raises:
        UsageError: the configured date is not understood.
    """
    try:
        return parse_time(config.sandbox.start)
    except ValueError as problem:
        raise UsageError(f"sandbox.start: {problem}") from None


def plays_synthetic(config: Config) -> bool:
    """Whether the venue is an embedded sandbox that plays a synthetic market."""
    venue = config.venue
    return venue.name == "sandbox" and not venue.sandbox_url and config.sandbox.source == "synthetic"


def sandbox_start(config: Config, home: Home) -> int:
    """Where a new run in the embedded sandbox starts if nobody says, milliseconds.

    Raises:
        UsageError: the configured date is not understood, or a symbol has no stored candles.
    """
    if config.sandbox.source == "synthetic":
        return synthetic_start(config)
    return stored_start(home, config.market.symbols, config.market.interval)


def stored_start(home: Home, symbols: tuple[str, ...], interval: str) -> int:
    """Where the sandbox begins to play stored candles if nobody says: nine tenths of them are history.

    Raises:
        UsageError: a symbol has none.
    """
    stored_calendars(home.candles, symbols, interval)
    moments = []
    for symbol in symbols:
        series = home.candles.load(symbol, interval)
        moments.append(int(series.open_time[len(series) * 9 // 10]))
    return max(moments)


def history_start(config: Config, interval: str, now: int, bars: int) -> int:
    """From where a venue's history is fetched so that ``bars`` bars lie before ``now``."""
    if config.venue.name == "sandbox" and config.sandbox.source == "synthetic":
        bars = config.sandbox.history_bars
    return max(0, now - bars * interval_ms(interval))


def lock_step(
    venue: SandboxVenue, pause: Callable[[], Awaitable[None]], ready: Callable[[], Awaitable[None]]
) -> Advance:
    """Release one close whenever the run has decided on everything released before.

    Args:
        venue: with a stepped clock.
        pause: awaited before every step, for people who watch.
        ready: awaited before every step: the feed listens and misses nothing.
    """

    async def advance(decided: int) -> bool:
        if 0 < decided < venue.tape.now():
            return True
        if venue.finished:
            return False
        await ready()
        await pause()
        await venue.step(1)
        return True

    return advance
