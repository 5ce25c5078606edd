"""The lookahead probe: five ways of looking ahead are caught, and honest strategies pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from backtest.probe import ProbeReport, _other_future, probe
from backtest.replay import replay
from bot.engine import SimulatedEngine
from bot.errors import UsageError
from bot.execution.fills import Costs
from memory_store import BankConfig, MemoryBank, Metric
from strategies.bars import HOUR_MS, Bar, BarSeries
from strategies.base import Explanation, Signal, Strategy
from strategies.baselines import BuyAndHold, SmaCross
from strategies.similarity import SimilaritySettings, SimilarityStrategy
from tests.bot.scenes import START, A, B, Scripted, engine_of, walk

SERIES = {A: walk(120, 1), B: walk(120, 2, B)}


def probed(
    make_strategy: type[Strategy], series: Mapping[str, BarSeries] | None = None, *, cuts: int = 12
) -> ProbeReport:
    def make_engine() -> SimulatedEngine:
        return engine_of(make_strategy(), A, B, costs=Costs())

    return probe(make_engine, SERIES if series is None else series, cuts=cuts, seed=5)


class Cheat(Strategy):
    """Base of strategies that keep the bars to come, which they were offered to prepare bulk work."""

    name = "cheat"

    def __init__(self) -> None:
        self.upcoming: Mapping[str, BarSeries] = {}

    @property
    def required_bars(self) -> int:
        return 0

    def warm(self, history: Mapping[str, BarSeries], *, remember: bool = True) -> None:
        """Nothing to know."""

    def preview(self, upcoming: Mapping[str, BarSeries]) -> None:
        self.upcoming = upcoming

    def place(self, bar: Bar) -> int:
        """Where a bar lies in its series."""
        return int(np.searchsorted(self.upcoming[bar.symbol].open_time, bar.open_time))


class CentredWindow(Cheat):
    """Smooths over two bars on either side."""

    def on_bar(self, bar: Bar) -> Signal:
        place = self.place(bar)
        smooth = self.upcoming[bar.symbol].close[max(0, place - 2) : place + 3].mean()
        return Signal(bar.symbol, bar.open_time, 0.5 if bar.close < smooth else -0.5)


class WholeSpanScaler(Cheat):
    """Normalises by the mean and deviation of everything, the future included."""

    def on_bar(self, bar: Bar) -> Signal:
        close = self.upcoming[bar.symbol].close
        return Signal(bar.symbol, bar.open_time, float(np.tanh((bar.close - close.mean()) / close.std())))


class UnclosedBar(Cheat):
    """Uses, for B's hours, the four hours of A that have begun instead of those that are over."""

    def on_bar(self, bar: Bar) -> Signal:
        if bar.symbol == A:
            return Signal(A, bar.open_time, 0.0)
        slow = self.upcoming[A]
        begun = int(np.searchsorted(slow.open_time, bar.open_time, side="right")) - 1
        return Signal(B, bar.open_time, 0.5 if slow.close[begun] > slow.open[begun] else -0.5)


class AnotherSymbolsLaterBar(Cheat):
    """Trades A by the bar of B that closes next."""

    def on_bar(self, bar: Bar) -> Signal:
        if bar.symbol == B:
            return Signal(B, bar.open_time, None)
        other = self.upcoming[B]
        later = min(self.place(bar) + 1, len(other) - 1)
        return Signal(A, bar.open_time, 0.5 if other.close[later] > other.open[later] else -0.5)


class OutcomeOneBarEarly(Cheat):
    """Settles every moment a bar before its outcome is known. It never trades: only its memory can tell."""

    def __init__(self) -> None:
        super().__init__()
        self.bank: MemoryBank = MemoryBank(BankConfig(40, 2, (2,), 0, 0, Metric.COSINE), encoder_version="cheat")

    def settle(self, bars: Sequence[Bar]) -> None:
        for bar in bars:
            series, place = self.upcoming[bar.symbol], self.place(bar)
            if 1 <= place < len(series) - 1:
                entry = self.bank.find(bar.symbol, int(series.open_time[place - 1]))
                assert entry is not None
                outcome = float(np.log(series.close[place + 1] / series.close[place - 1]))
                self.bank.settle(entry, 0, outcome, bar.close_time)

    def on_bar(self, bar: Bar) -> Signal:
        return Signal(bar.symbol, bar.open_time, None)

    def remember(self, bars: Sequence[Bar]) -> None:
        for bar in bars:
            self.bank.append([bar.open, bar.close], symbol=bar.symbol, bar_time=bar.open_time)


