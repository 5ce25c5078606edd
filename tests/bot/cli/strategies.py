"""Strategies as users write them: one that works, and some that fail in ways of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from strategies.bars import Bar, BarSeries
from strategies.base import Signal, Strategy
from strategies.errors import SettingsError


class BuyTheDip(Strategy):
    """Long while the close is below the one some bars ago."""

    name: ClassVar[str] = "buy_the_dip"

    def __init__(self, bars: int = 10) -> None:
        if bars < 1:
            raise SettingsError(f"buy_the_dip: bars is {bars}; it must be at least 1")
        self.bars = bars
        self._closes: dict[str, list[float]] = {}

    @property
    def required_bars(self) -> int:
        """As many as it looks back."""
        return self.bars

    def warm(self, history: Mapping[str, BarSeries], *, remember: bool = True) -> None:
        """Take the last closes."""
        self._closes = {symbol: series.close[-self.bars :].tolist() for symbol, series in history.items()}

    def on_bar(self, bar: Bar) -> Signal:
        """Compare and move on."""
        closes = self._closes[bar.symbol]
        closes.append(bar.close)
        past = closes.pop(0)
        return Signal(
            bar.symbol, bar.open_time, 1.0 if bar.close < past else 0.0, "below" if bar.close < past else "above"
        )


class Peeks(BuyTheDip):
    """Looks at the bar that follows, which a replay offers for other ends."""

    name: ClassVar[str] = "peeks"

    def preview(self, upcoming: Mapping[str, BarSeries]) -> None:
        """Keep what must not be kept."""
        self._next = {
            int(at): close
            for series in upcoming.values()
            for at, close in zip(series.open_time[:-1], series.close[1:].tolist(), strict=True)
        }

    def on_bar(self, bar: Bar) -> Signal:
        """Buy what is going to rise."""
        return Signal(bar.symbol, bar.open_time, 1.0 if self._next.get(bar.open_time, 0.0) > bar.close else -1.0)


class Forgetful(BuyTheDip):
    """An exponential average that says that one bar is enough for it."""

    name: ClassVar[str] = "forgetful"

    def __init__(self) -> None:
        super().__init__(1)
        self._average: float | None = None

    def warm(self, history: Mapping[str, BarSeries], *, remember: bool = True) -> None:
        """Average the past."""
        for series in history.values():
            for bar in series.bars():
                self.on_bar(bar)

    def on_bar(self, bar: Bar) -> Signal:
        """Above the average or not."""
        before = bar.close if self._average is None else self._average
        self._average = before + 0.05 * (bar.close - before)
        return Signal(bar.symbol, bar.open_time, 1.0 if bar.close > self._average else 0.0)


class Broken(BuyTheDip):
    """Fails at the first bar."""

    name: ClassVar[str] = "broken"

    def on_bar(self, bar: Bar) -> Signal:
        """A bug."""
        return Signal(bar.symbol, bar.open_time, 1 / 0)


class Confused(BuyTheDip):
    """Fails with an error that also means bad input elsewhere."""

    name: ClassVar[str] = "confused"

    def on_bar(self, bar: Bar) -> Signal:
        """Another bug."""
        raise ValueError(f"cannot make sense of {bar.symbol}\nat all")


class Impatient(BuyTheDip):
    """Behaves as if somebody pressed Ctrl-C."""

    name: ClassVar[str] = "impatient"

    def on_bar(self, bar: Bar) -> Signal:
        """Press it."""
        raise KeyboardInterrupt


class TakesTurns(BuyTheDip):
    """Long and flat in turns of its own decisions: how many there were is not to be seen in the bars."""

    name: ClassVar[str] = "takes_turns"

    def warm(self, history: Mapping[str, BarSeries], *, remember: bool = True) -> None:
        """Nothing is decided yet."""
        self._decided = 0

    def on_bar(self, bar: Bar) -> Signal:
        """Count, and take the turn."""
        self._decided += 1
        return Signal(bar.symbol, bar.open_time, float(self._decided // self.bars % 2), f"decision {self._decided}")

    def state(self) -> bytes:
        """The count."""
        return msgspec.msgpack.encode(self._decided)

    def restore(self, state: bytes) -> None:
        """Go on counting."""
        self._decided = msgspec.msgpack.decode(state, type=int)


class TurnsRound(TakesTurns):
    """Long and short in turns of its own decisions."""

    name: ClassVar[str] = "turns_round"

    def on_bar(self, bar: Bar) -> Signal:
        """As long as it would be flat it wants to be short."""
        turn = super().on_bar(bar)
        return Signal(bar.symbol, bar.open_time, 1.0 if turn.target_exposure else -1.0, turn.reason)


class Unfinished(Strategy):
    """Lacks methods."""

    name: ClassVar[str] = "unfinished"
