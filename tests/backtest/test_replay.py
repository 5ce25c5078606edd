"""The replay driver: one order of bars, and nothing that stepping by hand would not give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.metrics import drawdowns
from backtest.replay import batches, replay
from bot.execution.fills import Costs
from bot.orders import Decision, Execution
from bot.portfolio import ClosedTrade
from bot.risk import RiskLimits
from strategies.bars import DAY_MS, HOUR_MS, BarSeries
from strategies.baselines import SmaCross
from strategies.similarity import SimilaritySettings, SimilarityStrategy
from tests.bot.scenes import START, A, B, C, Scripted, engine_of, walk

LIMITS = RiskLimits(stop_loss=0.02, no_trade_band=0.05)


def keep(series: BarSeries, places: list[int]) -> BarSeries:
    """Only the bars at some places."""
    columns = {name: getattr(series, name)[places] for name in ("open_time", "open", "high", "low", "close", "volume")}
    return replace(series, **columns)


gapped = st.dictionaries(st.sampled_from([A, B, C]), st.sets(st.integers(0, 14)).map(sorted), min_size=1).map(
    lambda found: {symbol: keep(walk(15, 1, symbol), places) for symbol, places in found.items()}
)


@given(gapped)
def test_batches_hold_every_bar_once_by_close_time_and_in_the_order_of_symbols(series: dict[str, BarSeries]) -> None:
    made = list(batches(series))
    ranks = list(series)
    times = []
    for one in made:
        closes = {bar.close_time for bar in one.bars}
        assert len(closes) == 1
        times += closes
        order = [ranks.index(bar.symbol) for bar in one.bars]
        assert order == sorted(set(order))
        assert one.late == (False,) * len(one.bars)
    assert times == sorted(set(times))
    for symbol, only in series.items():
        assert [bar for one in made for bar in one.bars if bar.symbol == symbol] == list(only.bars())


def test_bars_of_other_lengths_are_ordered_by_when_they_close() -> None:
    """A bar of four hours that opens with one of an hour is known three hours later."""
    slow = replace(keep(walk(9, 2, B), [0, 4, 8]), interval="240")
    made = [
        [(bar.symbol, (bar.close_time - START) // HOUR_MS) for bar in one.bars]
        for one in batches({A: walk(5, 1), B: slow})
    ]
    assert made == [[(A, 1)], [(A, 2)], [(A, 3)], [(A, 4), (B, 4)], [(A, 5)], [(B, 8)], [(B, 12)]]


def test_nothing_to_replay_is_an_empty_result() -> None:
    result = replay(engine_of(SmaCross()), {A: BarSeries.empty(A, "60")}, trades=[])
    assert (result.bars, len(result.equity), result.equity_points()) == (0, 0, [])


@pytest.mark.parametrize("keep_all", [False, True])
@pytest.mark.parametrize("symbols", [(A,), (A, B, C)])
def test_a_replay_gives_what_stepping_by_hand_gives(symbols: tuple[str, ...], keep_all: bool) -> None:
    series = {symbol: walk(400, seed, symbol, first=seed) for seed, symbol in enumerate(symbols)}
    trades: list[ClosedTrade] = []
    trades_by_hand: list[ClosedTrade] = []
    engine, by_hand = (
        engine_of(SmaCross(3, 10), *symbols, limits=LIMITS, costs=Costs(), trades=each)
        for each in (trades, trades_by_hand)
    )
    result = replay(engine, series, trades=trades, keep_all_decisions=keep_all)
    executions: list[Execution] = []
    decisions: list[Decision] = []
    equity: list[tuple[int, float]] = []
    for one in batches(series):
        step = by_hand.step(one)
        executions += step.executions
        decisions += step.decisions
        equity.append((one.bars[0].close_time, step.decisions[0].equity))
    assert result.bars == 400 * len(symbols)
    assert result.executions == executions
    assert len(executions) > 20
    assert result.decisions == [decision for decision in decisions if keep_all or decision.orders]
    assert list(zip(result.close_times.tolist(), result.equity.tolist(), strict=True)) == equity
    assert result.trades == trades_by_hand
    assert (result.decisions_sha256, result.trades_sha256) == (
        by_hand.core.decisions_sha256,
        by_hand.core.trades_sha256,
    )
    assert result.bars_per_second > 0


def test_symbols_are_decided_in_the_order_of_the_run_whatever_order_they_are_given_in() -> None:
    series = {symbol: walk(60, seed, symbol) for seed, symbol in enumerate((A, B))}
    backwards = dict(reversed(series.items()))
    hashes = {
        replay(engine_of(SmaCross(2, 5), A, B), given, trades=[], keep_all_decisions=True).decisions_sha256
        for given in (series, backwards)
    }
    assert len(hashes) == 1


def test_the_strategy_is_offered_all_bars_before_the_first_is_shown() -> None:
    offered: list[Mapping[str, BarSeries]] = []

    class Curious(Scripted):
        def preview(self, upcoming: Mapping[str, BarSeries]) -> None:
            offered.append(upcoming)

    series = {A: walk(5, 1)}
    replay(engine_of(Curious({})), series, trades=[])
    assert offered == [series]


def test_a_short_run_keeps_its_equity_at_every_batch() -> None:
    result = replay(engine_of(Scripted({})), {A: walk(30, 1)}, trades=[])
    assert result.equity_points() == list(zip(result.close_times.tolist(), result.equity.tolist(), strict=True))


def test_a_long_run_keeps_the_highest_lowest_and_last_equity_of_every_utc_day_of_a_close() -> None:
    result = replay(engine_of(Scripted({})), {A: walk(30, 1)}, trades=[])
    equity = np.array([5.0, 9.0, 1.0, *[4.0] * 21, 7.0, 3.0, 3.5, 3.0, 8.0, 6.0])
    hours = [2, 3, 24, 26, 29, 30]  # of equal lows either may stand
    points = replace(result, equity=equity).equity_points(most=29)
    assert [((time - START) // HOUR_MS, value) for time, value in points] == [
        (hour, equity[hour - 1]) for hour in hours
    ]


@given(seed=st.integers(0, 50), bars=st.integers(1, 200))
def test_points_of_equity_keep_daily_returns_and_the_deepest_drawdown_over_days(seed: int, bars: int) -> None:
    result = replay(engine_of(Scripted({})), {A: walk(bars, 1)}, trades=[])
    equity = 100.0 * np.exp(np.random.default_rng(seed).normal(0, 0.01, bars).cumsum())
    times, kept = map(np.array, zip(*replace(result, equity=equity).equity_points(most=0), strict=True))
    whole = {(time - 1) // DAY_MS: value for time, value in zip(result.close_times.tolist(), equity, strict=True)}
    assert {(time - 1) // DAY_MS: value for time, value in zip(times.tolist(), kept, strict=True)} == whole
    assert (kept.max(), kept.min()) == (equity.max(), equity.min())
    # No day's low falls further below the peak of the days before it than the points show.
    assert drawdowns(kept, 100.0).min() >= drawdowns(equity, 100.0).min()


def test_a_memory_tells_what_it_expected_at_every_bar() -> None:
    series = walk(900, 3)
    settings = SimilaritySettings(memory_size=500, n_neighbors=8, minimum_neighbors=2, embargo=4)
    strategy = SimilarityStrategy((A,), "60", settings)
    strategy.warm({A: series.slice(0, 600)})
    result = replay(engine_of(strategy), {A: series.slice(600, 900)}, trades=[], keep_all_decisions=True)
    explained = [decision.signal for decision in result.decisions if decision.signal.explanation is not None]
    assert result.outlooks is not None and len(result.outlooks) == len(explained) > 200
    assert result.outlooks.open_time.tolist() == [signal.bar_open_time for signal in explained]
    assert result.outlooks.novelty.tolist() == [signal.explanation.novelty for signal in explained]  # type: ignore[union-attr]
    assert result.outlooks.horizon_bars == settings.primary


def test_progress_ends_at_the_number_of_bars() -> None:
    seen: list[int] = []
    replay(engine_of(Scripted({})), {A: walk(5000, 1)}, trades=[], progress=seen.append)
    assert seen == [2048, 4096, 5000]
