"""Anchored walk-forward: learn from all that was known at a boundary, forecast what follows it, move on.

A row is learned from where its outcome was known, and the embargo over, at the boundary: by time, and not by counting rows,
so that holes in the bars and symbols that began later change nothing. That is the rule by which a memory entry becomes
visible and by which training leaves a gap before its validation part (Lopez de Prado, "Advances in Financial Machine
Learning", 2018, chapter 7).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from backtest.evaluation.panel import Panel
from bot.errors import UsageError
from strategies.bars import format_time
from strategies.memory_transformer.dataset import Integers


class FoldLength(StrEnum):
    """How long the boundaries lie apart."""

    YEARLY = "yearly"
    QUARTERLY = "quarterly"
    ONE = "one"
    """One boundary for all that follows it."""


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """One step of the walk."""

    name: str
    boundary: int
    """Milliseconds: what is learned was known then, what is forecast opens then or later."""
    end: int
    """Milliseconds: bars forecast open before it."""
    train: Integers
    """Rows that may be learned from, increasing."""
    test: Integers
    """Rows to forecast, increasing: with a key and with an outcome."""


def boundaries(train_end: int, end: int, length: FoldLength) -> list[tuple[int, int]]:
    """Half-open spans of open time that cover ``[train_end, end)``; all but the last as long as the folds."""
    if length is FoldLength.ONE:
        return [(train_end, end)]
    starts, start = [], train_end
    while start < end:
        starts.append(start)
        start = months_later(start, 12 if length is FoldLength.YEARLY else 3)
    return list(zip(starts, [*starts[1:], end], strict=True))


def walk_forward(panel: Panel, train_end: int, end: int, length: FoldLength = FoldLength.YEARLY) -> tuple[Fold, ...]:
    """The folds of a panel.

    Raises:
        UsageError: a fold has nothing to learn from or nothing to forecast.
    """
    folds = []
    for start, stop in boundaries(train_end, end, length):
        train = np.flatnonzero(panel.visible_from <= start)
        inside = (panel.open_time >= start) & (panel.open_time < stop)
        test = np.flatnonzero(inside & panel.moments.has_key & ~np.isnan(panel.log_return))
        name = f"{format_time(start)[:10]} to {format_time(stop)[:10]}"
        for rows, what in ((train, "to learn from before"), (test, "to forecast from")):
            if len(rows) < 2:
                raise UsageError(
                    f"there is nothing {what} {format_time(start)}: choose another --train-end or --end, or fetch "
                    f"more candles of {', '.join(panel.symbols)}"
                )
        folds.append(Fold(name, start, stop, train, test))
    return tuple(folds)


def months_later(time_ms: int, months: int) -> int:
    """The same day and hour some months later."""
    moment = dt.datetime.fromtimestamp(time_ms / 1000, tz=dt.UTC)
    month = moment.month - 1 + months
    # Days that a month lacks become its 28th, so that boundaries stay in order.
    day = moment.day if moment.day <= 28 else 28
    return int(moment.replace(year=moment.year + month // 12, month=month % 12 + 1, day=day).timestamp() * 1000)
