"""What a model must beat: forecasters that are simple, well known, and learn from the training rows of a fold alone.

All answer from the same table under the same rule of visibility. Mean and volatility are forecast in the unit of the
trailing volatility, in which quiet and wild times are alike. Where a method gives a mean and a volatility but no
distribution, the shape of the distribution is that of its own standardised training outcomes (filtered historical
simulation: Barone-Adesi, Giannopoulos and Vosper, "VaR without correlations for portfolios of derivative securities",
1999).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

from backtest.evaluation.controls import Recalled, Remembering, recall
from backtest.evaluation.folds import Fold
from backtest.evaluation.forecasts import Forecasts, forecasts_of, sized
from backtest.evaluation.metrics import rose
from backtest.evaluation.panel import Panel
from strategies.features import FEATURE_NAMES, LOG_RETURN_FEATURE
from strategies.memory_transformer.dataset import TARGET_LIMIT, Flags, Floats, Integers
from strategies.outcomes import SMALLEST_VOLATILITY
from strategies.readout import QUANTILES, weighted_quantiles
from strategies.scaling import Scaler

Forecaster = Callable[[Panel, Fold], Forecasts]
"""From what was known at the boundary, and at every row's own close, to answers for the test rows of a fold."""

HAR_HOURS: Final = (6, 24, 168, 720)
"""Spans whose realised volatility explains the next one: a quarter day, and Corsi's day, week and month."""
RIDGE_PENALTY: Final = 10.0
"""Of squared coefficients of standardised columns, against a sum of squared errors over tens of thousands of rows."""
NEIGHBOURS: Final = 32
MOMENTUM_FEATURE: Final = "trend_168"
MOMENTUM_SKILL: Final = 0.05
"""Information coefficient that momentum claims: "alpha is volatility times IC times score" (Grinold 1994)."""
BOOSTING: Final = {"max_iter": 150, "learning_rate": 0.05, "max_leaf_nodes": 15, "min_samples_leaf": 200}
"""Few, shallow and slow trees, because outcomes that overlap are far fewer than their rows."""
HELD_OUT: Final = 0.25
"""Share of the training rows, at their end, whose errors tell the spread of the trees' forecasts."""


# -- without a forecast of direction ----------------------------------------------------------------------------------------


def always_flat(panel: Panel, fold: Fold) -> Forecasts:
    """Holds nothing and knows the past: past mean volatility, a mean of zero, all training outcomes as its distribution."""
    return _climatology(panel, fold, np.zeros(len(fold.test)), np.zeros(len(fold.test)))


def buy_and_hold(panel: Panel, fold: Fold) -> Forecasts:
    """Always long with all equity; expects the mean of the past."""
    return _climatology(panel, fold, panel.past_return[fold.test], np.ones(len(fold.test)))


def volatility_targeted_hold(panel: Panel, fold: Fold) -> Forecasts:
    """Always long, with less where the market is wild; its volatility forecast is the trailing volatility."""
    rows = fold.test
    scale = np.log(panel.moments.volatility)
    bias = _by_symbol(
        panel, fold, lambda train, test: np.full(len(test), np.mean((panel.log_volatility - scale)[train]))
    )
    return _located(
        panel, fold, _zeros, lambda asked: scale[asked] + bias[asked], sized(panel, rows, np.ones(len(rows)))
    )


def _climatology(panel: Panel, fold: Fold, mean: Floats, exposure: Floats) -> Forecasts:
    rows = fold.test
    quantiles, up = np.empty((len(rows), len(QUANTILES))), np.empty(len(rows))
    for number in range(len(panel.symbols)):
        known = panel.log_return[fold.train[panel.symbol[fold.train] == number]]
        known = known if len(known) else panel.log_return[fold.train]
        own = panel.symbol[rows] == number
        quantiles[own], up[own] = np.quantile(known, QUANTILES), rose(known).mean()
    log_volatility = panel.past_log_volatility[rows]
    return forecasts_of(
        rows, mean=mean, probability_up=up, quantiles=quantiles, log_volatility=log_volatility, exposure=exposure
    )


# -- direction from a rule --------------------------------------------------------------------------------------------------


def momentum(panel: Panel, fold: Fold) -> Forecasts:
    """Goes with the trend of the last 168 bars (Moskowitz, Ooi and Pedersen 2012)."""
    trend = panel.features[:, FEATURE_NAMES.index(MOMENTUM_FEATURE)]
    mean = MOMENTUM_SKILL * trend[fold.test] * panel.moments.volatility[fold.test]
    return forecasts_of(fold.test, mean=mean, exposure=sized(panel, fold.test, np.sign(trend[fold.test])))


# -- regressions --------------------------------------------------------------------------------------------------------------


