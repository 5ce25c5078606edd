"""The sandbox's market at a moment: which candles have closed, which is forming, which closes next. No sockets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backtest.sandbox.clock import Clock, ClockSetting, make_clock
from backtest.sandbox.protocol import forming
from backtest.sandbox.resampling import floor_open, intervals_of, resample
from backtest.sandbox.sources import BarSource
from strategies.bars import Bar, interval_ms


@dataclass(frozen=True, slots=True)
class Release:
    """One candle that has just closed, and the one that opened in its place, if one did."""

    closed: Bar
    opened: Bar | None


class Tape:
    """Candles of several symbols under one clock.

    Bars are released as they close. Those that open before ``history_until`` are history and never released, also where
    they close after the start, as a stock's daily bar does when the start is midnight.

    Args:
        sources: candles by symbol; their order is the order of release.
        interval: the venue's interval code.
        setting: how time passes.
        start: simulated time at which the tape begins, moved forward to the open of the first bar to release if none is
            forming then; ``None`` begins with the earliest bar of all sources.
        history_until: end of the history, by open time; ``start`` unless given. Whoever goes on with a run gives where
            that run once began, so that bars that were forming when it stopped are still released.

    Raises:
        ValueError: there is no source, or no source has a bar to release.
    """

    def __init__(
        self,
        sources: Mapping[str, BarSource],
        interval: str,
        setting: ClockSetting,
        start: int | None = None,
        *,
        history_until: int | None = None,
    ) -> None:
        if not sources:
            raise ValueError("the sandbox needs at least one symbol to play")
        until = start if history_until is None else history_until
        self._next = {symbol: _first_release(source, start, until) for symbol, source in sources.items()}
        firsts = {symbol: bar for symbol, bar in self._next.items() if bar is not None}
        if not firsts:
            raise ValueError(
                f"the sandbox has no bar of {', '.join(sources)} from the start asked for; choose an earlier one"
            )
        self.interval = interval
        self.intervals = intervals_of(interval)
        """What can be asked for, the venue's own first."""
        self.setting = setting
        self._sources = dict(sources)
        begin = min(bar.open_time for bar in firsts.values())
        self.clock: Clock = make_clock(setting, begin if start is None else max(begin, start))
        finals = [self._sources[symbol].final_close() for symbol in firsts]
        if None not in finals:
            self.clock.stop_at(max(final for final in finals if final is not None))
        self.released = dict.fromkeys(self._sources, 0)
        self.closes = 0
        """Moments at which candles were released."""
        self._hidden: dict[tuple[str, int], int | None] = {}

    @property
    def symbols(self) -> tuple[str, ...]:
        """Symbols in their order of release."""
        return tuple(self._sources)

    def now(self) -> int:
        """Simulated time in milliseconds."""
        return self.clock.now()

    def next_close(self) -> int | None:
        """When the next candle closes, or ``None`` when all have been released."""
        return min((bar.close_time for bar in self._next.values() if bar is not None), default=None)

    def release(self) -> list[Release]:
        """Let time reach the next close and hand out all candles that close then; an empty list when none is left."""
        time = self.next_close()
        if time is None:
            return []
        self.clock.advance_to(time)
        self.closes += 1
        released = []
        for symbol, bar in self._next.items():
            if bar is None or bar.close_time != time:
                continue
            following = self._sources[symbol].following(time)
            self._next[symbol] = following
            self.released[symbol] += 1
            opened = forming(following, time) if following is not None and following.open_time <= time else None
            released.append(Release(bar, opened))
        return released

    def hide(self, bar: Bar, closes: int = 0) -> None:
        """Do not tell a bar, as if it did not exist: for ever or, where ``closes`` is not 0, for so many closes."""
        self._hidden[bar.symbol, bar.open_time] = self.closes + closes if closes else None

    @property
    def withheld(self) -> frozenset[tuple[str, int]]:
        """Symbol and open time of bars that are not told, or were not for a while."""
        return frozenset(self._hidden)

    def current(self, symbol: str) -> Bar | None:
        """The candle that is forming now, as far as it has come."""
        now = self.now()
        bar = self._sources[symbol].following(now)
        return forming(bar, now) if bar is not None and bar.open_time <= now else None

    def flat(self, symbol: str) -> Bar | None:
        """A bar flat at the price of the moment, with the volume that the bar which forms will have.

        The price is where the forming candle stands or, while none forms, the last close.
        """
        now = self.now()
        bars = self._sources[symbol].between(0, now, 1)
        if not bars:
            return None
        bar = bars[-1]
        price = bar.open if bar.close_time > now else bar.close
        return Bar(symbol, now, now, price, price, price, price, bar.volume)

    def candles(self, symbol: str, interval: str, first: int | None, last: int | None, limit: int) -> list[Bar]:
        """As ``klines``, of an interval that the venue's own can be put together to."""
        if interval == self.interval:
            return self.klines(symbol, first, last, limit)
        now, length = self.now(), interval_ms(interval)
        newest = floor_open(now if last is None else min(last, now), interval)
        begin = 0 if first is None else floor_open(first + length - 1, interval)
        if first is not None and last is None:
            newest = min(newest, begin + (limit - 1) * length)
        begin = max(begin, newest - (limit - 1) * length)
        bars = self.klines(symbol, begin, newest + length - 1, limit * (length // interval_ms(self.interval)))
        return resample(bars, interval)

    def klines(self, symbol: str, first: int | None, last: int | None, limit: int) -> list[Bar]:
        """Bars that open in ``[first, last]`` and not after now, in order, the last perhaps still forming.

        Without ``last`` but with ``first``, the ``limit`` bars from ``first`` on; otherwise the newest of the window.
        """
        now = self.now()
        until = now if last is None else min(last, now)
        if first is not None and last is None:
            until = min(until, first + (limit - 1) * interval_ms(self.interval))
        bars = self._sources[symbol].between(0 if first is None else first, until, limit)
        if bars and bars[-1].close_time > now:
            bars[-1] = forming(bars[-1], now)
        return [bar for bar in bars if not self._is_hidden(bar)] if self._hidden else bars

    def _is_hidden(self, bar: Bar) -> bool:
        until = self._hidden.get((bar.symbol, bar.open_time), 0)
        return until is None or self.closes < until


def _first_release(source: BarSource, start: int | None, history_until: int | None) -> Bar | None:
    """The first bar that closes after ``start`` and opens at or after ``history_until``."""
    opened = source.opening_from(history_until)
    if opened is None:
        return None
    return source.following(opened if start is None else max(opened, start))
