"""Plain strategies that everything cleverer has to beat: a moving-average cross, and holding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from strategies.bars import Bar, BarSeries
from strategies.base import Signal, Strategy
from strategies.errors import SettingsError

_KEPT: Final = 4096  # closes kept before the oldest are dropped together, so that dropping costs nothing per bar


def fixed_point(price: float) -> int:
    """A price in units of 1e-15, exact for the decimals that venues quote.

    Prices from 1 on may have up to 9 decimals, lower ones up to 15; what is finer is rounded. Sums of such integers do
    not depend on where they were started, unlike running sums of floats, and equal means compare equal.
    """
    return round(price * 1e9) * 1_000_000 if price >= 1.0 else round(price * 1e15)


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
        self._below = 0.0 if long_only else -1.0
        self._averages: dict[str, _Averages] = {}

    @property
    def required_bars(self) -> int:
        """Bars that fill the slow average."""
        return self.slow

    def warm(self, history: Mapping[str, BarSeries], *, remember: bool = True) -> None:
        """See ``Strategy.warm``; only the last closes matter."""
        self._averages.clear()
        for symbol, series in history.items():
            for close in series.close[-self.slow :].tolist():
                self._update(symbol, close)

    def on_bar(self, bar: Bar) -> Signal:
        """The side of the cross after one closed bar."""
        symbol = bar.symbol
        lead = self._update(symbol, bar.close)
        if lead is None:
            return Signal(symbol, bar.open_time, None, "too few bars for the slow average")
        if lead > 0:
            return Signal(symbol, bar.open_time, 1.0, "fast average above slow")
        if lead < 0:
            return Signal(symbol, bar.open_time, self._below, "fast average below slow")
        return Signal(symbol, bar.open_time, 0.0, "averages equal")

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
