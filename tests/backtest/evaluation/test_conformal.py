"""Calibrated intervals cover what they promise, and know nothing later."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from backtest.evaluation.baselines import nearest_neighbours
from backtest.evaluation.conformal import calibration_fold, conformal, starting_calibration
from backtest.evaluation.folds import Fold
from backtest.evaluation.forecasts import Forecasts, forecasts_of, interval_80
from backtest.evaluation.panel import Panel
from tests.backtest.evaluation.worlds import TRAIN_BARS, noise, one_fold, panel_of, with_other_future

SERIES = noise()
PANEL = panel_of(SERIES)
FOLD = one_fold(PANEL)


def narrow(panel: Panel, fold: Fold) -> Forecasts:
    """Intervals half as wide as they should be."""
    raw = nearest_neighbours(panel, fold)
    return replace(raw, quantiles=0.5 * raw.quantiles)


def calibrated(panel: Panel, fold: Fold) -> Forecasts:
    return conformal(panel, narrow(panel, fold), starting_calibration(panel, narrow(panel, calibration_fold(fold))))


def test_intervals_too_narrow_by_half_come_to_cover_four_fifths():
    came = PANEL.log_return[FOLD.test]
    covered = []
    for answers in (narrow(PANEL, FOLD), calibrated(PANEL, FOLD)):
        lower, upper = interval_80(answers.quantiles)
        covered.append(float(np.mean((lower <= came) & (came <= upper))))
    assert covered[0] < 0.55 and 0.76 < covered[1] < 0.84


def test_what_calibrates_was_known_at_the_boundary():
    asked = calibration_fold(FOLD).test
    assert np.isin(asked, FOLD.train).all() and (PANEL.visible_from[asked] <= FOLD.boundary).all()


def test_no_calibrated_answer_knows_a_later_bar():
    cut = TRAIN_BARS + 600
    other = panel_of(with_other_future(SERIES, cut))
    before = np.flatnonzero(PANEL.open_time[FOLD.test] < int(PANEL.open_time[0]) + cut * PANEL.interval_ms)
    mine, theirs = calibrated(PANEL, FOLD).take(before), calibrated(other, one_fold(other)).take(before)
    np.testing.assert_array_equal(mine.quantiles, theirs.quantiles)
    np.testing.assert_array_equal(mine.probability_up, theirs.probability_up)


def test_a_forecaster_without_quantiles_stays_as_it_is():
    given = forecasts_of(FOLD.test, mean=np.zeros(len(FOLD.test)))
    assert conformal(PANEL, given, starting_calibration(PANEL, given)) is given