def har(panel: Panel, fold: Fold) -> Forecasts:
    """Next volatility from volatilities of the past by ridge regression, symbol by symbol; no mean.

    Corsi, "A simple approximate long-memory model of realized volatility", 2009, equation 8, in logarithms as in his
    section 4, with spans counted in hours.
    """
    terms = har_terms(panel)
    return _located(panel, fold, _zeros, _ridge_volatility(panel, fold, terms), np.zeros(len(fold.test)))


def ridge(panel: Panel, fold: Fold) -> Forecasts:
    """Mean and volatility by ridge regression on all features and the terms of :func:`har`, symbol by symbol."""
    columns = np.column_stack((har_terms(panel), _logarithms(panel.features)))
    target = _scaled_return(panel)
    scaled = _by_symbol(panel, fold, lambda train, test: _fit_ridge(columns, target, train, test))
    mean = scaled * panel.moments.volatility
    exposure = sized(panel, fold.test, np.sign(mean[fold.test]))
    return _located(panel, fold, lambda asked: mean[asked], _ridge_volatility(panel, fold, columns), exposure)


def boosting(panel: Panel, fold: Fold) -> Forecasts:
    """Mean and volatility by gradient boosted trees on the columns of :func:`ridge`, all symbols together.

    Trees fit their own training rows too well, so the shape of the distribution comes from the last part of them as
    forecast by trees that learned from what was known before it.
    """
    columns = np.column_stack((har_terms(panel), panel.features))
    scale = np.log(panel.moments.volatility)
    cut = int(panel.open_time[fold.train[round(len(fold.train) * (1.0 - HELD_OUT))]])
    held = fold.train[panel.open_time[fold.train] >= cut]
    earlier = fold.train[panel.visible_from[fold.train] <= cut]
    mean, log_volatility = np.full(len(scale), np.nan), np.full(len(scale), np.nan)
    for train, rows in ((earlier, held), (fold.train, fold.test)):
        mean[rows] = _fit_trees(columns, _scaled_return(panel), train, rows) * panel.moments.volatility[rows]
        log_volatility[rows] = _fit_trees(columns, panel.log_volatility - scale, train, rows) + scale[rows]
    exposure = sized(panel, fold.test, np.sign(mean[fold.test]))
    return _located(panel, fold, lambda asked: mean[asked], lambda asked: log_volatility[asked], exposure, shape=held)


# -- neighbours ---------------------------------------------------------------------------------------------------------------


def nearest_neighbours(panel: Panel, fold: Fold) -> Forecasts:
    """What followed the most similar moments: cosine of scaled features, no model, a memory that goes on growing.

    The memory obeys the rule of visibility row by row, so that it learns within the fold, as the model's own does.
    """
    memory = plain_memory(panel, fold)
    return memory.reader(fold.test, recall(panel, fold, memory))


def plain_memory(panel: Panel, fold: Fold) -> Remembering:
    """The memory of :func:`nearest_neighbours`, for controls."""
    scaler = Scaler.fit(panel.features[fold.train])
    keys = scaler.transform(panel.features)
    keys /= np.maximum(np.linalg.norm(keys, axis=1, keepdims=True), np.float32(1e-12))
    return Remembering(lambda rows, recalled: neighbour_forecasts(panel, rows, recalled), keys, NEIGHBOURS)


def neighbour_forecasts(panel: Panel, rows: Integers, recalled: Recalled) -> Forecasts:
    """Answers from neighbours that all count alike; nan without any.

    Their outcomes are taken in units of the volatility before them and given in units of that before the row.
    """
    mask, found = recalled.mask, recalled.outcomes
    some: Flags = np.asarray(mask.any(axis=1))
    weights = np.where(mask, 1.0, 0.0)
    weights[~some] = 1.0  # answered below by nan
    share = weights / weights.sum(axis=1, keepdims=True)
    scaled = np.where(mask, _scaled_return(panel)[found], 0.0)
    ratio = np.where(mask, (panel.log_volatility - np.log(panel.moments.volatility))[found], 0.0)
    volatility = panel.moments.volatility[rows]
    levels = weighted_quantiles(np.where(mask | ~some[:, None], scaled, np.inf), weights, QUANTILES)
    blank = np.where(some, 0.0, np.nan)
    mean = (share * scaled).sum(axis=1) * volatility + blank
    return forecasts_of(
        rows,
        mean=mean,
        probability_up=(share * rose(scaled)).sum(axis=1) + blank,
        quantiles=levels * volatility[:, None] + blank[:, None],
        log_volatility=(share * ratio).sum(axis=1) + np.log(volatility) + blank,
        exposure=sized(panel, rows, np.sign(mean)),
    )


BASELINES: Final[Mapping[str, Forecaster]] = {
    "flat": always_flat,
    "hold": buy_and_hold,
    "hold_targeted": volatility_targeted_hold,
    "momentum": momentum,
    "har": har,
    "ridge": ridge,
    "boosting": boosting,
    "knn": nearest_neighbours,
}
"""All of them, in the order of the table."""


