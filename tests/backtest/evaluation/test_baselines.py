"""Baselines answer from what was known, as their definitions say."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from sklearn.linear_model import Ridge as SklearnRidge

from backtest.evaluation.baselines import BASELINES, HAR_HOURS, har, har_terms
from backtest.evaluation.forecasts import TARGET_VOLATILITY, interval_80, sized
from strategies.features import FEATURE_NAMES
from tests.backtest.evaluation.worlds import BARS, TRAIN_BARS, noise, one_fold, panel_of, with_other_future

SERIES = noise()
PANEL = panel_of(SERIES)
FOLD = one_fold(PANEL)


@pytest.mark.parametrize("name", BASELINES)
def test_no_answer_knows_a_later_bar(name):
    cut = TRAIN_BARS + 600
    other = panel_of(with_other_future(SERIES, cut))
    before = PANEL.open_time[FOLD.test] < int(PANEL.open_time[0]) + cut * PANEL.interval_ms
    kept = BASELINES[name](PANEL, FOLD).take(np.flatnonzero(before))
    # The fold is that of the panel it comes from: rows are the same, their outcomes are not.
    again = BASELINES[name](other, one_fold(other)).take(np.flatnonzero(before))
    assert before.sum() == 2 * 600 and not np.array_equal(other.log_return[FOLD.test], PANEL.log_return[FOLD.test])
    for field in fields(kept):
        np.testing.assert_array_equal(getattr(kept, field.name), getattr(again, field.name), err_msg=field.name)


@pytest.mark.parametrize("name", BASELINES)
def test_answers_are_whole_and_quantiles_do_not_cross(name):
    answers = BASELINES[name](PANEL, FOLD)
    assert np.array_equal(answers.rows, FOLD.test)
    assert np.isfinite(answers.mean).all() and np.isfinite(answers.exposure).all()
    assert (np.abs(answers.exposure) <= 1.0).all()
    if name != "momentum":
        assert (np.diff(answers.quantiles, axis=1) >= 0.0).all()
        assert ((answers.probability_up >= 0.0) & (answers.probability_up <= 1.0)).all()
        lower, upper = interval_80(answers.quantiles)
        np.testing.assert_allclose(answers.uncertainty, upper - lower)


def test_terms_of_har_are_root_mean_squares_of_the_last_bars():
    rows = PANEL.rows_of(1)
    returns = np.concatenate(([0.0], np.diff(np.log(SERIES["BUSDT"].close))))
    for place in (5, 200, 2000):
        for column, span in enumerate(HAR_HOURS):
            window = returns[max(0, place + 1 - span) : place + 1]
            assert har_terms(PANEL)[rows[place], column] == pytest.approx(np.log(np.sqrt(np.mean(window**2))))


def test_har_is_the_ridge_regression_of_scikit_learn_on_the_rows_of_each_symbol():
    answers = har(PANEL, FOLD)
    columns = har_terms(PANEL)
    train = FOLD.train[PANEL.symbol[FOLD.train] == 1]
    asked = FOLD.test[PANEL.symbol[FOLD.test] == 1]
    mean, scale = columns[train].mean(axis=0), columns[train].std(axis=0)
    model = SklearnRidge(alpha=10.0).fit((columns[train] - mean) / scale, PANEL.log_volatility[train])
    expected = model.predict((columns[asked] - mean) / scale)
    np.testing.assert_allclose(answers.log_volatility[PANEL.symbol[answers.rows] == 1], expected, atol=1e-5)


def test_what_can_be_known_of_volatility_is_known_by_the_regressions():
    """GARCH noise: every regression and the neighbours beat the past mean, and the quantiles fit."""
    came, past = PANEL.log_volatility[FOLD.test], PANEL.past_log_volatility[FOLD.test]
    for name in ("har", "ridge", "boosting", "knn"):
        answers = BASELINES[name](PANEL, FOLD)
        r2 = 1.0 - np.sum((came - answers.log_volatility) ** 2) / np.sum((came - past) ** 2)
        lower, upper = interval_80(answers.quantiles)
        covered = np.mean((lower <= PANEL.log_return[FOLD.test]) & (PANEL.log_return[FOLD.test] <= upper))
        assert r2 > 0.1 and 0.70 < covered < 0.88, name


def test_momentum_goes_with_the_trend():
    answers = BASELINES["momentum"](PANEL, FOLD)
    trend = PANEL.features[FOLD.test, FEATURE_NAMES.index("trend_168")]
    np.testing.assert_array_equal(np.sign(answers.mean), np.sign(trend))
    np.testing.assert_array_equal(np.sign(answers.exposure), np.sign(trend))


def test_a_view_is_sized_so_that_its_volatility_is_the_target():
    rows = FOLD.test[:100]
    exposure = sized(PANEL, rows, np.ones(100))
    annual = PANEL.moments.volatility[rows] * np.sqrt(365 * 24 / PANEL.horizon)
    np.testing.assert_allclose(exposure * annual, np.minimum(TARGET_VOLATILITY, annual))


def test_a_symbol_without_training_rows_is_answered_from_those_of_the_others():
    young = SERIES | {"BUSDT": SERIES["BUSDT"].slice(TRAIN_BARS - 100, BARS)}
    panel = panel_of(young)
    fold = one_fold(panel)
    assert (panel.symbol[fold.train] == 0).all() and (panel.symbol[fold.test] == 1).any()
    for name in ("flat", "har", "ridge", "boosting", "knn"):
        assert np.isfinite(BASELINES[name](panel, fold).quantiles).all(), name
