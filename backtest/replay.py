"""The replay driver: history through the very engine that trades, in a plain loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np

from bot.engine import RunLog, SimulatedEngine
from bot.garbage import rare_collections
from bot.journal.outlooks import OutlookRecorder, Outlooks
from bot.market.batches import batches as batches
from bot.orders import BarBatch, Decision, Execution, Funding, OrderUpdate
from bot.portfolio import ClosedTrade
from strategies.bars import DAY_MS, BarSeries, FloatArray, IntArray

_PROGRESS_EVERY = 2048
EQUITY_POINTS: Final = 4000
"""Batches up to which a replay journals its equity at each of them."""


@dataclass(slots=True)
class ReplayResult:
    """What a replay brought."""

    bars: int
    seconds: float
    """Wall time of the whole replay, the strategy's preview included."""
    close_times: IntArray
    """Close time of every batch, ``[n]`` milliseconds."""
    equity: FloatArray
    """Equity at every batch, marked at its closes, ``[n]``."""
    decisions_sha256: str
    trades_sha256: str
    executions: list[Execution]
    trades: list[ClosedTrade]
    decisions: list[Decision] = field(default_factory=list)
    """All decisions, where they were asked for; else those with orders."""
    fundings: list[Funding] = field(default_factory=list)
    """Funding that was settled, in order."""
    updates: list[OrderUpdate] = field(default_factory=list)
    """What happened to orders besides fills, in order."""
    outlooks: Outlooks | None = None
    """What a strategy with a memory expected at every decision."""

    @property
    def bars_per_second(self) -> float:
        """Bars decided per second of wall time."""
        return self.bars / self.seconds if self.seconds > 0 else 0.0

    def equity_points(self, most: int = EQUITY_POINTS) -> list[tuple[int, float]]:
        """Equity by time, as much of it as the journal keeps: at every batch, or, of long runs, the highest, the lowest and
        the last of every UTC day of a close. Daily returns stay exact, and so does the depth of every drawdown but those that
        begin and end within one day.

        Args:
            most: batches up to which all are kept.
        """
        days = (self.close_times - 1) // DAY_MS
        count = len(days)
        kept = np.arange(count)
        if count > most:
            edges = np.flatnonzero(np.diff(days, prepend=days[0] - 1, append=days[-1] + 1)).tolist()
            kept = np.unique([place for day in pairwise(edges) for place in _extremes(self.equity, *day)])
        return [(int(self.close_times[place]), float(self.equity[place])) for place in kept]


def replay(
    engine: SimulatedEngine,
    series: Mapping[str, BarSeries],
    *,
    trades: list[ClosedTrade],
    keep_all_decisions: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ReplayResult:
    """Step the engine through all bars of ``series``, in the engine's order of symbols.

    Args:
        engine: with a strategy that is warmed up to just before the first bar.
        series: what to replay, by symbol; every symbol must be one of the engine's.
        trades: the list that the engine's ``on_trade`` appends to.
        keep_all_decisions: also keep decisions without orders.
        progress: called now and then with the number of bars done.
    """
    ranks = {symbol: rank for rank, symbol in enumerate(engine.instruments)}
    series = dict(sorted(series.items(), key=lambda item: ranks[item[0]]))
    started = time.perf_counter()
    engine.core.strategy.preview(series)
    core = engine.core
    fundings: list[Funding] = []
    log = RunLog(fundings=fundings)
    kept: list[Decision] = []
    bank = core.strategy.bank
    recorder = None if bank is None else OutlookRecorder(bank.config.horizons[bank.config.primary])
    before = core.decisions_made

    def watched(told: Callable[[int], None]) -> Iterator[BarBatch]:
        due = before + _PROGRESS_EVERY
        for batch in batches(series):
            yield batch
            if core.decisions_made >= due:
                told(core.decisions_made - before)
                due = core.decisions_made + _PROGRESS_EVERY

    source = batches(series) if progress is None else watched(progress)
    helped = nullcontext() if bank is None else bank.helped()
    written_late = nullcontext() if bank is None else bank.written_late()
    with rare_collections(), helped, written_late:
        engine.run(source, log, kept.extend, keep_all_decisions, None if recorder is None else recorder.add)
        outlooks = None if recorder is None else recorder.outlooks()
    done = core.decisions_made - before
    if progress is not None:
        progress(done)
    return ReplayResult(
        bars=done,
        decisions_sha256=core.decisions_sha256,
        trades_sha256=core.trades_sha256,
        seconds=time.perf_counter() - started,
        close_times=_close_times(series),
        equity=np.array(log.equity, dtype=np.float64),
        executions=log.executions,
        trades=trades,
        decisions=kept,
        fundings=fundings,
        updates=log.updates,
        outlooks=outlooks,
    )


def _extremes(equity: FloatArray, start: int, stop: int) -> tuple[int, int, int]:
    """Where the lowest (the first of equals), the highest (the last of them) and the last of a stretch are."""
    stretch = equity[start:stop]
    return start + int(stretch.argmin()), stop - 1 - int(stretch[::-1].argmax()), stop - 1


def _close_times(series: Mapping[str, BarSeries]) -> IntArray:
    """When the batches of these bars close."""
    if len(series) == 1:
        (only,) = series.values()
        return only.close_time
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *[one.close_time for one in series.values()]]))
