"""The lookahead probe: change the future and see whether the past stays as it was.

History is cut at random points. Everything after a cut is replaced by another market, the run is repeated up to the cut,
and every feature, memory entry, signal and order up to there must be the same to the last bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backtest.audit import field_differences
from backtest.replay import batches
from bot.assembly import Home
from bot.config import Config
from bot.engine import SimulatedEngine
from bot.errors import UsageError
from bot.orders import Decision
from bot.portfolio import ClosedTrade
from bot.session import earliest_start, open_session
from strategies.bars import BarSeries, Calendar, FloatArray, format_time

EngineFactory = Callable[[], SimulatedEngine]
_Remembered = tuple[bytes, tuple[float | None, ...]]


@dataclass(frozen=True, slots=True)
class CutReport:
    """What changed before one cut when everything after it did."""

    at: str
    bars_before: int
    bars_after: int
    changed: int
    """Fields before the cut that changed; 0 is the only pass."""
    first_change: str


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """All cuts of a probe."""

    cuts: tuple[CutReport, ...]
    sha256: str
    """Over all decisions up to the last cut; see ``DecisionCore.decisions_sha256``."""

    @property
    def leaks(self) -> int:
        """Cuts before which something changed."""
        return sum(1 for cut in self.cuts if cut.changed)

    @property
    def first_leak(self) -> int:
        """Position of the first such cut."""
        return next(i for i, cut in enumerate(self.cuts) if cut.changed)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "cuts": [{name: getattr(cut, name) for name in CutReport.__slots__} for cut in self.cuts],
            "leaks": self.leaks,
            "sha256": self.sha256,
        }


@dataclass(frozen=True, slots=True)
class _Trace:
    """Everything a run showed up to the last of some moments."""

    decisions: list[Decision]
    memory: dict[tuple[str, int], _Remembered]
    """Key and outcomes by symbol and bar, as they were at the last moment that still had them."""
    memory_digests: dict[int, str]
    """Digest of the whole memory at every moment."""


def probe(
    make_engine: EngineFactory,
    series: Mapping[str, BarSeries],
    *,
    cuts: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> ProbeReport:
    """Cut ``series`` at random points and compare.

    Args:
        make_engine: gives a fresh engine, its strategy warmed up to just before the series, every time it is called.
        series: the bars to replay.
        cuts: how many points.
        seed: of the points and of the other futures.
        progress: called with the number of cuts done.

    Raises:
        UsageError: there are too few bars to cut.
    """
    closes = np.unique(np.concatenate([one.close_time for one in series.values()]))
    if len(closes) < 4:
        raise UsageError(f"a probe needs at least 4 bars after the start, there are {len(closes)}; start earlier")
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(np.arange(1, len(closes) - 1), size=min(cuts, len(closes) - 2), replace=False))
    moments = [int(closes[position]) for position in chosen]
    engine = make_engine()
    truth = _trace(engine, series, moments)
    sha256 = engine.core.decisions_sha256
    reports = []
    for done, (position, cut) in enumerate(zip(chosen, moments, strict=True), start=1):
        other = {symbol: _other_future(one, cut, random) for symbol, one in series.items()}
        reports.append(_compare(truth, _trace(make_engine(), other, [cut]), cut, len(closes) - int(position) - 1))
        if progress is not None:
            progress(done)
    return ProbeReport(tuple(reports), sha256)


def probe_strategy(
    config: Config,
    home: Home,
    symbols: tuple[str, ...],
    interval: str,
    calendars: dict[str, Calendar],
    start: int | None,
    end: int | None,
    *,
    cuts: int,
    seed: int,
    at_most: int,
    models: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> ProbeReport:
    """Probe the configured strategy on stored candles, ``at_most`` bars of each symbol from ``start`` on.

    ``models`` is where its model is; where ``home`` keeps them by default.
    """
    begin = earliest_start(config, home, symbols, interval) if start is None else start
    series = {symbol: home.candles.load(symbol, interval, start=begin, end=end).slice(0, at_most) for symbol in symbols}

    def make_engine() -> SimulatedEngine:
        session = open_session(config, home, symbols, interval, calendars, begin, models=models, hindsight=True)
        session.warm()
        trades: list[ClosedTrade] = []
        return session.engine("probe", trades)

    return probe(make_engine, series, cuts=cuts, seed=seed, progress=progress)


def _trace(engine: SimulatedEngine, series: Mapping[str, BarSeries], moments: Sequence[int]) -> _Trace:
    """What a run shows up to the last of some close times; the strategy is offered all bars, also the later ones."""
    strategy = engine.core.strategy
    strategy.preview(series)
    trace = _Trace([], {}, {})
    waiting = deque(moments)
    for batch in batches(series):
        close_time = batch.bars[0].close_time
        if close_time > moments[-1]:
            break
        trace.decisions.extend(engine.step(batch).decisions)
        engine.settle(close_time)
        if close_time == waiting[0]:
            waiting.popleft()
            if strategy.bank is not None:
                trace.memory_digests[close_time] = strategy.bank.digest()
                for entry in strategy.bank.entries():
                    trace.memory[entry.symbol, entry.bar_time] = (entry.key.tobytes(), entry.outcomes)
    return trace


def _compare(truth: _Trace, other: _Trace, cut: int, bars_after: int) -> CutReport:
    before = [decision for decision in truth.decisions if decision.close_time <= cut]
    changes = []
    for known, seen in zip(before, other.decisions, strict=True):
        if known != seen:
            where = f"{known.signal.symbol} {format_time(known.signal.bar_open_time)}"
            changes += [f"{where}: {each.field}" for each in field_differences(where, known, seen)]
    if truth.memory_digests.get(cut) != other.memory_digests.get(cut):
        changes += [f"memory of {symbol} {format_time(bar_time)}" for symbol, bar_time in _changed(truth, other)] or [
            f"memory at {format_time(cut)}"
        ]
    return CutReport(format_time(cut), len(before), bars_after, len(changes), changes[0] if changes else "")


def _changed(truth: _Trace, other: _Trace) -> Iterator[tuple[str, int]]:
    """Which entries of a run up to a cut the truth has otherwise."""
    for place, (key, outcomes) in other.memory.items():
        if place in truth.memory:
            true_key, true_outcomes = truth.memory[place]
            # The truth went on, so it may know more outcomes; those that the cut run knows must be the same.
            same = all(mine is None or mine == true for mine, true in zip(outcomes, true_outcomes, strict=True))
            if key != true_key or not same:
                yield place


def _other_future(series: BarSeries, cut: int, random: np.random.Generator) -> BarSeries:
    """The same bars up to those known at ``cut``, and a wild but valid market after them."""
    known = int(np.searchsorted(series.close_time, cut, side="right"))
    count = len(series) - known
    if not count:
        return series
    walk = np.exp(np.cumsum(random.normal(0.0, 0.03, count)) + random.choice([-0.5, 0.5]))
    opened = np.round(series.open[known:] * walk, 8)
    closed = np.round(opened * np.exp(random.normal(0.0, 0.02, count)), 8)
    reach = np.exp(np.abs(random.normal(0.0, 0.01, count)))

    def joined(column: FloatArray, future: FloatArray) -> FloatArray:
        return np.concatenate([column[:known], future])

    return replace(
        series,
        open=joined(series.open, opened),
        high=joined(series.high, np.maximum(opened, closed) * reach),
        low=joined(series.low, np.minimum(opened, closed) / reach),
        close=joined(series.close, closed),
        volume=joined(series.volume, np.round(random.lognormal(3.0, 2.0, count), 3)),
    )
