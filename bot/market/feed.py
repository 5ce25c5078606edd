"""The market feed: the stream's closed bars, healed by REST, as batches in one defined order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

import structlog

from bot.errors import VenueError
from bot.market.batches import FeedEvent, SymbolAvailable, SymbolUnavailable
from bot.market.bybit_stream import KlineClosed, StreamConnected, StreamDisconnected, StreamEvent, SubscriptionRefused
from bot.market.quality import bar_fault
from bot.market.sequencer import Offer, Sequencer, Waiting
from strategies.bars import Bar, Calendar, format_time

_log = structlog.get_logger(__name__)


class KlineHistory(Protocol):
    """Where missed bars are asked for."""

    async def klines(
        self, symbol: str, interval: str, start_ms: int, end_ms: int | None = None, *, calendar: Calendar
    ) -> list[Bar]:
        """Closed bars that open in ``[start_ms, end_ms)``, up to now without an end, oldest first.

        Raises:
            VenueError: they cannot be had.
        """


@dataclass(frozen=True, slots=True)
class FeedLimits:
    """How long the feed waits, in seconds of real time."""

    straggler_s: float = 3.0
    """After the first bar of a batch, until REST is asked for those that lack."""
    answer_s: float = 3.0
    """After that, until the batch leaves without those that REST has not given."""
    retry_s: float = 5.0
    """Between attempts to repair a symbol that REST could not repair."""
    repairs: int = 3
    """Answers of REST that still leave a hole, after which the hole is accepted as the venue's own."""
    quiet_s: float | None = None
    """Without any closed bar for so long, REST is asked for all symbols; ``None`` never asks."""


class _Purpose(Enum):
    """Why a symbol's past is asked for."""

    CATCH_UP = auto()
    """The line was down. Batches wait for the answer, because REST serves the symbols one after the other."""
    HOLE = auto()
    """A bar did not follow on the one before."""
    STRAGGLER = auto()
    """Its batch waits, though nothing of it is known to be missing."""


