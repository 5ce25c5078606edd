"""The first lines: whether a result can be told from luck."""

from __future__ import annotations

import numpy as np
import pytest

from backtest.metrics import performance
from backtest.report.returns import DailyReturns
from backtest.report.verdict import sharpe_interval, verdict_of
from strategies.bars import Calendar
from tests.backtest.report.scenes import path_of
from tests.backtest.report.test_returns import daily_of


def normal_returns(days: int, mean: float, seed: int) -> DailyReturns:
    returns = np.random.default_rng(seed).normal(mean, 0.01, days)
    return DailyReturns(np.arange(days, dtype=np.int64), returns)


def test_the_ratio_is_that_of_the_metrics() -> None:
    times, equity = path_of(900 * 24)
    interval = sharpe_interval(daily_of(900 * 24), 365)
    metrics = performance(times, equity, [], initial_cash=1000.0, calendar=Calendar.CONTINUOUS)
    assert interval is not None and interval.value == pytest.approx(metrics.sharpe_ratio)
    assert interval.low < interval.value < interval.high


def test_the_interval_is_as_wide_as_theory_says() -> None:
    """Lo, "The statistics of Sharpe ratios", 2002: of independent days the error is sqrt((1 + S²/2) / n), S by the day."""
    interval = sharpe_interval(normal_returns(2000, 0.0005, 1), 365)
    assert interval is not None
    daily = interval.value / np.sqrt(365)
    error = np.sqrt((1.0 + 0.5 * daily**2) / 2000) * np.sqrt(365)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_noise_is_called_better_than_luck_as_rarely_as_the_level_says() -> None:
    tones = [verdict_of(normal_returns(250, 0.0, seed), 365, 50, None).tone for seed in range(60)]
    assert tones.count("good") + tones.count("bad") <= 9  # 3 expected; 9 or more has a chance below 0.4 %


@pytest.mark.parametrize(("mean", "tone"), [(0.002, "good"), (-0.002, "bad")])
def test_an_edge_and_a_steady_loss_are_seen(mean: float, tone: str) -> None:
    assert verdict_of(normal_returns(1000, mean, 3), 365, 50, None).tone == tone


def test_what_is_too_short_flat_or_without_trades_is_not_judged() -> None:
    assert "Too short" in verdict_of(normal_returns(12, 0.01, 1), 365, 50, None).headline
    flat = DailyReturns(np.arange(99, dtype=np.int64), np.zeros(99))
    assert sharpe_interval(flat, 365) is None
    assert "Nothing was traded" in verdict_of(flat, 365, 0, None).headline


def test_a_run_without_a_memory_owes_it_nothing() -> None:
    assert "no memory" in verdict_of(normal_returns(99, 0.0, 1), 365, 9, None).sentences[1]


@pytest.mark.parametrize(
    ("outcome", "tone"), [("significant", "good"), ("luck", "open"), ("loss", "bad"), ("undecided", "open")]
)
def test_a_run_that_was_tested_when_it_ended_is_told_by_that_test(outcome: str, tone: str) -> None:
    judged = {"outcome": outcome, "sentences": ["It was tested."]}
    verdict = verdict_of(normal_returns(1000, 0.002, 3), 365, 50, None, judged)
    assert (verdict.tone, verdict.sentences) == (tone, ("It was tested.",))
