"""The recursion check: a past that is longer than a strategy asks for must not change what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import pytest

from backtest.recursion import RecursionReport, recursion
from bot.engine import SimulatedEngine
from examples.breakout import Breakout
from strategies.bars import Bar, BarSeries
from strategies.base import Signal, Strategy
from strategies.baselines import BuyAndHold, SmaCross
from strategies.similarity import SimilaritySettings, SimilarityStrategy
from tests.bot.scenes import A, B, engine_of, walk

WHOLE = {A: walk(900, 1), B: walk(900, 2, B)}
BEGIN = 500


def checked(make: Callable[[], Strategy], **options: tuple[int, ...]) -> RecursionReport:
    def make_engine(bars: int) -> SimulatedEngine:
        strategy = make()
        strategy.warm({symbol: series.slice(BEGIN - bars, BEGIN) for symbol, series in WHOLE.items()})
        return engine_of(strategy, A, B)

    series = {symbol: each.slice(BEGIN, len(each)) for symbol, each in WHOLE.items()}
    return recursion(make_engine, make().required_bars, series, **options)


class Average(Strategy):
    """An exponential average, which forgets no bar wholly; says that it needs some."""

    name: ClassVar[str] = "average"

    def __init__(self, needs: int, forgets: float = 0.05) -> None:
        self.needs, self.forgets = needs, forgets
        self.level: dict[str, float] = {}

    @property
    def required_bars(self) -> int:
        return self.needs

    def warm(self, history: Mapping[str, BarSeries], *, remember: bool = True) -> None:
        for series in history.values():
            for bar in series.bars():
                self.on_bar(bar)

    def on_bar(self, bar: Bar) -> Signal:
        before = self.level.get(bar.symbol, bar.close)
        self.level[bar.symbol] = level = before + self.forgets * (bar.close - before)
        return Signal(bar.symbol, bar.open_time, 1.0 if bar.close > level else 0.0)


@pytest.mark.parametrize("honest", [SmaCross, BuyAndHold, lambda: Breakout(bars=24)])
def test_strategies_that_look_at_a_window_say_the_same_after_any_past(honest: Callable[[], Strategy]) -> None:
    report = checked(honest)
    assert not report.changes and not report.has_memory
    assert [each.changed for each in report.warm_ups] == [0, 0]
    assert all(each.compared == 800 and each.first_change == "" for each in report.warm_ups)


def test_an_average_that_was_given_too_few_bars_is_caught_and_told_when_it_settles() -> None:
    report = checked(lambda: Average(5))
    assert report.changes
    assert all(each.changed > 0 and each.largest == 1.0 for each in report.warm_ups)
    assert report.warm_ups[0].bars == 10
    assert report.warm_ups[0].first_change.startswith((A, B))
    # It forgets 5 % a bar, so after some dozen bars nothing is left of where it began.
    assert 1 <= report.warm_ups[0].last_change < 200


def test_an_average_that_asks_for_enough_passes() -> None:
    assert not checked(lambda: Average(120)).changes


def test_a_memory_may_know_more_after_a_longer_past() -> None:
    settings = SimilaritySettings(
        memory_size=600,
        n_neighbors=8,
        minimum_neighbors=2,
        confidence_threshold=0.55,
        significance=1.0,
        horizons=(1, 3),
        primary=3,
        embargo=4,
    )
    report = checked(lambda: SimilarityStrategy((A, B), "60", settings), multiples=(2,))
    assert report.has_memory and report.warm_ups[0].changed > 0
    assert not report.changes


def test_the_report_is_plain_values() -> None:
    document = checked(lambda: Average(5)).to_json()
    assert document["changes"] is True and document["required_bars"] == 5
    assert set(document["warm_ups"][0]) == {"bars", "compared", "changed", "largest", "last_change", "first_change"}
