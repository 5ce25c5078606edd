"""Sharpe ratios against published values and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from purgedcv import min_track_record_length

from backtest.significance.sharpe import Trials, daily_sharpe, return_intervals, sharpe_evidence
from strategies.bars import FloatArray


def skewed(days: int, share: float, sharpe: float) -> FloatArray:
    """Returns of two values: a share of large losses, so that skew and kurtosis follow from the share; of a given ratio."""
    raw = np.where(np.arange(days) < share * days, -1.0, 0.0)
    raw = np.random.default_rng(1).permutation(raw)
    return 0.01 * ((raw - raw.mean()) / raw.std() + sharpe)


def test_the_deflated_ratio_is_that_of_the_paper() -> None:
    """Bailey and Lopez de Prado 2014, "a numerical example": 1,250 days, annual ratio 2.5, skew -3, kurtosis 10, variance of
    the trials' annual ratios 1/2: a deflated ratio of 0.9004 with 100 trials."""
    returns = skewed(1250, 0.084, 2.5 / np.sqrt(250))
    found = sharpe_evidence(returns, Trials(100, 0.5 / 250), level=0.05)
    assert found.luckiest == pytest.approx(0.1132, abs=5e-5)
    assert found.deflated == pytest.approx(0.9004, abs=2e-3)


def test_the_track_record_needed_is_that_of_the_paper() -> None:
    """Bailey and Lopez de Prado 2012: an annual ratio of 2 is told from 1 after 2.73 years of normal days."""
    days = min_track_record_length(2.0 / np.sqrt(250), 1.0 / np.sqrt(250), 0.05, 0.0, 3.0)
    assert days / 250 == pytest.approx(2.73, abs=0.01)


def test_a_record_as_long_as_needed_is_just_sure_enough() -> None:
    needed = sharpe_evidence(skewed(1000, 0.3, 0.06), Trials(), level=0.05).minimum_days
    assert needed is not None
    longer = sharpe_evidence(skewed(round(needed), 0.3, 0.06), Trials(), level=0.05)
    assert longer.probabilistic == pytest.approx(0.95, abs=0.003)


def test_one_trial_is_not_deflated_and_more_trials_make_less_sure() -> None:
    returns = np.random.default_rng(2).normal(0.001, 0.01, 500)
    alone = sharpe_evidence(returns, Trials(), level=0.05)
    assert alone.deflated == alone.probabilistic and alone.luckiest == 0.0
    deflated = [sharpe_evidence(returns, Trials(count, 0.002), level=0.05).deflated for count in (2, 10, 100)]
    assert all(ratio is not None for ratio in deflated)
    assert sorted(deflated, reverse=True) == deflated  # type: ignore[type-var]


def test_no_length_of_record_proves_a_loss() -> None:
    assert sharpe_evidence(skewed(500, 0.3, -0.02), Trials(), level=0.05).minimum_days is None


@pytest.mark.parametrize("returns", [np.zeros(100), np.full(100, 0.01), np.array([0.01, 0.02])])
def test_returns_that_do_not_move_prove_nothing(returns: FloatArray) -> None:
    found = sharpe_evidence(returns, Trials(), level=0.05)
    assert found.probabilistic is None and found.deflated is None
    assert daily_sharpe(returns) is None
    assert return_intervals(returns, 365, level=0.05, resamples=50, seed=0).sharpe_ratio.value is None


def test_intervals_are_as_wide_as_theory_says() -> None:
    """Lo, "The statistics of Sharpe ratios", 2002: of independent days the error is sqrt((1 + S²/2) / n), S per day."""
    returns = np.random.default_rng(1).normal(0.0005, 0.01, 2000)
    found = return_intervals(returns, 365, level=0.05, resamples=1000, seed=0)
    ratio, growth = found.sharpe_ratio, found.annual_return
    assert ratio.value == pytest.approx(returns.mean() / returns.std(ddof=1) * np.sqrt(365))
    assert ratio.low is not None and ratio.high is not None
    error = np.sqrt((1 + 0.5 * (ratio.value / np.sqrt(365)) ** 2) / 2000) * np.sqrt(365)
    assert ratio.high - ratio.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert growth.value == pytest.approx(np.prod(1.0 + returns) ** (365 / 2000) - 1.0)
    assert growth.low is not None and growth.high is not None and growth.low < growth.value < growth.high
