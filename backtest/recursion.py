"""The recursion check: do signals depend on how much past a strategy was warmed from?

A strategy says how many bars it needs (``required_bars``). It is warmed from exactly these, and then from twice and four times
as many, and shown the same bars afterwards. What it says must be the same: else its state goes on forgetting for longer than
it says, as an exponential average that was given too few bars does, and it decides otherwise after a restart than before.
Freqtrade's ``recursive-analysis`` looks for the same: https://www.freqtrade.io/en/stable/recursive-analysis/

A strategy with a memory remembers more when it was shown more, so its signals may change for that reason alone; this is told,
not held against it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from backtest.replay import replay
from bot.assembly import Home, build_strategy
from bot.config import Config
from bot.engine import SimulatedEngine
from bot.market.history import history_before
from bot.portfolio import ClosedTrade
from bot.session import earliest_start, open_session
from strategies.bars import BarSeries, Calendar, format_time
from strategies.base import Signal

MULTIPLES: Final = (2, 4)
"""Of ``required_bars``, that a strategy is warmed from besides these."""
TOLERANCE: Final = 1e-9
"""Difference of two targets below which they are the same: sums of floats depend on where they began."""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Signals after a longer warm-up, against those after the shortest that the strategy accepts."""

    bars: int
    """That each symbol was warmed from."""
    compared: int
    changed: int
    """Signals whose target or distances differ."""
    largest: float
    """Largest difference of two targets, in shares of equity; 1 where one of them was unknown."""
    last_change: int
    """Bars of a symbol after the warm-up until the last signal that differs; 0 where none does."""
    first_change: str
    """Symbol and bar of the first signal that differs; empty where none does."""


@dataclass(frozen=True, slots=True)
class RecursionReport:
    """All warm-ups of a check."""

    required_bars: int
    has_memory: bool
    warm_ups: tuple[WarmUp, ...]
    """None where there were too few stored bars before the start."""

    @property
    def changes(self) -> bool:
        """Whether a longer past changes signals where it must not."""
        return not self.has_memory and any(each.changed for each in self.warm_ups)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "changes": self.changes}


def recursion(
    make_engine: Callable[[int], SimulatedEngine],
    required_bars: int,
    series: Mapping[str, BarSeries],
    *,
    multiples: tuple[int, ...] = MULTIPLES,
    progress: Callable[[int], None] | None = None,
) -> RecursionReport:
    """Compare warm-ups.

    Args:
        make_engine: gives a fresh engine, its strategy warmed from the last so many bars before the series.
        required_bars: of the strategy.
        series: the bars to decide on.
        multiples: of ``required_bars``.
        progress: called with the number of runs done.
    """
    # A strategy that needs none is warmed from some all the same: what it makes of them is the question.
    base = max(1, required_bars)
    engine = make_engine(required_bars)
    shortest = _signals(engine, series)
    warm_ups = []
    for done, multiple in enumerate(multiples, start=2):
        bars = base * multiple
        warm_ups.append(_compare(bars, shortest, _signals(make_engine(bars), series)))
        if progress is not None:
            progress(done)
    return RecursionReport(required_bars, engine.core.strategy.bank is not None, tuple(warm_ups))


def check_recursion(
    config: Config,
    home: Home,
    symbols: tuple[str, ...],
    interval: str,
    calendars: dict[str, Calendar],
    start: int | None,
    end: int | None,
    *,
    at_most: int,
    progress: Callable[[int], None] | None = None,
) -> RecursionReport:
    """Check the configured strategy on stored candles, ``at_most`` bars of each symbol from ``start`` on.

    Warm-ups that are longer than the stored past are left out; without ``start`` the check begins late enough for all.

    Raises:
        UsageError: the strategy cannot be had, or there are too few stored bars for it.
    """
    strategy, _ = build_strategy(config, symbols, interval, home.models)
    required = strategy.required_bars
    begin = earliest_start(config, home, symbols, interval) if start is None else start
    stored = {symbol: home.candles.load(symbol, interval) for symbol in symbols}
    if start is None:
        longest = max(1, required) * max(MULTIPLES)
        known = [series.open_time[longest] for series in stored.values() if len(series) > longest]
        begin = max(begin, *map(int, known)) if len(known) == len(stored) else begin
    past = min(len(series.span(None, begin)) for series in stored.values())
    fitting = tuple(each for each in MULTIPLES if max(1, required) * each <= past)
    series = {symbol: each.span(begin, end).slice(0, at_most) for symbol, each in stored.items()}

    def make_engine(bars: int) -> SimulatedEngine:
        session = open_session(config, home, symbols, interval, calendars, begin, hindsight=True)
        session.history = history_before(home.candles, symbols, interval, begin, at_most=bars, at_least=bars)
        session.warm()
        trades: list[ClosedTrade] = []
        return session.engine("recursion", trades)

    return recursion(make_engine, required, series, multiples=fitting, progress=progress)


def _signals(engine: SimulatedEngine, series: Mapping[str, BarSeries]) -> list[Signal]:
    return [decision.signal for decision in replay(engine, series, trades=[], keep_all_decisions=True).decisions]


def _compare(bars: int, shortest: list[Signal], longer: list[Signal]) -> WarmUp:
    seen: dict[str, int] = {}
    changed, last_change, largest, first = 0, 0, 0.0, ""
    for one, other in zip(shortest, longer, strict=True):
        seen[one.symbol] = seen.get(one.symbol, 0) + 1
        gaps = [
            _gap(getattr(one, name), getattr(other, name))
            for name in ("target_exposure", "stop_distance", "target_distance")
        ]
        if max(gaps) <= TOLERANCE:
            continue
        changed += 1
        last_change = max(last_change, seen[one.symbol])
        largest = max(largest, gaps[0])
        first = first or f"{one.symbol} {format_time(one.bar_open_time)}"
    return WarmUp(bars, len(shortest), changed, largest, last_change, first)


def _gap(one: float | None, other: float | None) -> float:
    if one is None or other is None:
        return 0.0 if one is other else 1.0
    return abs(one - other)
