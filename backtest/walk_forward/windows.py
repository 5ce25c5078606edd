"""The windows of a walk: spans to learn from and to trade, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from backtest.evaluation.folds import months_later
from bot.errors import UsageError
from strategies.bars import format_time


class Scheme(StrEnum):
    """From where on a window learns."""

    ANCHORED = "anchored"
    """From the first bar: later windows learn from more."""
    ROLLING = "rolling"
    """From a fixed time before the window: what is older is left out."""


@dataclass(frozen=True, slots=True)
class Window:
    """One step of a walk; spans are half open, by open time, milliseconds."""

    number: int
    """From 1."""
    train_start: int
    train_end: int
    """The embargo before ``start``. Of the bars before it, those whose outcome is known by then are learned from."""
    start: int
    """Open time of the first bar that is traded."""
    end: int

    @property
    def name(self) -> str:
        """``2024-01-01 to 2024-07-01``."""
        return f"{format_time(self.start)[:10]} to {format_time(self.end)[:10]}"


def plan_windows(
    first: int, start: int, end: int, *, test_months: int, scheme: Scheme, train_months: int, embargo_ms: int
) -> tuple[Window, ...]:
    """Windows that cover ``[start, end)``, all but the last ``test_months`` long.

    Args:
        first: open time of the first bar that may be learned from, milliseconds.
        start: of the first window.
        end: of the last.
        test_months: calendar months that are traded with one model.
        scheme: from where on is learned.
        train_months: of a rolling window.
        embargo_ms: time left out between learning and trading.

    Raises:
        UsageError: there is nothing to trade, or a window has nothing to learn from.
    """
    if start >= end:
        raise UsageError(f"--start {format_time(start)} is not before --end {format_time(end)}; widen the span")
    windows: list[Window] = []
    opens = start
    while opens < end:
        closes = min(months_later(opens, test_months), end)
        learns = first if scheme is Scheme.ANCHORED else max(first, months_later(opens, -train_months))
        window = Window(len(windows) + 1, learns, opens - embargo_ms, opens, closes)
        if window.train_start >= window.train_end:
            raise UsageError(
                f"there is nothing to learn from before {format_time(opens)}: bars begin at {format_time(first)}; choose a "
                "later --start, or fetch earlier candles"
            )
        windows.append(window)
        opens = closes
    return tuple(windows)