@dataclass(slots=True)
class _Repair:
    """A symbol whose past is being asked for: its streamed bars wait until the answer is in."""

    purpose: _Purpose
    held: list[Bar] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    answers: int = 0
    retry_at: float = 0.0


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of asking: bars, or why there are none."""

    symbol: str
    task: asyncio.Task[None] | None
    bars: tuple[Bar, ...]
    failure: str | None


class _End:
    """The stream has been closed."""


_Item = StreamEvent | _Answer | Exception | _End


class MarketFeed:
    """Closed bars of all symbols as batches, without a hole and each once, whatever the line does.

    Per symbol bars come in order, and batches in order of close time. After every connection, and where a bar does not
    follow on the one before, REST fills in what was missed before the next bar of that symbol leaves. A bar that is older
    than the newest closed one, or whose batch has already left, is flagged late. A bar that cannot be believed is
    refused and its symbol reported unavailable. Iterate once, and close the iteration (``contextlib.aclosing``).

    Args:
        stream: events of the venue's stream; the feed ends when it does.
        rest: where missed bars are asked for.
        symbols: the order inside a batch.
        interval: the venue's code.
        last_seen: open time of the newest bar that the caller has of each symbol, ``None`` where it has none: then the
            feed begins with the first bar that closes.
        calendars: when the symbols' markets are open; continuous unless given.
        unavailable: symbols that the caller holds to be unavailable, from an earlier feed: each is reported available
            with its first bar that is not late.
        limits: how long to wait.
    """

    def __init__(
        self,
        stream: AsyncIterator[StreamEvent],
        rest: KlineHistory,
        symbols: Sequence[str],
        interval: str,
        last_seen: Mapping[str, int | None],
        *,
        calendars: Mapping[str, Calendar] | None = None,
        unavailable: Collection[str] = (),
        limits: FeedLimits | None = None,
    ) -> None:
        self._stream = stream
        self._rest = rest
        self._interval = interval
        self._limits = limits or FeedLimits()
        self._sequencer = Sequencer(symbols, interval, calendars or {}, last_seen)
        self._inbox: asyncio.Queue[_Item] = asyncio.Queue()
        self._repairs: dict[str, _Repair] = {}
        self._without_subscription: set[str] = set()
        self._unavailable = set(unavailable)
        self._notices: list[SymbolUnavailable] = []
        self._waiting_for: int | None = None
        self._deadline = 0.0
        self._heard_at = 0.0
        self._caught_up = asyncio.Event()
        self.connected = False
        self.repaired_bars = 0
        """Bars that came by REST because the stream had not brought them."""
        self.refused_bars = 0

    def __aiter__(self) -> AsyncIterator[FeedEvent]:
        return self.events()

    async def caught_up(self) -> None:
        """Wait until the stream is connected and nothing is known to be missing; needs somebody who iterates."""
        await self._caught_up.wait()

    async def events(self) -> AsyncGenerator[FeedEvent]:
        """Batches, and symbols that come and go, until the stream ends.

        Raises:
            Exception: whatever the stream raised; a venue that fails is no exception.
        """
        pump = asyncio.create_task(self._pump(), name="market feed")
        self._heard_at = time.monotonic()
        ending: _End | Exception | None = None
        try:
            while ending is None:
                item = await self._next_item()
                if item is None:
                    self._on_time()
                else:
                    ending = self._on_items(item)
                for event in self._take_events():
                    yield event
                self._mark_caught_up()
            if isinstance(ending, Exception):
                raise ending
        finally:
            tasks = [pump, *(repair.task for repair in self._repairs.values() if repair.task is not None)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(self) -> None:
        try:
            async for event in self._stream:
                self._inbox.put_nowait(event)
            self._inbox.put_nowait(_End())
        except Exception as error:
            self._inbox.put_nowait(error)

    def _take_events(self) -> list[FeedEvent]:
        events: list[FeedEvent] = [*self._notices]
        self._notices.clear()
        for batch in self._sequencer.take_ready():
            if self._unavailable:
                on_time = [bar.symbol for bar, late in zip(batch.bars, batch.late, strict=True) if not late]
                # The batch may have been overtaken by a bar that was refused.
                back = [symbol for symbol in on_time if not self._sequencer.has_given_up(symbol)]
                events.extend(SymbolAvailable(symbol) for symbol in back if symbol in self._unavailable)
                self._unavailable.difference_update(back)
            events.append(batch)
        return events

    def _mark_caught_up(self) -> None:
        if self.connected and not self._repairs:
            self._caught_up.set()
        else:
            self._caught_up.clear()

    # -- waiting -----------------------------------------------------------------------------------------------------

    async def _next_item(self) -> _Item | None:
        """The next thing that happens; ``None`` when a time limit comes first."""
        if not self._inbox.empty():
            return self._inbox.get_nowait()
        alarm = self._next_alarm()
        if alarm is None:
            return await self._inbox.get()
        try:
            async with asyncio.timeout(max(0.0, alarm - time.monotonic())):
                return await self._inbox.get()
        except TimeoutError:
            return None

    def _next_alarm(self) -> float | None:
        alarms = [repair.retry_at for repair in self._repairs.values() if repair.task is None]
        waiting = self._sequencer.waiting()
        if waiting is None:
            self._waiting_for = None
        else:
            if waiting.close_time != self._waiting_for:
                self._waiting_for = waiting.close_time
                self._deadline = time.monotonic() + self._limits.straggler_s
            if any(symbol not in self._repairs for symbol in waiting.missing):
                alarms.append(self._deadline)
            elif self._overdue(waiting):
                alarms.append(self._deadline + self._limits.answer_s)
        if self._limits.quiet_s is not None:
            alarms.append(self._heard_at + self._limits.quiet_s)
        return min(alarms, default=None)

    def _on_time(self) -> None:
        now = time.monotonic()
        for symbol, repair in self._repairs.items():
            if repair.task is None and repair.retry_at <= now:
                self._ask(symbol, repair)
        waiting = self._sequencer.waiting()
        if waiting is not None and self._deadline + self._limits.answer_s <= now:
            for symbol in self._overdue(waiting):
                self._report(symbol, "REST did not answer in time")
        if waiting is not None and self._deadline <= now:
            for symbol in waiting.missing:
                if symbol not in self._repairs:
                    self._start_repair(symbol, _Purpose.STRAGGLER)
        if self._limits.quiet_s is not None and self._heard_at + self._limits.quiet_s <= now:
            self._heard_at = now
            self._catch_up()

    def _overdue(self, waiting: Waiting) -> list[str]:
        """Symbols that REST was asked for while a batch waits."""
        repairs = [(symbol, self._repairs.get(symbol)) for symbol in waiting.missing]
        return [symbol for symbol, repair in repairs if repair and repair.purpose is not _Purpose.CATCH_UP]

    # -- what happens ------------------------------------------------------------------------------------------------

    def _on_items(self, item: _Item) -> _End | Exception | None:
        """Take in an item and all that wait behind it; returns what ended the stream, if it did.

        After this process was frozen, or busy for long, only the newest of the bars that queued up is on time.
        """
        while not isinstance(item, _End | Exception):
            self._on_item(item)
            if self._inbox.empty():
                return None
            item = self._inbox.get_nowait()
        return item

    def _on_item(self, item: StreamEvent | _Answer) -> None:
        if isinstance(item, KlineClosed):
            self._on_bar(item)
        elif isinstance(item, _Answer):
            self._on_answer(item)
        elif isinstance(item, StreamConnected):
            self.connected = True
            self._sequencer.wait_for(set(self._sequencer.symbols) - self._without_subscription)
            self._catch_up()
        elif isinstance(item, StreamDisconnected):
            self.connected = False
            self._without_subscription.clear()
        elif isinstance(item, SubscriptionRefused):
            self._without_subscription.add(item.symbol)
            self._report(item.symbol, f"the venue refused its subscription: {item.reason}")

    def _on_bar(self, event: KlineClosed) -> None:
        bar = event.bar
        self._heard_at = time.monotonic()
        if self._is_refused(bar, event.venue_time):
            return
        self._sequencer.saw(bar)
        repair = self._repairs.get(bar.symbol)
        if repair is not None:
            repair.held.append(bar)
        elif self._sequencer.offer(bar) is Offer.HOLE:
            self._start_repair(bar.symbol, _Purpose.HOLE, [bar])

    def _is_refused(self, bar: Bar, venue_time: int = 0) -> bool:
        fault = bar_fault(bar, self._interval, self._sequencer.calendar(bar.symbol), venue_time)
        if fault is not None:
            self.refused_bars += 1
            self._report(bar.symbol, fault)
        return fault is not None

    def _report(self, symbol: str, reason: str) -> None:
        """A symbol's newest bar is not known: no batch waits for it, and the consumer is told once."""
        self._sequencer.give_up(symbol)
        if symbol not in self._unavailable:
            _log.warning("symbol unavailable", symbol=symbol, reason=reason)
            self._unavailable.add(symbol)
            self._notices.append(SymbolUnavailable(symbol, reason))

    # -- repairs -----------------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Ask for everything since the last known bars; questions under way may have been asked too early."""
        for symbol in self._sequencer.symbols:
            repair = self._repairs.pop(symbol, None)
            if repair is not None and repair.task is not None:
                repair.task.cancel()
            held = [] if repair is None else repair.held
            is_known = self._sequencer.last_open(symbol) is not None or bool(held)
            if is_known and symbol not in self._without_subscription:
                self._start_repair(symbol, _Purpose.CATCH_UP, held)

    def _start_repair(self, symbol: str, purpose: _Purpose, held: list[Bar] | None = None) -> None:
        repair = self._repairs[symbol] = _Repair(purpose, held or [])
        self._ask(symbol, repair)

    def _ask(self, symbol: str, repair: _Repair) -> None:
        last = self._sequencer.last_open(symbol)
        if last is None:
            waiting = self._sequencer.waiting()
            known = repair.held if waiting is None else [*repair.held, *waiting.held]
            start = min(bar.open_time for bar in known)
        else:
            start = last + 1
        repair.task = asyncio.create_task(self._fetch(symbol, start), name=f"repair of {symbol}")

    async def _fetch(self, symbol: str, start: int) -> None:
        bars: list[Bar] = []
        failure = None
        calendar = self._sequencer.calendar(symbol)
        try:
            bars = await self._rest.klines(symbol, self._interval, start, calendar=calendar)
        except VenueError as error:
            failure = str(error)
        except Exception as error:
            self._inbox.put_nowait(error)
            return
        self._inbox.put_nowait(_Answer(symbol, asyncio.current_task(), tuple(bars), failure))

    def _on_answer(self, answer: _Answer) -> None:
        symbol = answer.symbol
        repair = self._repairs.get(symbol)
        if repair is None or repair.task is not answer.task:
            return
        repair.task = None
        streamed = {bar.open_time: bar for bar in repair.held}
        fetched = {bar.open_time: bar for bar in answer.bars if not self._is_refused(bar)}
        fresh = [bar for _, bar in sorted((streamed | fetched).items()) if self._sequencer.is_news(bar)]
        reason = answer.failure
        if reason is None:
            repair.answers += 1
            if fresh and not self._sequencer.follows(fresh[0]):
                reason = f"bars before {format_time(fresh[0].open_time)} are missing at the venue"
        is_straggler = repair.purpose is _Purpose.STRAGGLER
        if reason is not None and (repair.held or not is_straggler) and repair.answers < self._limits.repairs:
            repair.retry_at = time.monotonic() + self._limits.retry_s
            self._report(symbol, reason)
            return
        del self._repairs[symbol]
        self.repaired_bars += sum(bar.open_time not in streamed for bar in fresh)
        self._sequencer.accept(fresh)
        if is_straggler:
            self._stop_waiting_for(symbol, reason)

    def _stop_waiting_for(self, symbol: str, reason: str | None) -> None:
        """REST was asked for a straggler; if its bar has still not come, its batch leaves without it."""
        waiting = self._sequencer.waiting()
        if waiting is None or symbol not in waiting.missing:
            return
        if self._sequencer.calendar(symbol) is Calendar.SESSIONS and reason is None:
            self._sequencer.give_up(symbol)
        else:
            self._report(symbol, reason or f"its bar that closed at {format_time(waiting.close_time)} did not come")
