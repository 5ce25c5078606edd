"""One live run against a sandbox in the same process: real sockets, a journal on disk, and lives that end at any moment.

The venue steps when the bot has nothing left to do, as ``recall live`` lets its own. A life is what one process would be:
begun or resumed from the journal with new objects, and ended by its bars, by a fault of the venue, or by a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from backtest.sandbox.account import AccountSetting
from backtest.sandbox.clock import ClockSetting
from backtest.sandbox.faults import FaultPlan
from backtest.sandbox.keys import ApiKey
from backtest.sandbox.market import SyntheticMarket
from backtest.sandbox.sources import StoredBars
from backtest.sandbox.venue import SandboxVenue
from bot.account_feed import with_account
from bot.assembly import home_of, instruments_of
from bot.cli.starting import begin, decision_thread, last_seen, resume
from bot.cli.venues import SANDBOX_KEY, Connection, order_entry_at, synthetic_start
from bot.config import Config
from bot.engine import Step
from bot.errors import RecallError
from bot.execution.bybit.client import BybitAccount, Credentials
from bot.execution.bybit.rate_limits import RateLimits
from bot.execution.bybit.spot import GUARD_FILTER
from bot.execution.instruments import Category
from bot.journal import Journal, RunKind
from bot.live_account import LiveAccount
from bot.live_comparison import AccountLimits
from bot.live_start import book_of, open_account, set_leverage
from bot.market.backoff import Backoff
from bot.market.bybit_private_stream import PrivateStream
from bot.market.bybit_rest import BybitRest
from bot.market.bybit_stream import KlineStream
from bot.market.feed import FeedLimits, MarketFeed
from bot.orders import Order
from bot.risk import run_token
from bot.run import Run
from bot.session import Session
from bot.trading import OrderRouter, trade
from strategies.bars import Calendar, interval_ms

INTERVAL: Final = "60"
HUMAN: Final = ApiKey("human", "human-secret")
"""A second hand on the same account."""
AT_ONCE: Final = Backoff(first_s=0.005, base_s=0.01, limit_s=0.05)
LIMITS: Final = AccountLimits(every_s=1.5, retry_s=0.1, verify_s=0.5, lost_after_s=0.3, patience_s=0.5, grace_s=0.05)
FEED: Final = FeedLimits(straggler_s=0.05, answer_s=0.5, retry_s=0.02, quiet_s=0.25)
HISTORY_BARS: Final = 30
UNTHROTTLED: Final = 1_000.0
"""Times Bybit's limits: a stepped venue enforces none, and its hours pass in milliseconds."""
_STUCK_S: Final = 2.0
"""After this long without a decision the venue steps on: the bar may not exist."""
_SETTLING_S: Final = 20.0
_PAUSE_S: Final = 1.0


class Crash(Exception):
    """The process is gone."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is played.

    Args:
        bars: that the market has after the start.
        symbols: traded.
        seed: of the market and of what the strategy wants.
        plan: what goes wrong.
        settings: of the configuration, by section and key, other than usual.
        account: settings of the venue's account other than usual.
        limits: how long the account waits.
        extra: symbols of the venue that the run does not trade.
        funding_rate: of every settlement.
    """

    bars: int = 60
    symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT")
    seed: int = 7
    plan: FaultPlan = field(default_factory=FaultPlan)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    account: Mapping[str, Any] = field(default_factory=dict)
    limits: AccountLimits = LIMITS
    extra: tuple[str, ...] = ()
    funding_rate: Decimal = Decimal("0.0001")

    def config(self, folder: Path) -> Config:
        """As a configuration whose files lie in a folder."""
        usual: dict[str, dict[str, Any]] = {
            "storage": {"data_dir": folder},
            "market": {"symbols": self.symbols, "interval": INTERVAL},
            "sandbox": {"seed": self.seed, "history_bars": HISTORY_BARS},
            "memory": {"memory_size": 100},
            "live": {"order_entry": "rest"},
            "risk": {"daily_loss_limit": 0.0, "no_trade_band": 0.0, "stop_loss": 0.01},
        }
        if "name" not in self.settings.get("strategy", {}):
            usual["strategy"] = {"name": "benchmarks.chaos.strategy:Restless", "parameters": {"seed": self.seed}}
        return Config().changed(usual, "the scene").changed(self.settings, "the scene")


