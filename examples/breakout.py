"""Breakout: long above the highest high of the last bars, flat below the lowest low, and in between no opinion."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import ClassVar

from strategies.bars import Bar, BarSeries
from strategies.base import Signal, Strategy
from strategies.errors import SettingsError


class Breakout(Strategy):
    """Follow a move out of the range of the last ``bars`` bars.

    Raises:
        SettingsError: ``bars`` is less than 2, or ``stop`` is not above 0 and below 1.
    """

    name: ClassVar[str] = "breakout"

    def __init__(self, bars: int = 48, stop: float = 0.03) -> None:
        if bars < 2:
            raise SettingsError(f"breakout: bars is {bars}; it must be at least 2")
        if not 0.0 < stop < 1.0:
            raise SettingsError(f"breakout: stop is {stop}; it must be above 0 and below 1")
        self.bars = bars
        self.stop = stop
        self._ranges: dict[str, deque[tuple[float, float]]] = {}

    @property
    def required_bars(self) -> int:
        """The bars of one whole range."""
        return self.bars

    def warm(self, history: Mapping[str, BarSeries], *, remember: bool = True) -> None:
        """Begin anew with the last bars of every symbol."""
        self._ranges = {}
        for symbol, series in history.items():
            pairs = zip(series.high[-self.bars :].tolist(), series.low[-self.bars :].tolist(), strict=True)
            self._ranges[symbol] = deque(pairs, maxlen=self.bars)

    def on_bar(self, bar: Bar) -> Signal:
        """Compare the close with the range before this bar; then the bar becomes part of the range."""
        earlier = self._ranges.setdefault(bar.symbol, deque(maxlen=self.bars))
        signal = self._decide(bar, earlier)
        earlier.append((bar.high, bar.low))
        return signal

    def _decide(self, bar: Bar, earlier: deque[tuple[float, float]]) -> Signal:
        if len(earlier) < self.bars:
            return Signal(bar.symbol, bar.open_time, None, "too few bars for a range")
        if bar.close > max(high for high, _ in earlier):
            return Signal(bar.symbol, bar.open_time, 1.0, "above the range", stop_distance=self.stop)
        if bar.close < min(low for _, low in earlier):
            return Signal(bar.symbol, bar.open_time, 0.0, "below the range")
        return Signal(bar.symbol, bar.open_time, None, "inside the range: hold")
