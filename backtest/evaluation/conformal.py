"""Forecasts as they would be issued after the online calibration that trading uses."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from backtest.evaluation.folds import Fold
from backtest.evaluation.forecasts import Forecasts, interval_80
from backtest.evaluation.panel import Panel
from strategies.readout import QUANTILES
from strategies.uncertainty.calibration import Calibration, uncalibrated
from strategies.uncertainty.fitting import ValidationForecasts, fit_calibration
from strategies.uncertainty.online import OnlineUncertainty, RawForecast

CALIBRATION: Final = 0.15
"""Share of the training rows, at their end, from whose forecasts the calibration starts: a model's validation part."""


def calibration_fold(fold: Fold) -> Fold:
    """The fold whose forecasts calibrate this one's: the last of its training rows are asked."""
    return replace(fold, test=fold.train[round(len(fold.train) * (1.0 - CALIBRATION)) :])


def starting_calibration(panel: Panel, earlier: Forecasts) -> Calibration:
    """What the calibration of a fold starts from, by forecasts of rows whose outcomes were known at its boundary."""
    rows = earlier.rows[np.isfinite(earlier.quantiles).all(axis=1)]
    if not len(rows):
        return uncalibrated(QUANTILES, (panel.horizon,))
    answered = earlier.take(np.searchsorted(earlier.rows, rows))
    known = ValidationForecasts(
        close_time=panel.moments.close_time[rows],
        quantiles=answered.quantiles[:, None, :],
        scales=panel.moments.volatility[rows][:, None],
        outcomes=panel.log_return[rows][:, None],
    )
    stretch = panel.horizon * panel.interval_ms + panel.rule.embargo_ms
    return fit_calibration(known, (panel.horizon,), 0, stretch_ms=stretch)


def conformal(panel: Panel, raw: Forecasts, start: Calibration) -> Forecasts:
    """The same forecasts with calibrated quantiles and direction (:mod:`strategies.uncertainty.online`).

    The calibration goes on learning from outcomes as they become known, so a row's answer depends on nothing later. Where
    a forecaster has no quantiles it stays as it is.
    """
    if not np.isfinite(raw.quantiles).all():
        return raw
    online = OnlineUncertainty(start)
    quantiles, up = np.empty_like(raw.quantiles), np.empty_like(raw.probability_up)
    names = [panel.symbols[number] for number in panel.symbol[raw.rows].tolist()]
    closes, scales = panel.close[raw.rows].tolist(), panel.moments.volatility[raw.rows].tolist()
    for place, (name, close, scale, levels) in enumerate(
        zip(names, closes, scales, raw.quantiles.tolist(), strict=True)
    ):
        online.settle(name, close)
        issued = online.calibrate(name, (RawForecast(levels, scale),))
        online.remember(name, close, issued)
        quantiles[place] = [level for _, level in issued[0].quantiles]
        up[place] = issued[0].rise_probability
    lower, upper = interval_80(quantiles)
    return replace(raw, quantiles=quantiles, probability_up=up, uncertainty=upper - lower)
