"""The sandbox venue: a local server that speaks Bybit's v5 protocol, with stored or synthetic candles and its own clock."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from decimal import Decimal
from types import TracebackType
from typing import Any, Self, get_args

from aiohttp import web

from backtest.sandbox.account import AccountSetting
from backtest.sandbox.clock import ClockMode, ClockSetting
from backtest.sandbox.control import ControlInterface
from backtest.sandbox.exchange import Exchange
from backtest.sandbox.faults import CLOSE, Fault, FaultInjector, FaultPlan
from backtest.sandbox.gate import Gate
from backtest.sandbox.keys import KeyRing, ServerClock
from backtest.sandbox.limits import RateLimits
from backtest.sandbox.market_data import DEFAULT_FUNDING, MarketData
from backtest.sandbox.operations import Operations
from backtest.sandbox.outbox import Outbox
from backtest.sandbox.private_stream import PrivateStream
from backtest.sandbox.rest import RestInterface
from backtest.sandbox.sources import BarSource, StoredBars
from backtest.sandbox.stream import PublicStream
from backtest.sandbox.tape import Release, Tape
from backtest.sandbox.trade_stream import TradeStream
from backtest.sandbox.trading import PrivateRest, deeds
from bot.execution.instruments import Category, Instrument
from bot.market.funding_rates import FundingRates
from strategies.bars import BarSeries


class SandboxVenue:
    """A venue on one local port: REST under ``/v5``, websockets at ``/v5/public/linear`` and ``spot``, control at ``/control``.

    Use it as an asynchronous context manager, or call ``start`` and ``stop``. It lives on the running event loop.

    Args:
        sources: candles by symbol, as a series or as any source; the order of symbols is the order of pushes.
        interval: the only interval that is served, as the venue's code.
        clock: how simulated time passes.
        start: where the clock begins (milliseconds). ``None``: at the first bar.
        history_until: bars that open before this (milliseconds) are history, which REST tells and the stream does not,
            whenever they close; ``start`` unless given. Keep it where a run began when the run goes on from a later
            ``start``, so that bars that were forming when it stopped are still pushed.
        end: bars of series that open at or after this are never shown.
        instruments: trading rules by symbol; a symbol without gets the defaults of ``Instrument``.
        account: one account that orders may be sent to, and the keys to it; without it the venue has public data only.
        enforce_limits: whether requests beyond Bybit's limits are refused; by default unless the clock is stepped, since
            a stepped market's orders come as fast as the machine goes.
        funding: rates by symbol, where they are known.
        funding_rate: of every settlement that ``funding`` does not know; longs pay it where it is positive.
        partial_pushes: pushes of every candle that forms, between two closes.
        faults: what is to go wrong; more can be planted while the venue runs.
        paused: let the clock stand still until ``resume``, so that a client can warm up without missing anything.
        tls: a certificate to serve https and wss with; see ``backtest.sandbox.tls``.
        host: the interface to listen on.

    Raises:
        ValueError: there is nothing to play.
    """

    def __init__(
        self,
        sources: Mapping[str, BarSeries | BarSource],
        interval: str,
        clock: ClockSetting,
        *,
        start: int | None = None,
        history_until: int | None = None,
        end: int | None = None,
        instruments: Mapping[str, Instrument] | None = None,
        account: AccountSetting | None = None,
        enforce_limits: bool | None = None,
        funding: Mapping[str, FundingRates] | None = None,
        funding_rate: Decimal = DEFAULT_FUNDING,
        partial_pushes: int = 0,
        faults: FaultPlan | None = None,
        paused: bool = False,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._sources = {
            symbol: StoredBars(source, end) if isinstance(source, BarSeries) else source
            for symbol, source in sources.items()
        }
        self._interval = interval
        self._setting = clock
        self._start_time = start
        self._history_until = history_until
        self._instruments = {symbol: (instruments or {}).get(symbol, Instrument(symbol)) for symbol in sources}
        self._account = account
        is_stepped = clock.mode is ClockMode.STEPPED
        self._enforce_limits = not is_stepped if enforce_limits is None else enforce_limits
        self._funding = dict(funding or {})
        self._funding_rate = funding_rate
        self._partial_pushes = partial_pushes
        self._plan = faults or FaultPlan()
        self._paused = paused
        self._running = asyncio.Event()
        self._tls = tls
        self._secure = "" if tls is None else "s"
        self._host = host
        self._port = 0
        self._runner: web.AppRunner | None = None
        self._player: asyncio.Task[None] | None = None
        self._stepping = asyncio.Lock()
        self._open_tape()

    def _open_tape(self) -> None:
        self.tape = Tape(
            self._sources, self._interval, self._setting, self._start_time, history_until=self._history_until
        )
        self.clock = ServerClock(self.tape)
        self._injector = FaultInjector(self._plan)
        self._outbox = Outbox(self._injector)
        self._gate = Gate(self.clock, self._injector)
        self._data = MarketData(self.tape, self._instruments, self._funding, self._funding_rate)
        self._stream = PublicStream(self.tape, self._data, self._outbox, self._injector)
        self._rest = RestInterface(self.tape, self.clock, self._data, self._instruments)
        setting = self._account
        self._keys = KeyRing(setting.keys if setting is not None else (), self.clock)
        self.private = PrivateStream(self._keys, self.clock, self._outbox)
        self.exchange = None if setting is None else Exchange(setting, self._instruments, self.tape)
        self._trade: TradeStream | None = None

    @property
    def rest_url(self) -> str:
        """What takes the place of ``https://api.bybit.com``."""
        return f"http{self._secure}://{self._host}:{self._port}"

    @property
    def public_url(self) -> str:
        """What takes the place of ``wss://stream.bybit.com/v5/public/linear``."""
        return self.stream_url("linear")

    def stream_url(self, category: Category) -> str:
        """What takes the place of ``wss://stream.bybit.com/v5/public/CATEGORY``."""
        return f"ws{self._secure}://{self._host}:{self._port}/v5/public/{category}"

    @property
    def private_url(self) -> str:
        """What takes the place of ``wss://stream.bybit.com/v5/private``."""
        return f"ws{self._secure}://{self._host}:{self._port}/v5/private"

    @property
    def trade_url(self) -> str:
        """What takes the place of ``wss://stream.bybit.com/v5/trade``."""
        return f"ws{self._secure}://{self._host}:{self._port}/v5/trade"

    @property
    def control_url(self) -> str:
        """Root of the control endpoints."""
        return f"{self.rest_url}/control"

    async def start(self, port: int = 0) -> None:
        """Begin to listen and let time run; port 0 takes a free one.

        Raises:
            OSError: the port is taken.
        """
        self._open_tape()
        application = web.Application(middlewares=[self._gate.guard])
        for category in get_args(Category):
            application.router.add_get(f"/v5/public/{category}", self._stream.handle)
        application.router.add_get("/v5/private", self.private.handle)
        if self.exchange is not None:
            limits = RateLimits(enforced=self._enforce_limits)
            doable = deeds(Operations(self.exchange))
            private = PrivateRest(self.exchange, doable, self._keys, self.clock, limits, self._announce)
            private.add_routes(application.router)
            self._trade = TradeStream(doable, self._keys, self.clock, limits, self._announce, self._injector)
            application.router.add_get("/v5/trade", self._trade.handle)
        ControlInterface(self).add_routes(application.router)
        self._rest.add_routes(application.router)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, port, ssl_context=self._tls).start()
        except OSError:
            await self._runner.cleanup()
            raise
        self._port = int(self._runner.addresses[0][1])
        if self._setting.mode is not ClockMode.STEPPED:
            self._player = asyncio.create_task(self._play(), name="sandbox clock")
        if not self._paused:
            self.resume()

    async def stop(self) -> None:
        """Cut all sockets and stop listening."""
        if self._player is not None:
            self._player.cancel()
            await asyncio.gather(self._player, return_exceptions=True)
            self._player = None
        self._outbox.forget()
        self.drop_connections()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def step(self, bars: int = 1) -> int:
        """Release the next ``bars`` closes, each for all symbols that close then; returns how many closes there were.

        Raises:
            ValueError: the clock runs by itself.
        """
        if self._setting.mode is not ClockMode.STEPPED:
            raise ValueError(f"the sandbox's clock is {self._setting.mode}: only a stepped clock can be stepped")
        async with self._stepping:
            for done in range(bars):
                for moment in self._moments_between():
                    self.tape.clock.advance_to(moment)
                    await self._stream.push_forming()
                releases = self.tape.release()
                if not releases:
                    return done
                await self._tell(releases)
        return bars

    def resume(self) -> None:
        """Let a paused clock run; a stepped one goes on waiting for its steps."""
        self.tape.clock.run()
        self._running.set()

    async def _play(self) -> None:
        await self._running.wait()
        while (close := self.tape.next_close()) is not None:
            for moment in self._moments_between():
                await asyncio.sleep(self.tape.clock.seconds_until(moment))
                await self._stream.push_forming()
            await asyncio.sleep(self.tape.clock.seconds_until(close))
            await self._tell(self.tape.release())

    def _moments_between(self) -> list[int]:
        """When forming candles are pushed before the next close."""
        begin, close, parts = self.tape.now(), self.tape.next_close(), self._partial_pushes + 1
        if close is None:
            return []
        return [begin + (close - begin) * part // parts for part in range(1, parts)]

    async def _tell(self, releases: list[Release]) -> None:
        """Let orders meet the bars that have closed, and tell the account first, then everybody."""
        self._injector.closes = self.tape.closes
        self._break_at_close()
        await self._outbox.on_close()
        if self.exchange is not None:
            for release in releases:
                self.exchange.on_close(release.closed)
            for _, symbol, rate in self._data.take_due():
                self.exchange.fund(symbol, rate)
            await self._announce()
        await self._stream.push(releases)

    def _break_at_close(self) -> None:
        if (rule := self._injector.strike(CLOSE, frozenset({Fault.SKEW}))) is not None:
            self.clock.skew_ms = rule.milliseconds
        if self._injector.strike(CLOSE, frozenset({Fault.RESTART})) is not None:
            self.restart()
        if self._injector.strike(CLOSE, frozenset({Fault.CUT})) is not None:
            self.drop_connections()

    async def _announce(self) -> None:
        if self.exchange is not None:
            await self.private.push(self.exchange.take_messages())

    @property
    def finished(self) -> bool:
        """All bars have been released; time stands still."""
        return self.tape.next_close() is None

    async def subscribed(self, count: int = 1) -> None:
        """Wait until every symbol has at least ``count`` subscribers."""
        await self._stream.subscribed(count)

    def drop_connections(self) -> int:
        """Cut every socket without a word; returns how many there were."""
        trading = 0 if self._trade is None else self._trade.cut_all()
        return self._stream.cut_all() + self.private.cut_all() + trading

    def restart(self) -> int:
        """Restart: every socket is cut, and closed orders are known to the history alone; returns how many there were."""
        if self.exchange is not None:
            self.exchange.forget_closed()
        return self.drop_connections()

    def mute(self, symbol: str, bars: int = 1) -> None:
        """Do not push the next closes of a symbol, as if the messages were lost; REST still knows them.

        Raises:
            ValueError: the symbol is not played here.
        """
        if symbol not in self._sources:
            raise ValueError(f"symbol {symbol!r} is not played here; choose one of {', '.join(self._sources)}")
        self._stream.mute(symbol, bars)

    def change_rules(self, instrument: Instrument) -> None:
        """Let a symbol have other trading rules from now on, but for tick and lot, as the venue does overnight.

        Raises:
            ValueError: the symbol is not played here, or its tick or lot would change.
        """
        if self.exchange is not None:
            self.exchange.change_rules(instrument)
        self._instruments[instrument.symbol] = instrument

    async def send_raw(self, text: str) -> None:
        """Send a text frame to every socket, however malformed."""
        await self._stream.send_raw(text)

    def fail_requests(self, times: int, *, status: int = 200, code: int = 10006) -> None:
        """Let the next REST requests fail with an HTTP status or, where that is 200, a return code."""
        self._gate.fail(times, status=status, code=code)

    def plant(self, plan: FaultPlan) -> None:
        """Let more go wrong from now on; chances are drawn from the seed of the plan that the venue was made with."""
        self._plan = FaultPlan(self._plan.rules + plan.rules, self._plan.seed)
        self._injector.plant(plan)

    @property
    def faults_struck(self) -> int:
        """How often something planned went wrong so far."""
        return self._injector.struck

    @property
    def requests(self) -> int:
        """REST requests answered so far."""
        return self._gate.requests

    def state(self) -> dict[str, Any]:
        """What ``/control/state`` tells: clock, progress, connections."""
        return {
            "mode": str(self._setting.mode),
            "speed": self._setting.speed,
            "paused": not self._running.is_set(),
            "time": self.tape.now(),
            "next_close": self.tape.next_close(),
            "released": dict(self.tape.released),
            "finished": self.finished,
            "connections": self._stream.connections,
            "private_connections": self.private.connections,
            "subscriptions": self._stream.subscriptions(),
            "clock_skew_ms": self.clock.skew_ms,
            "faults_struck": self.faults_struck,
        }
