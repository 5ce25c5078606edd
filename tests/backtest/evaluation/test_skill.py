"""Tests of skill: their formulas against independent ones, and how often they cry wolf."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from arch.covariance.kernel import Bartlett

from backtest.evaluation.intervals import Resamples
from backtest.evaluation.metrics import correlation, mean_of
from backtest.evaluation.skill import (
    LAGS_PER_HORIZON,
    clark_west,
    diebold_mariano,
    information_coefficient_test,
    long_run_variance,
)

HORIZON = 12
LAG = LAGS_PER_HORIZON * HORIZON


def overlapping(generator: np.random.Generator, count: int) -> np.ndarray:
    """Sums of the next ``HORIZON`` shocks: what returns over a horizon look like bar by bar."""
    return np.convolve(generator.normal(size=count + HORIZON - 1), np.ones(HORIZON), mode="valid")


def test_the_long_run_variance_is_that_of_arch():
    values = overlapping(np.random.default_rng(1), 400)
    expected = float(Bartlett(values, bandwidth=20, df_adjust=0).cov.long_run.squeeze())
    assert long_run_variance(values, 20) == pytest.approx(expected)


def test_the_error_of_a_mean_is_that_of_statsmodels():
    values = overlapping(np.random.default_rng(2), 400)
    fit = sm.OLS(values, np.ones(400)).fit(cov_type="HAC", cov_kwds={"maxlags": 20})
    assert np.sqrt(long_run_variance(values, 20) / 400) == pytest.approx(float(fit.bse[0]))


def test_the_long_run_variance_of_overlapping_sums_is_the_square_of_their_length():
    values = overlapping(np.random.default_rng(3), 200_000)
    # A moving sum of h independent unit shocks has h^2; Bartlett's weights take about h / (3 lag) of it.
    short = 1.0 - (HORIZON * HORIZON - 1) / (3.0 * HORIZON * (LAG + 1))
    assert long_run_variance(values, LAG) == pytest.approx(HORIZON**2 * short, rel=0.08)


def test_forecasts_without_skill_are_found_to_have_some_as_rarely_as_promised():
    statistics = []
    for seed in range(200):
        generator = np.random.default_rng(seed)
        forecast, outcome = overlapping(generator, 3000), overlapping(generator, 3000)
        statistics.append(information_coefficient_test(forecast, outcome, LAG).statistic)
    # Errors without allowance for the overlap would be too small by a factor of about sqrt(2 h / 3) = 2.8.
    assert 0.85 < float(np.std(statistics)) < 1.2
    assert float(np.mean(np.abs(statistics) > 1.96)) < 0.10


def test_the_estimate_is_the_correlation_and_a_real_one_is_found():
    generator = np.random.default_rng(4)
    outcome = overlapping(generator, 3000)
    forecast = outcome + 3.0 * overlapping(generator, 3000)
    test = information_coefficient_test(forecast, outcome, LAG)
    assert test.estimate == pytest.approx(float(correlation(forecast, outcome, np.ones(3000))))
    assert test.statistic > 4.0 and test.p_value < 1e-4


def test_a_constant_forecast_has_no_coefficient():
    assert np.isnan(information_coefficient_test(np.ones(50), np.arange(50.0), 4).statistic)


def test_clark_west_is_its_formula():
    outcome, nested, larger = np.array([1.0, -2.0, 0.5, 3.0]), np.zeros(4), np.array([0.5, -0.5, 0.5, 1.0])
    # y^2 - (y - f)^2 + f^2 = 2 y f for a nested forecast of zero.
    gain = 2.0 * outcome * larger
    test = clark_west(outcome, nested, larger, 0)
    assert test.estimate == pytest.approx(gain.mean())
    assert test.statistic == pytest.approx(gain.mean() / np.sqrt(gain.var() / 4))


def test_clark_west_has_its_size_where_the_plain_comparison_of_errors_punishes_the_larger_model():
    """Clark and West 2007: the coefficient of a useless variable, estimated from a rolling window of 60."""
    rejected, plain = [], []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        x, y = generator.normal(size=360), generator.normal(size=360)
        slopes = np.array([x[t - 60 : t] @ y[t - 60 : t] / (x[t - 60 : t] @ x[t - 60 : t]) for t in range(60, 360)])
        outcome, larger, nested = y[60:], slopes * x[60:], np.zeros(300)
        rejected.append(clark_west(outcome, nested, larger, 1).p_value < 0.10)
        plain.append(diebold_mariano((outcome - larger) ** 2, outcome**2, 1, 1).estimate)
    assert 0.04 < np.mean(rejected) < 0.15  # their table 1: slightly below the nominal 0.10
    assert np.mean(plain) < 0.0


def test_diebold_mariano_is_its_formula_with_the_correction():
    generator = np.random.default_rng(6)
    losses, rival = generator.exponential(size=50), generator.exponential(size=50)
    difference = rival - losses
    test = diebold_mariano(losses, rival, 3, 0)
    correction = (50 + 1 - 2 * 3 + 3 * 2 / 50) / 50
    assert test.statistic == pytest.approx(difference.mean() / np.sqrt(difference.var() / 50) * np.sqrt(correction))
    assert test.estimate == pytest.approx(difference.mean())


def test_diebold_mariano_has_its_size_under_overlap():
    rejected = []
    for seed in range(200):
        generator = np.random.default_rng(seed)
        losses, rival = overlapping(generator, 2000) ** 2, overlapping(generator, 2000) ** 2
        rejected.append(diebold_mariano(losses, rival, HORIZON, LAG).p_value < 0.05)
    assert np.mean(rejected) < 0.12


def test_intervals_of_dependent_rows_are_as_wide_as_their_dependence():
    values = overlapping(np.random.default_rng(7), 4000)
    figure = Resamples.draw(4000, 10 * HORIZON, seed=1).figure(lambda weights: mean_of(values, weights))
    assert figure.low is not None and figure.high is not None
    width = (figure.high - figure.low) / (2 * 1.96)
    assert width == pytest.approx(np.sqrt(long_run_variance(values, 10 * HORIZON) / 4000), rel=0.2)
    assert figure.low < values.mean() < figure.high


def test_the_same_seed_draws_the_same_resamples():
    first, second = (Resamples.draw(50, 5, resamples=3, seed=9).counts for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (first.sum(axis=1) == 50).all()


def test_a_figure_that_is_not_defined_is_none():
    assert Resamples.draw(10, 2, resamples=2).figure(lambda weights: weights.sum(axis=-1) * np.nan).value is None