class Rehearsal:
    """A venue and the run that trades on it. An asynchronous context manager."""

    def __init__(self, folder: Path, scene: Scene) -> None:
        """
        Args:
            folder: empty; takes the candles and the journal.
            scene: what is played.
        """
        self.scene = scene
        self.config = scene.config(folder)
        self.venue = _venue(scene, self.config)
        self.journal = Journal(self.config.journal_url, durable=True)
        self.run_id = ""
        self.lives = 0
        """Begun so far."""
        self.ends: list[str] = []
        """Why lives ended before their bars."""
        self.unsettled = ""
        """Why the last life did not come to rest, if it did not."""
        self.on_step: Callable[[Step], None] | None = None
        """Called with every step that is durable; may raise ``Crash``."""
        self.between: Callable[[], Awaitable[None]] | None = None
        """Awaited before every step of the venue."""
        self._run: Run | None = None
        self._session: Session | None = None
        self._decided = 0
        self._progress = asyncio.Event()
        self._bars_left = 0
        self._life: asyncio.Task[None] | None = None
        self._killed = ""

    @property
    def run(self) -> Run:
        """The run as its last life left it."""
        assert self._run is not None, "nothing has been played"
        return self._run

    @property
    def _category(self) -> Category:
        return self.config.market.category

    async def __aenter__(self) -> Self:
        await self.venue.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.venue.stop()
        self.journal.close()

    async def by_hand(self, order: Order) -> None:
        """Let a person trade on the account."""
        account = self._account(HUMAN)
        try:
            sent = await account.send(order)
            assert sent.is_accepted, sent
        finally:
            account.close()

    async def cancel_by_hand(self, order: Order) -> None:
        """Let a person take back a conditional order of the run's on the spot market."""
        account = self._account(HUMAN)
        try:
            await account.cancel(order.symbol, order.client_order_id, order_filter=GUARD_FILTER)
        finally:
            account.close()

    async def play(self, bars: int | None = None, *, entry: Callable[[OrderRouter], OrderRouter] | None = None) -> None:
        """Live through so many bars, or all that are left, whatever ends lives on the way; then come to rest.

        Args:
            bars: of the market, ``None``: all.
            entry: wraps where orders go.
        """
        self._bars_left = self.scene.bars if bars is None else bars
        failures = 0
        while True:
            self.lives += 1
            before = self.venue.tape.closes
            self._life = asyncio.create_task(self.live(entry=entry), name="life")
            try:
                await self._life
                return
            except Crash as end:
                self.ends.append(str(end))
            except asyncio.CancelledError:
                if not self._killed:
                    self._life.cancel()
                    await asyncio.gather(self._life, return_exceptions=True)
                    raise
                self.ends.append(self._killed)
                self._killed = ""
            except RecallError as end:
                self.ends.append(str(end))
                # As a supervisor would: again, but not for ever.
                failures = failures + 1 if self.venue.tape.closes == before else 0
                if failures > 20:
                    raise

    def kill(self, why: str) -> None:
        """End this life wherever it is; the next one finds what is durable."""
        self._killed = why
        assert self._life is not None, "there is no life to end"
        self._life.cancel()

    async def live(self, *, entry: Callable[[OrderRouter], OrderRouter] | None = None) -> None:
        """One life."""
        async with contextlib.AsyncExitStack() as stack:
            connection = Connection(
                BybitRest(self.venue.rest_url, timeout_s=2.0, backoff=AT_ONCE, category=self._category),
                self.venue.stream_url(self._category),
            )
            stack.callback(connection.rest.close)
            client = self._account(ApiKey(*SANDBOX_KEY))
            stack.callback(client.close)
            await client.synchronise()
            if (trade_socket := order_entry_at(self.config, client, self.venue)) is not None:
                client.entry = await stack.enter_async_context(trade_socket)
            thread = stack.enter_context(decision_thread())
            if not self.run_id:
                run, session = await self._begin(connection, client, thread, stack)
            else:
                stack.enter_context(self.journal.hold_run(self.run_id))
                stored = self.journal.find_run(self.run_id)
                run, session = await resume(self.config, self.journal, stored, thread, stack)
            self._run, self._session = run, session
            private = await stack.enter_async_context(
                PrivateStream(
                    self.venue.private_url,
                    *SANDBOX_KEY,
                    venue_ms=lambda: time.time_ns() // 1_000_000 + client.clock.offset,
                    silence_timeout_s=2.0,
                    backoff=AT_ONCE,
                    category=self._category,
                )
            )
            account = await stack.enter_async_context(
                LiveAccount(
                    client,
                    private,
                    book_of(run, self.journal),
                    token=run_token(run.run_id),
                    limits=self.scene.limits,
                    whole_wallet=not self.config.live.capital,
                )
            )
            feed = await self._feed(connection, run, session, stack)
            bars = await stack.enter_async_context(contextlib.aclosing(feed.events()))
            events = await stack.enter_async_context(contextlib.aclosing(with_account(bars, account)))
            self._decided = self.venue.tape.now()
            await trade(
                run,
                events,
                thread,
                stop=asyncio.Event(),
                advance=functools.partial(self._drive, feed, account),
                entry=account if entry is None else entry(account),
                on_step=self._stepped,
            )

    def audit(self) -> Any:
        """What a replay from the journal finds; see ``backtest.audit``."""
        # Imported here: an audit needs the whole replay, a rehearsal does not.
        from backtest.audit import audit_run
        from bot.portfolio import ClosedTrade
        from bot.session import reopen_session

        stored = self.journal.find_run(self.run_id)
        session = reopen_session(self.config, stored)
        trades: list[ClosedTrade] = []
        session.warm(stored=True)
        return audit_run(self.journal, stored, session, session.live_engine(self.run_id, trades), trades)

    # -- a life ------------------------------------------------------------------------------------------------------

    async def _begin(
        self, connection: Connection, client: BybitAccount, thread: Any, stack: contextlib.AsyncExitStack
    ) -> tuple[Run, Session]:
        symbols = self.scene.symbols
        await set_leverage(client, self.config, (await connection.rest.instruments(symbols)).values())
        opening = await open_account(client, self.config, symbols)
        changes: dict[str, dict[str, Any]] = {"account": {"initial_cash": opening.cash}}
        if opening.costs:
            changes["costs"] = dict(opening.costs)
        self.config = self.config.changed(changes, "the account")
        home = home_of(self.config, venue="sandbox")
        run, session = await begin(RunKind.LIVE, self.config, home, self.journal, connection, thread, stack)
        self.run_id = run.run_id
        if opening.events:
            await asyncio.get_running_loop().run_in_executor(
                thread, functools.partial(run.apply_waiting, *opening.events)
            )
        return run, session

    async def _feed(
        self, connection: Connection, run: Run, session: Session, stack: contextlib.AsyncExitStack
    ) -> MarketFeed:
        symbols = self.scene.symbols
        stream = await stack.enter_async_context(
            KlineStream(connection.stream_url, symbols, INTERVAL, silence_timeout_s=2.0, backoff=AT_ONCE)
        )
        return MarketFeed(
            stream,
            connection.rest,
            symbols,
            INTERVAL,
            last_seen(run, session),
            calendars=session.calendars,
            unavailable=run.engine.core.risk.state.unavailable,
            limits=FEED,
        )

    def _stepped(self, step: Step) -> None:
        self._decided = max(self._decided, step.batch.bars[0].close_time)
        self._progress.set()
        if self.on_step is not None:
            self.on_step(step)

    async def _drive(self, feed: MarketFeed, account: LiveAccount, _decided: int) -> bool:
        """Step the venue whenever everything it told was dealt with; at the end, wait until the account is at rest."""
        while self._bars_left > 0 and not self.venue.finished:
            await self._decided_all()
            await self._subscribed()
            await feed.caught_up()
            await account.idle()
            if self.between is not None:
                await self.between()
            self._bars_left -= 1
            await self.venue.step()
        await self._decided_all()
        await self._rest(account)
        return False

    async def _subscribed(self) -> None:
        """As ``SandboxVenue.subscribed``, of the symbols that are traded."""
        topics = [f"kline.{INTERVAL}.{symbol}" for symbol in self.scene.symbols]
        while not all(self.venue.state()["subscriptions"][topic] for topic in topics):
            await asyncio.sleep(0.001)

    async def _decided_all(self) -> None:
        while self._decided < self.venue.tape.now():
            self._progress.clear()
            try:
                async with asyncio.timeout(_STUCK_S):
                    await self._progress.wait()
            except TimeoutError:
                return

    async def _rest(self, account: LiveAccount) -> None:
        """Until the venue has been asked twice in a row and nothing was left to say."""
        deadline, quiet = time.monotonic() + _SETTLING_S, 0
        while quiet < 2:
            before = len(self._told())
            await account.compare()
            await account.idle()
            await asyncio.sleep(min(2 * self.scene.limits.verify_s, _PAUSE_S))
            self.unsettled = account.unsettled
            quiet = 0 if self.unsettled or len(self._told()) != before else quiet + 1
            if time.monotonic() > deadline:
                self.unsettled = self.unsettled or "the account has more to say at every look"
                return
        self.unsettled = ""

    def _told(self) -> Sequence[Any]:
        return self.journal.read_events(self.run_id)

    def _account(self, key: ApiKey) -> BybitAccount:
        return BybitAccount(
            Credentials(key.key, key.secret),
            self.venue.rest_url,
            timeout_s=2.0,
            backoff=AT_ONCE,
            category=self._category,
            limits=RateLimits(time.monotonic(), share=UNTHROTTLED),
        )


def _venue(scene: Scene, config: Config) -> SandboxVenue:
    symbols = (*scene.symbols, *scene.extra)
    instruments = instruments_of(config, symbols, dict.fromkeys(symbols, Calendar.CONTINUOUS))
    start = synthetic_start(config)
    length = interval_ms(INTERVAL)
    first, last = start - (HISTORY_BARS + 10) * length, start + scene.bars * length
    account = AccountSetting(
        (ApiKey(*SANDBOX_KEY), HUMAN),
        **{
            "costs": config.costs.costs(),
            "rules": config.fills.rules(config.risk.max_position),
            **scene.account,
        },
    )
    return SandboxVenue(
        {
            symbol: StoredBars(
                SyntheticMarket(scene.seed, symbol, INTERVAL, instrument=instruments[symbol]).series(first, last)
            )
            for symbol in symbols
        },
        INTERVAL,
        ClockSetting.stepped(),
        start=start,
        instruments=instruments,
        account=account,
        funding_rate=scene.funding_rate,
        faults=scene.plan,
    )
