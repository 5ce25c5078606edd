"""The training data: targets, parts, and statistics that know nothing of the validation part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from strategies.bars import HOUR_MS, BarSeries
from strategies.features import feature_matrix
from strategies.memory_transformer.dataset import TARGET_LIMIT, TrainingError, build_dataset
from strategies.outcomes import NEVER, trailing_volatility
from tests.strategies.markets import random_walk, with_other_future
from tests.strategies.memory_transformer.tiny import TINY, two_symbols

H = TINY.primary_horizon


def test_a_target_is_the_return_from_the_bar_s_own_close_over_its_volatility():
    """No bar is skipped between the state and what it predicts."""
    series = random_walk(900, 1)
    dataset = build_dataset({"AAAUSDT": series}, TINY, 0.2)
    place = int(dataset.train[10])
    move = np.log(series.close[place + H] / series.close[place])
    scale = trailing_volatility(feature_matrix(series))[place] * np.sqrt(H)
    assert dataset.moments.target[place] == np.float32(np.clip(move / scale, -TARGET_LIMIT, TARGET_LIMIT))
    assert dataset.moments.settled[place, TINY.primary] == series.close_time[place + H]


def test_training_outcomes_are_known_a_whole_embargo_before_validation_begins():
    series = random_walk(1200, 1)
    dataset = build_dataset({"AAAUSDT": series}, TINY, 0.2)
    settled = dataset.moments.settled[:, TINY.primary]
    first_open = dataset.moments.close_time[dataset.validation].min() - HOUR_MS
    assert settled[dataset.train].max() + TINY.embargo * HOUR_MS <= first_open
    assert dataset.validation_span == (first_open, series.close_time[-1])
    assert settled[dataset.validation].max() <= series.close_time[-1]
    assert dataset.span == (series.open_time[0], series.close_time[-1])
    share = len(dataset.validation) / np.count_nonzero(dataset.moments.has_key & (settled < NEVER))
    assert share == pytest.approx(0.2, abs=0.01)


def test_other_validation_bars_leave_all_statistics_and_training_rows_as_they_are():
    series = random_walk(1200, 1)
    dataset = build_dataset({"AAAUSDT": series}, TINY, 0.2)
    place = int(dataset.validation[0])
    other = build_dataset({"AAAUSDT": with_other_future(series, place)}, TINY, 0.2)
    assert np.array_equal(dataset.train, other.train)
    assert dataset.scaler.to_dict() == other.scaler.to_dict()
    assert np.array_equal(dataset.outcome_scale, other.outcome_scale)
    assert np.array_equal(dataset.moments.target[dataset.train], other.moments.target[dataset.train])
    assert not np.array_equal(dataset.moments.target, other.moments.target)


def test_blocks_are_aligned_to_absolute_numbers_and_hold_every_bar_once():
    history = two_symbols(900)
    dataset = build_dataset(history, TINY, 0.2)
    for blocks, series in zip(dataset.blocks, history.values(), strict=True):
        assert blocks.offset == series.first_ordinal % TINY.block
        rows = blocks.rows[blocks.rows >= 0]
        assert np.array_equal(dataset.moments.close_time[rows], series.close_time)
        assert not blocks.features[blocks.rows < 0].any()
    everything = np.concatenate([blocks.rows[blocks.rows >= 0] for blocks in dataset.blocks])
    assert np.array_equal(np.sort(everything), np.arange(len(dataset.moments)))


def test_moments_are_in_the_order_in_which_a_memory_appends_them():
    dataset = build_dataset(two_symbols(900), TINY, 0.2)
    assert (np.diff(dataset.moments.close_time) >= 0).all()


def test_a_bar_whose_key_would_depend_on_where_history_begins_is_no_moment():
    dataset = build_dataset({"AAAUSDT": random_walk(900, 1)}, TINY, 0.2)
    assert np.flatnonzero(dataset.moments.has_key)[0] == TINY.warmup - 1
    assert dataset.train[0] == TINY.warmup - 1


def test_too_few_bars_are_refused_with_the_number_needed():
    with pytest.raises(TrainingError, match=r"200 bars are too few .* at least \d+ bars"):
        build_dataset({"AAAUSDT": random_walk(200, 1)}, TINY, 0.2)
    with pytest.raises(TrainingError, match="no bars"):
        build_dataset({"AAAUSDT": BarSeries.empty("AAAUSDT", "60")}, TINY, 0.2)
    with pytest.raises(TrainingError, match="one interval"):
        build_dataset({}, TINY, 0.2)


def test_the_number_of_bars_that_the_refusal_names_is_enough():
    needed = TINY.warmup + 2 * (H + TINY.embargo) + 2 * TINY.block
    dataset = build_dataset({"AAAUSDT": random_walk(needed, 1)}, TINY, 0.15)
    assert len(dataset.train)
    assert len(dataset.validation)


def test_prices_that_stand_still_are_refused():
    series = random_walk(900, 1)
    flat = np.full(900, 100.0)
    with pytest.raises(TrainingError, match="do not move"):
        build_dataset({"AAAUSDT": replace(series, open=flat, high=flat, low=flat, close=flat)}, TINY, 0.2)


def test_intervals_cannot_be_mixed():
    history = {"AAAUSDT": random_walk(900, 1), "BBBUSDT": replace(random_walk(900, 2, "BBBUSDT"), interval="15")}
    with pytest.raises(TrainingError, match=r"'15', '60'"):
        build_dataset(history, TINY, 0.2)
