"""The account at a venue while a run trades: its stream, the orders that go out, and the comparison with the journal.

Everything that the account tells comes out of ``news`` in one order, to be committed before anything follows from it. What the
venue's messages mean is decided in ``AccountBook``; here is when to ask, when to wait, and when to do less.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Sequence,
)
from types import TracebackType
from typing import Any, Final, Self

import structlog

from bot.errors import VenueError
from bot.execution.bybit.account_book import AccountBook
from bot.execution.bybit.client import BybitAccount
from bot.execution.bybit.codes import Action
from bot.execution.bybit.decode import VenueExecution, VenueOrder
from bot.live_comparison import AccountLimits, Comparison
from bot.live_guards import Guards
from bot.market.bybit_private_stream import PrivateConnected, PrivateDisconnected, PrivateEvent
from bot.orders import (
    AccountEvent,
    AccountStanding,
    EmergencyOrder,
    Notice,
    NoticeKind,
    Order,
    OrderType,
    Side,
    is_guard,
)
from bot.trading import AccountNews

log = structlog.get_logger()

_NOT_ASKED: Final = "the journal is being compared with the venue"


class LiveAccount:
    """One run's account. An asynchronous context manager.

    Args:
        client: for requests.
        stream: of the account's events.
        book: what the run believes.
        token: of the run, for ids of orders that no decision asked for; see ``bot.risk.run_token``.
        limits: how long to wait.
        whole_wallet: money that comes and goes is the run's; else it trades a part of the wallet only.
        rule_changes: asked at every comparison for what has changed in the symbols' trading rules.
    """

    def __init__(
        self,
        client: BybitAccount,
        stream: AsyncIterator[PrivateEvent],
        book: AccountBook,
        *,
        token: str,
        limits: AccountLimits | None = None,
        whole_wallet: bool = True,
        rule_changes: Callable[[], Awaitable[Sequence[AccountEvent]]] | None = None,
    ) -> None:
        self._client = client
        self._stream = stream
        self._book = book
        self._token = token
        self._limits = limits or AccountLimits()
        self._news: deque[AccountNews | Exception] = deque()
        self._told = asyncio.Event()
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._guards = Guards(client, book, token, self, self._change_until)
        self._standing = AccountStanding(True)
        self._comparison = Comparison(
            client,
            book,
            self._guards,
            self,
            limits=self._limits,
            whole_wallet=whole_wallet,
            rule_changes=rule_changes,
        )
        self._connected = False
        self._comparing = False
        self.alarms = 0

    async def __aenter__(self) -> Self:
        self.stand(False, _NOT_ASKED)
        self._tasks = [
            asyncio.create_task(self._guarded(self._listen()), name="account stream"),
            asyncio.create_task(self._guarded(self._watch()), name="reconciliation"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A request that is cut off half-way would have to be looked up at the next start.
        if self._sending:
            await asyncio.wait(self._sending.values(), timeout=self._limits.patience_s)
        for task in [*self._tasks, *self._sending.values()]:
            task.cancel()
        await self._guards.end()
        await asyncio.gather(*self._tasks, *self._sending.values(), return_exceptions=True)

    async def has_news(self) -> None:
        """Wait until the account has told something that was not taken yet."""
        await self._told.wait()

    def take_news(self) -> AccountNews | None:
        """What the account told first of what was not taken yet, to be committed together.

        Raises:
            VenueError: the venue does not take the key any more.
        """
        if not self._news:
            self._told.clear()
            return None
        told = self._news.popleft()
        if isinstance(told, Exception):
            raise told
        return told

    def deliver(self, orders: Sequence[Order]) -> None:
        """Send orders, which are durable, each once; what becomes of them comes with the news."""
        self._guards.delivered(orders)
        for order in orders:
            if order.client_order_id in self._book.waiting:
                self._book.expect(order)
            else:
                self._book.submit(order)
            self._sending[order.client_order_id] = asyncio.create_task(self._send(order), name="order")

    async def last_news(self) -> list[AccountNews]:
        """What was told and not taken, once the orders on their way have come to something."""
        await self.settled(self._book.portfolio.positions)
        told = []
        while (news := self.take_news()) is not None:
            told.append(news)
        return told

    async def settled(self, symbols: Collection[str]) -> None:
        """Wait until no comparison is due and orders of these symbols have come to something, but not for long."""
        patience = time.monotonic() + self._limits.patience_s
        while self._is_busy(symbols) and await self._change_until(patience):
            pass
        grace = time.monotonic() + self._limits.grace_s
        while self._expects_fill(symbols) and await self._change_until(min(grace, patience)):
            pass

    async def idle(self) -> None:
        """Wait until nothing is on its way and no comparison is due."""
        while self._sending or self._is_comparing or self._guards.is_busy:
            await self._changed.wait()

    async def compare(self) -> None:
        """Ask the venue once more; returns once that was done, and nothing is on its way."""
        self.ask()
        await self.idle()

    @property
    def unsettled(self) -> str:
        """What is not clear yet, in words; empty where the account is known and nothing of the run waits at the venue."""
        if not self._standing.known:
            return self._standing.reason
        if self._book.working:
            return f"order {next(iter(self._book.working))} is working"
        if self._guards.unsettled:
            return self._guards.unsettled
        return "something was told that was not taken yet" if self._news else ""

    # -- what comes in -----------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        async for event in self._stream:
            if isinstance(event, PrivateConnected):
                self._connected = True
                self.ask()
            elif isinstance(event, PrivateDisconnected):
                self._connected = False
                if event.refused:
                    raise VenueError(
                        f"the venue does not take the key any more: {event.reason}; look with recall doctor"
                    )
                self.stand(False, f"the account's stream is gone: {event.reason}")
            elif isinstance(event, VenueExecution):
                self._executed(event)
            elif isinstance(event, VenueOrder):
                self.tell(self._book.heard(event))
                if event.client_order_id in self._book.venue.guards and self._book.is_astray(event):
                    self._guards.correct(event)
                if not self._book.is_own(event) or self._book.missing_fills:
                    self.ask()

    def _executed(self, execution: VenueExecution) -> None:
        events = self._book.executed(execution)
        if events is None:
            self.ask()
        elif events:
            self.tell(events)
            asyncio.get_running_loop().call_later(self._limits.verify_s, self.ask)

    async def _send(self, order: Order) -> None:
        guards = is_guard(order.client_order_id)
        try:
            if order.side is Side.SELL and not guards:
                await self._guards.release(order.symbol, self._limits.patience_s)
            sent = await self._client.send(order)
            if sent.is_accepted:
                self._book.acknowledged(order.client_order_id, sent.order_id)
            elif sent.action is Action.LOOK_UP:
                log.warning("order unknown", order=order.client_order_id, reason=sent.reason)
                self.ask()
            else:
                self._declined(order, sent.action, sent.reason)
                events = self._book.declined(order, sent)
                if guards:
                    self._guards.refused(order, events, sent.reason)
                else:
                    self.tell(events)
        except Exception as error:
            self.fail(error)
        finally:
            self._sending.pop(order.client_order_id, None)
            self.signal()
            self._guards.tend(order.symbol)

    def _declined(self, order: Order, action: Action, reason: str) -> None:
        self.alarm(order.symbol, f"the venue refused order {order.client_order_id}: {reason}")
        if action is Action.STAND_DOWN:
            self.stand(False, f"the venue refused an order: {reason}")
            self.ask()
        elif action is Action.STOP:
            self.fail(VenueError(f"the venue does not let this key trade: {reason}; look with recall doctor"))

    # -- comparing ---------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            self._comparing = True
            self._wake.clear()
            delay = await self._comparison.compare()
            self._comparing = False
            self.signal()
            # Not wait_for: that of Python 3.11 loses a cancellation that comes together with what it waits for.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()

    def close_out(self, symbol: str, reason: str) -> None:
        """Close a position that cannot be protected, unless an order of it is at work already."""
        held = self._book.venue.books[symbol]
        quantity = self._book.portfolio.instruments[symbol].whole_lots(abs(held.quantity))
        if not quantity or held.working:
            return
        moment = self._book.newest
        order = Order(
            # The bars do not name it, and a run may need several in one bar.
            f"{self._token}-exit-{time.time_ns() // 1_000_000:x}",
            symbol,
            Side.SELL if held.quantity > 0 else Side.BUY,
            quantity,
            moment,
            moment,
            order_type=OrderType.MARKET,
            reduce_only=True,
        )
        self.alarm(symbol, f"the position cannot have a stop loss ({reason}): it is closed")
        self._book.submit(order)
        self.tell([EmergencyOrder(order, reason)])

    # -- what goes out -----------------------------------------------------------------------------------------------

    def tell(self, events: Iterable[AccountEvent]) -> None:
        """Let the run take in what has happened, together."""
        told = tuple(events)
        if not told:
            return
        for event in told:
            if isinstance(event, Notice):
                log.warning(str(event.kind), symbol=event.symbol, text=event.text)
        self._news.append(told)
        self._told.set()
        self.signal()
        self._guards.heard(told)

    def fail(self, error: Exception) -> None:
        """End the run with an error, once it has taken what was told before."""
        self._news.append(error)
        self._told.set()
        self.signal()

    def signal(self) -> None:
        """Let everybody look again who waits for a change."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def alarm(self, symbol: str, text: str) -> None:
        """Let a person know."""
        self.alarms += 1
        self.tell([Notice(NoticeKind.ALARM, symbol, text)])

    def stand(self, known: bool, reason: str = "", *, foreign: tuple[str, ...] | None = None) -> None:
        """Tell how far the account is known, where that has changed."""
        foreign = self._standing.foreign if foreign is None else foreign
        before, self._standing = self._standing, AccountStanding(known, foreign, reason)
        if (before.known, before.foreign) != (known, foreign):
            self.tell([self._standing])

    def ask(self) -> None:
        """Compare with the venue now."""
        self._wake.set()

    @property
    def standing(self) -> AccountStanding:
        """How far the account is known."""
        return self._standing

    @property
    def is_connected(self) -> bool:
        """Whether the account's stream is."""
        return self._connected

    @property
    def comparisons(self) -> int:
        """Comparisons with the venue, since the start."""
        return self._comparison.comparisons

    def is_sending(self, client_order_id: str) -> bool:
        """Whether an order is on its way."""
        return client_order_id in self._sending

    @property
    def _is_comparing(self) -> bool:
        return self._comparing or self._wake.is_set()

    def _is_busy(self, symbols: Collection[str]) -> bool:
        working = self._book.working
        on_the_way = any(working[name].symbol in symbols for name in self._sending if name in working)
        return on_the_way or self._is_comparing

    def _expects_fill(self, symbols: Collection[str]) -> bool:
        return any(
            order.symbol in symbols and order.order_type is OrderType.MARKET for order in self._book.working.values()
        )

    async def _change_until(self, deadline: float) -> bool:
        """Wait until something has changed; false where nothing did until then."""
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        try:
            async with asyncio.timeout(left):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self.fail(error)
