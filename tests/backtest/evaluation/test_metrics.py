"""Metrics of forecasts: closed forms, independent libraries, and nothing that knows the future."""

from __future__ import annotations

from math import erf, pi, sqrt
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import brier_score_loss, log_loss, mean_pinball_loss, r2_score

from backtest.evaluation import metrics
from strategies.memory_transformer.shrinkage import crps
from strategies.uncertainty.fitting import quantile_losses

GENERATOR = np.random.default_rng(5)
OUTCOME = GENERATOR.normal(size=500)
FORECAST = 0.3 * OUTCOME + GENERATOR.normal(size=500)
PROBABILITY = 1.0 / (1.0 + np.exp(-FORECAST))
ONES = np.ones(500)


def test_losses_of_a_probability_are_those_of_scikit_learn():
    up = OUTCOME > 0.0
    assert metrics.brier_losses(PROBABILITY, OUTCOME).mean() == pytest.approx(brier_score_loss(up, PROBABILITY))
    assert metrics.log_losses(PROBABILITY, OUTCOME).mean() == pytest.approx(log_loss(up, PROBABILITY))


def test_an_outcome_of_nothing_is_half_a_rise():
    nothing = np.zeros(1)
    assert metrics.brier_losses(np.array([0.5]), nothing)[0] == 0.0
    assert metrics.log_losses(np.array([0.5]), nothing)[0] == pytest.approx(np.log(2.0))


def test_a_certainty_that_was_wrong_has_a_finite_log_score():
    assert metrics.log_losses(np.array([1.0]), np.array([-1.0]))[0] == pytest.approx(-np.log(1e-6))


def test_quantile_losses_are_those_of_scikit_learn():
    quantiles = np.column_stack((FORECAST - 1.0, FORECAST + 1.0))
    losses = quantile_losses(quantiles, (0.1, 0.9), OUTCOME).mean(axis=0)
    for column, level in enumerate((0.1, 0.9)):
        assert losses[column] == pytest.approx(mean_pinball_loss(OUTCOME, quantiles[:, column], alpha=level))


def test_many_quantiles_give_the_score_of_the_normal_distribution():
    levels = tuple(((np.arange(4000) + 0.5) / 4000).tolist())
    quantiles = np.tile([NormalDist().inv_cdf(level) for level in levels], (3, 1))
    came = np.array([-1.3, 0.0, 2.0])
    density = np.exp(-0.5 * came**2) / sqrt(2.0 * pi)
    below = np.array([0.5 * (1.0 + erf(each / sqrt(2.0))) for each in came])
    # Gneiting and Raftery 2007, equation 22.
    exact = came * (2.0 * below - 1.0) + 2.0 * density - 1.0 / sqrt(pi)
    np.testing.assert_allclose(metrics.crps_losses(quantiles, levels, came), exact, atol=1e-3)


def test_the_score_of_quantiles_is_that_of_the_samples_they_come_from():
    samples = np.sort(GENERATOR.normal(size=(4, 200)), axis=1)
    levels = tuple(((np.arange(200) + 0.5) / 200).tolist())
    of_samples = crps(samples, np.full((4, 200), 1 / 200), OUTCOME[:4])
    np.testing.assert_allclose(metrics.crps_losses(samples, levels, OUTCOME[:4]), of_samples, rtol=1e-6)


def test_the_normal_log_score_is_the_log_density():
    expected = [-np.log(NormalDist(0.5, 2.0).pdf(each)) for each in OUTCOME[:5]]
    mean, log_volatility = np.full(5, 0.5), np.full(5, np.log(2.0))
    np.testing.assert_allclose(metrics.normal_log_losses(mean, log_volatility, OUTCOME[:5]), expected)


def test_qlike_is_nothing_for_the_truth_and_worse_for_too_little_than_for_too_much():
    truth = np.array([-3.0])
    assert metrics.qlike_losses(truth, truth)[0] == 0.0
    assert metrics.qlike_losses(truth - 0.5, truth)[0] > metrics.qlike_losses(truth + 0.5, truth)[0] > 0.0
    assert metrics.qlike_losses(truth - 0.5 * np.log(2.0), truth)[0] == pytest.approx(2.0 - np.log(2.0) - 1.0)


