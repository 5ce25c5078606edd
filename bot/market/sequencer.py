"""Puts closed bars in order: per symbol without holes, across symbols by close time, as batches. Pure, no clock, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from bot.market.batches import BarBatch
from strategies.bars import HOUR_MS, Bar, Calendar, close_time_of, interval_ms


class Offer(Enum):
    """What became of a bar that was offered."""

    ACCEPTED = auto()
    STALE = auto()
    """Already known, or older than what is known."""
    HOLE = auto()
    """Bars before it are missing; it was not taken."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch that is not ready: the bars that it has, and the symbols that it lacks."""

    close_time: int
    held: tuple[Bar, ...]
    missing: tuple[str, ...]


class Sequencer:
    """Bars in, batches out.

    A batch holds the bars that close together, in the order of ``symbols``. It is ready when every symbol that can have
    a bar of that close has sent it, except symbols that have been given up. Batches leave in order of close time; a bar
    that comes after its batch has left follows as a batch of its own, flagged late.

    Args:
        symbols: the order inside a batch.
        interval: the venue's code.
        calendars: of each symbol; on a continuous one a bar opens exactly when the one before closed.
        last_seen: open time of each symbol's last known bar, ``None`` where none is.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        interval: str,
        calendars: Mapping[str, Calendar],
        last_seen: Mapping[str, int | None],
    ) -> None:
        self.symbols = tuple(symbols)
        self._interval = interval
        self._length = interval_ms(interval)
        self._calendars = {symbol: calendars.get(symbol, Calendar.CONTINUOUS) for symbol in symbols}
        self._last: dict[str, tuple[int, int]] = {}
        for symbol in symbols:
            opened = last_seen.get(symbol)
            if opened is not None:
                self._last[symbol] = (opened, close_time_of(opened, interval, self._calendars[symbol]))
        self._pending: dict[int, dict[str, Bar]] = {}
        self._left = max((closed for _, closed in self._last.values()), default=0)
        self._newest = self._left
        self._given_up: set[str] = set()

    def calendar(self, symbol: str) -> Calendar:
        """When the symbol's market is open."""
        return self._calendars[symbol]

    def last_open(self, symbol: str) -> int | None:
        """Open time of the newest bar that was accepted."""
        last = self._last.get(symbol)
        return None if last is None else last[0]

    def offer(self, bar: Bar) -> Offer:
        """Take a bar if it follows on what is known of its symbol."""
        if not self.is_news(bar):
            return Offer.STALE
        if not self.follows(bar):
            return Offer.HOLE
        self._accept(bar)
        return Offer.ACCEPTED

    def accept(self, bars: Iterable[Bar]) -> None:
        """Take the bars of one symbol that are newer than what is known, across whatever holes remain."""
        for bar in bars:
            if self.is_news(bar):
                self._accept(bar)

    def saw(self, bar: Bar) -> None:
        """The bar has closed, though it may not be offered yet: whatever closed before it is late."""
        self._newest = max(self._newest, bar.close_time)

    def _accept(self, bar: Bar) -> None:
        self.saw(bar)
        self._last[bar.symbol] = (bar.open_time, bar.close_time)
        self._pending.setdefault(bar.close_time, {})[bar.symbol] = bar
        self._given_up.discard(bar.symbol)

    def is_news(self, bar: Bar) -> bool:
        """The bar is newer than what is known of its symbol."""
        last = self._last.get(bar.symbol)
        return last is None or bar.open_time > last[0]

    def follows(self, bar: Bar) -> bool:
        """The bar is the very next of its symbol, or nothing is known of the symbol yet."""
        last = self._last.get(bar.symbol)
        return last is None or bar.open_time == last[1] or self._calendars[bar.symbol] is not Calendar.CONTINUOUS

    def give_up(self, symbol: str) -> None:
        """Let no batch wait for a symbol until its next bar is accepted."""
        self._given_up.add(symbol)

    def has_given_up(self, symbol: str) -> bool:
        """No batch waits for the symbol."""
        return symbol in self._given_up

    def wait_for(self, symbols: Iterable[str]) -> None:
        """Let batches wait for symbols again that had been given up."""
        self._given_up.difference_update(symbols)

    def waiting(self) -> Waiting | None:
        """The oldest batch that has not left, or ``None``."""
        if not self._pending:
            return None
        time = min(self._pending)
        held = self._pending[time]
        return Waiting(time, tuple(held.values()), tuple(self._missing(time, held)))

    def take_ready(self) -> list[BarBatch]:
        """Batches that may leave now, in order."""
        batches = []
        while self._pending:
            time = min(self._pending)
            held = self._pending[time]
            if time > self._left and self._missing(time, held):
                break
            late = time <= self._left or time < self._newest
            del self._pending[time]
            self._left = max(self._left, time)
            bars = tuple(held[symbol] for symbol in self.symbols if symbol in held)
            batches.append(BarBatch(bars, (late,) * len(bars)))
        return batches

    def _missing(self, time: int, held: Mapping[str, Bar]) -> list[str]:
        return [
            symbol
            for symbol in self.symbols
            if symbol not in held and symbol not in self._given_up and self._may_close_at(symbol, time)
        ]

    def _may_close_at(self, symbol: str, time: int) -> bool:
        """A bar of the symbol can still come that closes at ``time``.

        Bars of one market close at whole intervals from each other; daily sessions shift by an hour with summer time.
        """
        last = self._last.get(symbol)
        if last is None or self._interval == "M":
            return last is None or last[1] < time
        distance = time - last[1]
        if distance <= 0:
            return False
        away = min(distance % self._length, -distance % self._length)
        shifting = self._interval == "D" and self._calendars[symbol] is Calendar.SESSIONS
        return away <= (HOUR_MS if shifting else 0)