# -- parts --------------------------------------------------------------------------------------------------------------------


def har_terms(panel: Panel) -> Floats:
    """Logarithm of the realised volatility of the last bars, per bar, ``[n, len(HAR_HOURS)]``.

    Spans shorter than one bar are one bar; where a symbol's history is shorter than a span, it is what there is.
    """
    spans = [max(1, round(hours * 3_600_000 / panel.interval_ms)) for hours in HAR_HOURS]
    terms = np.empty((len(panel.symbol), len(spans)))
    for number in range(len(panel.symbols)):
        rows = panel.rows_of(number)
        squares = panel.features[rows, LOG_RETURN_FEATURE] ** 2
        for column, span in enumerate(spans):
            padded = np.concatenate((np.zeros(span - 1), squares))
            # Window by window: a running sum would carry rounding from bar to bar.
            sums = np.lib.stride_tricks.sliding_window_view(padded, span).sum(axis=1)
            count = np.minimum(np.arange(1, len(rows) + 1), span)
            terms[rows, column] = np.log(np.maximum(np.sqrt(sums / count), SMALLEST_VOLATILITY))
    return terms


def _logarithms(features: Floats) -> Floats:
    """Features with sizes, which are never negative and skewed, in logarithms."""
    columns = features.copy()
    for name in ("volatility_20", "volatility_120", "bar_range", "volatility_ratio"):
        place = FEATURE_NAMES.index(name)
        columns[:, place] = np.log(np.maximum(features[:, place], SMALLEST_VOLATILITY))
    place = FEATURE_NAMES.index("volume_change")
    columns[:, place] = np.log(np.maximum(features[:, place] + 1.0, 1e-3))
    return columns


def _scaled_return(panel: Panel) -> Floats:
    return np.clip(panel.log_return / panel.moments.volatility, -TARGET_LIMIT, TARGET_LIMIT)


def _zeros(rows: Integers) -> Floats:
    return np.zeros(len(rows))


def _by_symbol(panel: Panel, fold: Fold, fit: Callable[[Integers, Integers], Floats]) -> Floats:
    """``[n]`` answers of one fit per symbol for its training and test rows, nan elsewhere.

    A symbol without training rows is answered from those of all.
    """
    answers = np.full(len(panel.symbol), np.nan)
    for number in range(len(panel.symbols)):
        own = fold.train[panel.symbol[fold.train] == number]
        asked = np.concatenate((own, fold.test[panel.symbol[fold.test] == number]))
        if len(asked):
            answers[asked] = fit(own if len(own) > 1 else fold.train, asked)
    return answers


def _fit_ridge(columns: Floats, target: Floats, train: Integers, rows: Integers) -> Floats:
    scaler = Scaler.fit(columns[train])
    model = Ridge(alpha=RIDGE_PENALTY)
    model.fit(scaler.transform(columns[train]).astype(np.float64), target[train])
    answer: Floats = model.predict(scaler.transform(columns[rows]).astype(np.float64))
    return answer


def _fit_trees(columns: Floats, target: Floats, train: Integers, rows: Integers) -> Floats:
    trees = HistGradientBoostingRegressor(random_state=0, early_stopping=False, **BOOSTING)
    trees.fit(columns[train], target[train])
    answer: Floats = trees.predict(columns[rows])
    return answer


def _ridge_volatility(panel: Panel, fold: Fold, columns: Floats) -> Callable[[Integers], Floats]:
    answers = _by_symbol(panel, fold, lambda train, test: _fit_ridge(columns, panel.log_volatility, train, test))
    return lambda rows: answers[rows]


def _located(
    panel: Panel,
    fold: Fold,
    mean: Callable[[Integers], Floats],
    log_volatility: Callable[[Integers], Floats],
    exposure: Floats,
    shape: Integers | None = None,
) -> Forecasts:
    """Answers of a mean and a volatility, with the shape of the distribution from training rows of each symbol, or some."""
    rows, shaping = fold.test, fold.train if shape is None else shape
    located, spread = mean(rows), np.exp(log_volatility(rows))
    quantiles, up = np.empty((len(rows), len(QUANTILES))), np.empty(len(rows))
    for number in range(len(panel.symbols)):
        own = shaping[panel.symbol[shaping] == number]
        own = own if len(own) else shaping
        standard = np.sort((panel.log_return[own] - mean(own)) / np.exp(log_volatility(own)))
        asked = np.flatnonzero(panel.symbol[rows] == number)
        quantiles[asked] = located[asked, None] + spread[asked, None] * np.quantile(standard, QUANTILES)
        up[asked] = 1.0 - np.searchsorted(standard, -located[asked] / spread[asked]) / len(standard)
    return forecasts_of(
        rows,
        mean=located,
        probability_up=up,
        quantiles=quantiles,
        log_volatility=log_volatility(rows),
        exposure=exposure,
    )
