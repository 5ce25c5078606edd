"""Plain strategies that everything cleverer has to beat: a moving-average cross, and holding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, repeat
from typing import ClassVar, Final

import numpy as np

from strategies.bars import Bar, BarSeries, FloatArray, IntArray
from strategies.base import Signal, Strategy
from strategies.errors import SettingsError

_KEPT: Final = 4096  # closes kept before the oldest are dropped together, so that dropping costs nothing per bar
_AT_ONCE: Final = 256  # signals made ahead together, few enough to stay in the processor's cache
_ROOM: Final = 2.0**62  # what sums in 64 bits may come to
_REASONS: Final = ("averages equal", "fast average above slow", "fast average below slow")  # by sign of the lead


def fixed_point(price: float) -> int:
    """A price in units of 1e-15, exact for the decimals that venues quote.

    Prices from 1 on may have up to 9 decimals, lower ones up to 15; what is finer is rounded. Sums of such integers do
    not depend on where they were started, unlike running sums of floats, and equal means compare equal.
    """
    return round(price * 1e9) * 1_000_000 if price >= 1.0 else round(price * 1e15)


def fixed_points(before: list[int], closes: FloatArray) -> IntArray | None:
    """``before`` (of ``fixed_point``) and the fixed points of ``closes`` as one array in a unit that all share.

    ``None`` where no unit holds all of them in 62 bits.
    """
    lowest, highest = float(closes.min()), float(closes.max())
    coarse = lowest >= 1.0 and min(before) >= 10**15
    most = _ROOM / (1e9 if coarse else 1e15)
    if not (0.0 <= lowest <= highest < most and max(before) < most * 1e15):
        return None
    small = closes < 1.0
    fixed = np.rint(closes * np.where(small, 1e15, 1e9)).astype(np.int64)
    if coarse:
        return np.concatenate(([price // 1_000_000 for price in before], fixed))
    return np.concatenate((before, np.where(small, fixed, fixed * 1_000_000)))


class _Averages:
    """Sums of the last closes of one symbol over two windows."""

    __slots__ = ("closes", "fast_sum", "missing", "slow_sum")

    def __init__(self, slow: int) -> None:
        self.closes = [0] * slow
        self.fast_sum = 0
        self.slow_sum = 0
        self.missing = slow  # closes until the slow average is one


class SmaCross(Strategy):
    """Long while the fast simple moving average of closes is above the slow one, short (or flat) while below.

    Equal averages ask for no position; before ``slow`` bars the answer is unknown. The signal of a bar is a function of
    the last ``slow`` closes alone, exactly.

    Args:
        fast: bars in the fast average.
        slow: bars in the slow average, more than ``fast``.
        long_only: flat instead of short.

    Raises:
        SettingsError: not 1 <= fast < slow.
    """

    name: ClassVar[str] = "sma_cross"

    def __init__(self, fast: int = 20, slow: int = 50, *, long_only: bool = False) -> None:
        if not 1 <= fast < slow:
            raise SettingsError(f"sma_cross: fast is {fast} and slow is {slow}; give 1 <= fast < slow")
        self.fast = fast
        self.slow = slow
        self._targets = (0.0, 1.0, 0.0 if long_only else -1.0)  # by sign of the lead
        self._averages: dict[str, _Averages] = {}
        self._upcoming: dict[str, BarSeries] = {}
        self._ahead: dict[str, Iterator[tuple[Signal, float]]] = {}

    @property
    def required_bars(self) -> int:
        """Bars that fill the slow average."""
        return self.slow

    def warm(self, history: Mapping[str, BarSeries], *, remember: bool = True) -> None:
        """See ``Strategy.warm``; only the last closes matter."""
        self._averages.clear()
        self._upcoming.clear()
        self._ahead.clear()
        for symbol, series in history.items():
            for close in series.close[-self.slow :].tolist():
                self._update(symbol, close)

    def preview(self, upcoming: Mapping[str, BarSeries]) -> None:
        """Make the signals of bars to come in bulk; each is given out once its bar has been shown, and only for that bar."""
        for symbol in list(self._ahead):
            refused, _ = next(self._ahead[symbol], (None, 0.0))
            self._leave(symbol, refused)
        for symbol, series in upcoming.items():
            averages = self._averages.get(symbol)
            if averages is None or averages.missing or not len(series):
                continue
            sides = self._sides(averages.closes[-self.slow :], series.close)
            if sides is not None:
                self._upcoming[symbol] = series
                self._ahead[symbol] = self._foreseen(series, sides)

    def on_bar(self, bar: Bar) -> Signal:
        """The side of the cross after one closed bar."""
        symbol = bar.symbol
        ahead = self._ahead.get(symbol)
        if ahead is not None:
            refused = None
            for signal, close in ahead:
                if close == bar.close and signal.bar_open_time == bar.open_time:
                    return signal
                refused = signal
                break
            self._leave(symbol, refused)
        lead = self._update(symbol, bar.close)
        if lead is None:
            return Signal(symbol, bar.open_time, None, "too few bars for the slow average")
        side = 1 if lead > 0 else -1 if lead < 0 else 0
        return Signal(symbol, bar.open_time, self._targets[side], _REASONS[side])

    def _sides(self, before: list[int], closes: FloatArray) -> IntArray | None:
        """Sign of the fast average's lead at each of ``closes``, ``[n]``; ``None`` where 64 bits may not do."""
        fast, slow = self.fast, self.slow
        fixed = fixed_points(before, closes)
        if fixed is None or float(fixed.max() - fixed.min()) * fast * (slow - fast) >= _ROOM:
            return None
        # The running sum may wrap around; differences that fit are right all the same.
        sums = np.concatenate(([0], np.cumsum(fixed)))
        until = sums[slow + 1 :]
        lead = (until - sums[slow + 1 - fast : -fast]) * slow - (until - sums[1:-slow]) * fast
        signs: IntArray = np.sign(lead)
        return signs

    def _foreseen(self, series: BarSeries, sides: IntArray) -> Iterator[tuple[Signal, float]]:
        """Signals with the closes that they follow from, in order."""
        targets, reasons = np.array(self._targets), np.array(_REASONS, dtype=object)

        def part(start: int) -> Iterator[tuple[Signal, float]]:
            here = slice(start, start + _AT_ONCE)
            side = sides[here]
            times, closes = series.open_time[here].tolist(), series.close[here].tolist()
            signals = map(Signal, repeat(series.symbol), times, targets[side].tolist(), reasons[side].tolist())
            return zip(signals, closes, strict=True)

        return chain.from_iterable(map(part, range(0, len(series), _AT_ONCE)))

    def _leave(self, symbol: str, refused: Signal | None) -> None:
        """Go on bar by bar: the preview ended, or the next bar is not the one it ``refused``."""
        del self._ahead[symbol]
        series = self._upcoming.pop(symbol)
        shown = len(series) if refused is None else int(np.searchsorted(series.open_time, refused.bar_open_time))
        for close in series.close[max(0, shown - self.slow) : shown].tolist():
            self._update(symbol, close)

    def _update(self, symbol: str, close: float) -> int | None:
        """Take in a close; how far the fast average leads, times both lengths, or ``None`` before there is a slow one."""
        averages = self._averages.get(symbol)
        if averages is None:
            averages = self._averages[symbol] = _Averages(self.slow)
        fast, slow = self.fast, self.slow
        closes = averages.closes
        price = fixed_point(close)
        averages.fast_sum = fast_sum = averages.fast_sum + price - closes[-fast]
        averages.slow_sum = slow_sum = averages.slow_sum + price - closes[-slow]
        closes.append(price)
        if len(closes) > slow + _KEPT:
            del closes[:-slow]
        if averages.missing:
            averages.missing -= 1
            if averages.missing:
                return None
        return fast_sum * slow - slow_sum * fast


class BuyAndHold(Strategy):
    """Fully long from the first bar on."""

    name: ClassVar[str] = "buy_and_hold"

    @property
    def required_bars(self) -> int:
        """None: it looks at nothing."""
        return 0

    def warm(self, history: Mapping[str, BarSeries], *, remember: bool = True) -> None:
        """See ``Strategy.warm``; there is nothing to know."""

    def on_bar(self, bar: Bar) -> Signal:
        """Everything in."""
        return Signal(bar.symbol, bar.open_time, 1.0, "hold")
