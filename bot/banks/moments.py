"""Moments that are asked about: which bar a time means, and its key as the strategy itself would write it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from bot.errors import UsageError
from memory_store import Entry, MemoryBank
from memory_store.records import KeyArray
from strategies.bars import DAY_MS, BarSeries, Calendar, format_time, interval_ms
from strategies.base import Strategy

LONGEST_CLOSURE: Final = 4 * DAY_MS
"""Of a market with sessions: a weekend and a holiday on either side."""


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """A closed bar and what the memory compares it by."""

    symbol: str
    open_time: int
    """Name of the bar, milliseconds."""
    close_time: int
    """When it was known, milliseconds."""
    key: KeyArray
    regime: int
    """Its causal label, an index into ``REGIME_NAMES``."""


def closed_by(series: BarSeries, time: int) -> BarSeries:
    """The bars of a series that were closed at a time."""
    return series.slice(0, int(np.searchsorted(series.close_time, time, side="right")))


def last_closed(series: BarSeries, time: int) -> int:
    """Place of the bar that was the last one closed at a time.

    Raises:
        UsageError: the series begins later, or ended so long before that this bar was not the market's last.
    """
    place = len(closed_by(series, time)) - 1
    if place < 0:
        raise UsageError(
            f"no bar of {series.symbol} interval {series.interval} was closed at {format_time(time)}{_begin_of(series)}"
        )
    closed = int(series.close_time[place])
    patience = interval_ms(series.interval)
    if series.calendar is Calendar.SESSIONS:
        patience += LONGEST_CLOSURE
    if time - closed >= patience:
        raise UsageError(
            f"{series.symbol} interval {series.interval} has no bar that closes at {format_time(time)}: the last one before "
            f"closed at {format_time(closed)}; ask about that time, or get more with recall fetch"
        )
    return place


def held_moment(bank: MemoryBank, symbol: str, open_time: int, close_time: int) -> Moment | None:
    """The moment of a bar as a memory wrote it, if it holds it."""
    entry_id = bank.find(symbol, open_time)
    return None if entry_id is None else _moment_of(bank.entry(entry_id), close_time)


def encoded_moment(build: Callable[[tuple[str, ...]], Strategy], series: BarSeries) -> Moment:
    """The moment of the last bar of a series, made by a strategy that is shown these bars.

    The key that a strategy asks with is the one that it writes for the same bar, so the entry tells it.

    Args:
        build: makes a cold strategy for some symbols.
        series: bars from the beginning, as regimes are counted from there.

    Raises:
        UsageError: the strategy has no memory, or the bar is too early to have a key.
    """
    strategy = build((series.symbol,))
    bank = bank_of(strategy)
    bank.stop_recording()
    strategy.warm({series.symbol: series})
    opened, closed = int(series.open_time[-1]), int(series.close_time[-1])
    moment = held_moment(bank, series.symbol, opened, closed)
    if moment is None:
        raise UsageError(
            f"{series.symbol} at {format_time(closed)} is only bar {len(series)} of its history, too early for "
            f"{strategy.name} to compare it with others; ask about a later time, or get earlier candles with "
            f"recall fetch --symbols {series.symbol} --interval {series.interval} --prepend"
        )
    return moment


def bank_of(strategy: Strategy) -> MemoryBank:
    """The memory of a strategy.

    Raises:
        UsageError: it has none.
    """
    if strategy.bank is None:
        raise UsageError(
            f"strategy {strategy.name} has no memory; choose one that has with --strategy memory_transformer or "
            "--strategy similarity"
        )
    return strategy.bank


def _moment_of(entry: Entry, close_time: int) -> Moment:
    return Moment(entry.symbol, entry.bar_time, close_time, entry.key, entry.regime)


def _begin_of(series: BarSeries) -> str:
    if not len(series):
        return f"; get some with recall fetch --symbols {series.symbol} --interval {series.interval}"
    return f": the first one closed at {format_time(int(series.close_time[0]))}; ask about a later time"