def test_r2_against_the_sample_mean_is_that_of_scikit_learn_and_a_reference_gets_nothing():
    reference = np.full(500, OUTCOME.mean())
    assert metrics.r2(OUTCOME, FORECAST, reference, ONES) == pytest.approx(r2_score(OUTCOME, FORECAST))
    assert metrics.r2(OUTCOME, reference, reference, ONES) == 0.0


def test_correlation_is_that_of_scipy_and_undefined_for_a_constant():
    assert metrics.correlation(FORECAST, OUTCOME, ONES) == pytest.approx(pearsonr(FORECAST, OUTCOME).statistic)
    assert np.isnan(metrics.correlation(ONES, OUTCOME, ONES))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_counts_of_a_resample_are_the_resample(seed):
    drawn = np.random.default_rng(seed).integers(0, 500, size=500)
    counts = np.bincount(drawn, minlength=500).astype(np.float64)
    reference = np.zeros(500)
    uncertainty = np.abs(FORECAST)
    pairs = (
        (
            metrics.r2(OUTCOME, FORECAST, reference, counts),
            metrics.r2(OUTCOME[drawn], FORECAST[drawn], reference, ONES),
        ),
        (metrics.correlation(FORECAST, OUTCOME, counts), metrics.correlation(FORECAST[drawn], OUTCOME[drawn], ONES)),
        (
            metrics.calibration_error(PROBABILITY, OUTCOME, counts),
            metrics.calibration_error(PROBABILITY[drawn], OUTCOME[drawn], ONES),
        ),
        (
            metrics.coverage(FORECAST - 1.0, FORECAST + 1.0, OUTCOME, counts),
            metrics.coverage(FORECAST[drawn] - 1.0, FORECAST[drawn] + 1.0, OUTCOME[drawn], ONES),
        ),
    )
    for weighted, plain in pairs:
        assert weighted == pytest.approx(plain, abs=1e-10)
    weighted = metrics.area_under_risk_coverage(OUTCOME**2, uncertainty, counts)
    # Drawn twice, a row enters twice at once; the area differs by less than the steps are high.
    plain = metrics.area_under_risk_coverage(OUTCOME[drawn] ** 2, uncertainty[drawn], ONES)
    assert weighted == pytest.approx(plain, rel=0.2)


def test_calibration_error_is_nothing_for_frequencies_and_the_distance_for_a_constant():
    outcome = np.array([1.0, 1.0, 1.0, -1.0])
    assert metrics.calibration_error(np.full(4, 0.75), outcome, np.ones(4)) == pytest.approx(0.0)
    assert metrics.calibration_error(np.full(4, 0.45), outcome, np.ones(4)) == pytest.approx(0.3)


def test_reliability_gives_every_bin_its_mean_and_frequency():
    table = metrics.reliability(np.array([0.11, 0.19, 0.95, 1.0]), np.array([1.0, -1.0, 1.0, 1.0]))
    np.testing.assert_allclose(table.probability, [0.15, 0.975])
    np.testing.assert_allclose(table.frequency, [0.5, 1.0])
    assert table.count.tolist() == [2, 2]


def test_an_uncertainty_that_orders_the_losses_has_the_smallest_area():
    losses = np.arange(1.0, 11.0)
    ordered, reversed_order = (
        metrics.area_under_risk_coverage(losses, uncertainty, np.ones(10)) for uncertainty in (losses, -losses)
    )
    # Means of the first k numbers are (k + 1) / 2.
    assert ordered == pytest.approx(np.mean([(k + 1) / 2 for k in range(1, 11)]))
    assert ordered < losses.mean() < reversed_order
    shares, risks = metrics.risk_coverage_curve(losses, losses, points=5)
    assert shares.tolist() == [0.2, 0.4, 0.6, 0.8, 1.0] and risks.tolist() == [1.5, 2.5, 3.5, 4.5, 5.5]


def test_the_expanding_mean_knows_what_was_visible_at_each_close_and_nothing_later():
    values = np.array([1.0, 10.0, 3.0, np.nan, 5.0])
    group = np.array([0, 1, 0, 0, 0])
    close = np.array([10, 10, 20, 30, 40])
    visible = close + 15
    means = metrics.expanding_mean(values, visible, close, group)
    np.testing.assert_allclose(means, [np.nan, np.nan, np.nan, 1.0, 2.0])
    later = values.copy()
    later[4] = 1e9
    np.testing.assert_array_equal(metrics.expanding_mean(later, visible, close, group), means)
