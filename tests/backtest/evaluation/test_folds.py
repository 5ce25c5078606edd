"""Folds learn from what was known at their boundary, by time, and forecast all that follows once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from purgedcv import WalkForwardSplit

from backtest.evaluation.folds import FoldLength, boundaries, walk_forward
from bot.errors import UsageError
from strategies.bars import DAY_MS, parse_time
from strategies.memory_transformer.dataset import build_dataset
from tests.backtest.evaluation.worlds import BARS, CONFIG, HORIZON, TRAIN_BARS, noise, one_fold, panel_of

SERIES = noise()
PANEL = panel_of(SERIES)
FOLD = one_fold(PANEL)


def test_every_outcome_learned_from_was_known_and_past_its_embargo_at_the_boundary():
    settled = PANEL.moments.settled[FOLD.train, CONFIG.primary]
    assert (settled + CONFIG.embargo * PANEL.interval_ms <= FOLD.boundary).all()
    assert (PANEL.open_time[FOLD.test] >= FOLD.boundary).all()
    # The gap is as long as it must be, and no longer: closes are one bar after opens.
    gap = FOLD.boundary - int(PANEL.open_time[FOLD.train].max())
    assert gap == (HORIZON + CONFIG.embargo + 1) * PANEL.interval_ms


def test_training_rows_are_those_that_training_itself_would_take():
    """One rule: a validation part that begins at the boundary leaves the training rows of the fold."""
    inside = PANEL.visible_from[PANEL.moments.has_key & ~np.isnan(PANEL.log_return)]
    assert len(inside)
    usable = PANEL.moments.has_key & ~np.isnan(PANEL.log_return)
    fraction = float((usable & (PANEL.open_time >= FOLD.boundary)).sum() / usable.sum())
    dataset = build_dataset(SERIES, CONFIG, fraction)
    assert dataset.validation_span is not None and dataset.validation_span[0] == FOLD.boundary
    np.testing.assert_array_equal(dataset.train, FOLD.train)
    np.testing.assert_array_equal(dataset.validation, FOLD.test)


def test_the_purge_is_that_of_purgedcv():
    """One symbol; outcomes count as known when the embargo is over."""
    rows = PANEL.rows_of(0)
    rows = rows[PANEL.moments.has_key[rows] & ~np.isnan(PANEL.log_return[rows])]
    asked = pd.Series(pd.to_datetime(PANEL.open_time[rows], unit="ms"))
    known = pd.Series(pd.to_datetime(PANEL.visible_from[rows], unit="ms"))
    test = FOLD.test[PANEL.symbol[FOLD.test] == 0]
    splitter = WalkForwardSplit(n_splits=1, test_size=len(test), prediction_times=asked, evaluation_times=known)
    ((train_places, test_places),) = splitter.split(np.zeros((len(rows), 1)))
    np.testing.assert_array_equal(rows[test_places], test)
    np.testing.assert_array_equal(rows[train_places], FOLD.train[PANEL.symbol[FOLD.train] == 0])


def test_folds_follow_each_other_without_hole_or_overlap_and_learn_ever_more():
    start, end = parse_time("2024-01-31"), parse_time("2025-12-01")
    for length, count in ((FoldLength.YEARLY, 2), (FoldLength.QUARTERLY, 8), (FoldLength.ONE, 1)):
        spans = boundaries(start, end, length)
        assert len(spans) == count and spans[0][0] == start and spans[-1][1] == end
        assert all(first[1] == second[0] and first[0] < first[1] for first, second in pairwise(spans))
    first, last = int(PANEL.open_time[0]), int(PANEL.open_time[-1])
    folds = walk_forward(PANEL, first + 50 * DAY_MS, last, FoldLength.QUARTERLY)
    assert len(folds) == 2
    assert len(folds[0].train) < len(folds[1].train)
    assert set(folds[0].train.tolist()) < set(folds[1].train.tolist())
    assert not set(folds[0].test.tolist()) & set(folds[1].test.tolist())


def test_a_boundary_without_anything_before_or_after_it_is_refused():
    start, end = int(PANEL.open_time[0]), int(PANEL.open_time[-1])
    with pytest.raises(UsageError, match="to learn from before"):
        walk_forward(PANEL, start, end, FoldLength.ONE)
    with pytest.raises(UsageError, match="to forecast from"):
        walk_forward(PANEL, end + DAY_MS, end + 2 * DAY_MS, FoldLength.ONE)


def test_rows_to_forecast_have_an_outcome_within_the_bars():
    assert len(FOLD.test) == 2 * (BARS - TRAIN_BARS - HORIZON)
    assert np.isfinite(PANEL.log_return[FOLD.test]).all() and np.isfinite(PANEL.log_volatility[FOLD.test]).all()