def four_hours(series: BarSeries) -> BarSeries:
    return replace(
        series,
        interval="240",
        open_time=START + 4 * HOUR_MS * np.arange(len(series) // 4),
        **{name: getattr(series, name)[::4] for name in ("open", "high", "low", "close", "volume")},
    )


@pytest.mark.parametrize(
    ("cheat", "series", "what"),
    [
        (CentredWindow, SERIES, "signal.target_exposure"),
        (WholeSpanScaler, SERIES, "signal.target_exposure"),
        (OutcomeOneBarEarly, SERIES, f"memory of {A}"),
        (AnotherSymbolsLaterBar, SERIES, "signal.target_exposure"),
        (UnclosedBar, {A: four_hours(SERIES[A]), B: SERIES[B]}, "signal.target_exposure"),
    ],
    ids=["centred window", "whole-span scaler", "outcome one bar early", "another symbol's later bar", "unclosed bar"],
)
def test_a_planted_leak_is_caught_and_named(cheat: type[Strategy], series: dict[str, BarSeries], what: str) -> None:
    report = probed(cheat, series)
    assert report.leaks > 0
    leak = report.cuts[report.first_leak]
    assert leak.changed > 0
    assert what in leak.first_change
    assert not any(cut.changed for cut in report.cuts[: report.first_leak])


def test_a_leak_of_one_bar_shows_in_the_last_decisions_before_the_cut_only() -> None:
    """Not everywhere: the probe says where to look."""
    report = probed(AnotherSymbolsLaterBar)
    assert 0 < max(cut.changed for cut in report.cuts) <= 6


@pytest.mark.parametrize("honest", [SmaCross, BuyAndHold, lambda: SmaCross(2, 5)])
def test_honest_baselines_pass(honest: type[Strategy]) -> None:
    report = probed(honest)
    assert report.leaks == 0
    assert len(report.cuts) == 12
    assert all(cut.bars_before > 0 and cut.bars_after > 0 for cut in report.cuts)


def test_the_similarity_strategy_passes_while_its_memory_answers() -> None:
    """Its neighbours are proposed in bulk from the bars to come; features, memory, neighbours and signals stay the same."""
    settings = SimilaritySettings(
        memory_size=90,
        n_neighbors=8,
        minimum_neighbors=2,
        confidence_threshold=0.55,
        significance=1.0,
        horizons=(1, 3),
        primary=3,
        embargo=4,
    )
    whole = {A: walk(420, 3), B: walk(420, 4, B)}
    begin = 300

    def make_engine() -> SimulatedEngine:
        strategy = SimilarityStrategy((A, B), "60", settings)
        strategy.warm({symbol: series.slice(0, begin) for symbol, series in whole.items()})
        return engine_of(strategy, A, B, costs=Costs())

    series = {symbol: one.slice(begin, len(one)) for symbol, one in whole.items()}
    report = probe(make_engine, series, cuts=8, seed=2)
    assert report.leaks == 0
    decisions = replay(make_engine(), series, trades=[], keep_all_decisions=True).decisions
    assert all(decision.signal.explanation.neighbours for decision in decisions if decision.signal.explanation)
    assert sum(len(decision.orders) for decision in decisions) > 10


def test_features_that_are_no_numbers_are_not_taken_for_a_change() -> None:
    class Undefined(Scripted):
        def __init__(self) -> None:
            super().__init__({})

        def on_bar(self, bar: Bar) -> Signal:
            return Signal(bar.symbol, bar.open_time, 0.5, explanation=Explanation(features=(float("nan"),)))

    assert probed(Undefined).leaks == 0


def test_a_probe_of_a_seed_repeats_itself_and_reports_its_progress() -> None:
    seen: list[int] = []
    first, second = (
        probe(lambda: engine_of(CentredWindow(), A, B), SERIES, cuts=3, seed=9, progress=seen.append) for _ in range(2)
    )
    assert first == second
    assert seen == [1, 2, 3] * 2
    assert first.to_json()["leaks"] == first.leaks
    assert set(first.to_json()["cuts"][0]) == {"at", "bars_before", "bars_after", "changed", "first_change"}


def test_a_probe_cuts_at_most_where_there_is_a_before_and_an_after() -> None:
    short = {A: walk(6, 1)}
    report = probe(lambda: engine_of(SmaCross()), short, cuts=50, seed=1)
    assert [(cut.bars_before, cut.bars_after) for cut in report.cuts] == [(2, 4), (3, 3), (4, 2), (5, 1)]
    with pytest.raises(UsageError, match="at least 4 bars after the start, there are 3; start earlier"):
        probe(lambda: engine_of(SmaCross()), {A: walk(3, 1)}, cuts=1, seed=1)


def test_the_other_future_is_wild_but_valid_and_begins_right_after_the_cut() -> None:
    series = SERIES[A]
    cut = int(series.close_time[70])
    other = _other_future(series, cut, np.random.default_rng(0))
    assert other.slice(0, 71).digest() == series.slice(0, 71).digest()
    assert np.array_equal(other.open_time, series.open_time)
    for name in ("open", "high", "low", "close", "volume"):
        assert np.all(getattr(other, name)[71:] != getattr(series, name)[71:])
        assert np.all(getattr(other, name) > 0)
    assert np.all(other.high >= np.maximum(other.open, other.close))
    assert np.all(other.low <= np.minimum(other.open, other.close))
