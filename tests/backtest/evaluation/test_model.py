"""The memory transformer in the protocol answers as it does in training and trading, and knows nothing later."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from backtest.evaluation.controls import LEAK, controls, recall
from backtest.evaluation.folds import Fold
from backtest.evaluation.forecasts import Forecasts
from backtest.evaluation.model import ModelForecasters, Weights
from backtest.evaluation.panel import Panel
from strategies.bars import BarSeries
from strategies.memory_transformer.training import TrainingConfig, train
from tests.backtest.evaluation.worlds import CONFIG, TRAIN_BARS, noise, one_fold, panel_of, with_other_future

SERIES = noise()
PANEL = panel_of(SERIES)
FOLD = one_fold(PANEL)


@pytest.fixture(scope="module")
def weights() -> Weights:
    known = {name: bars.span(None, FOLD.boundary) for name, bars in SERIES.items()}
    trained = train(known, CONFIG, TrainingConfig(epochs=1, learning_rate=3e-3))
    return Weights(trained.model, trained.scaler)


def answers_of(panel: Panel, series: dict[str, BarSeries], fold: Fold, weights: Weights) -> dict[str, Forecasts]:
    models = ModelForecasters(panel, series, lambda fold: weights)
    memory = models.memory(panel, fold)
    recalled = recall(panel, fold, memory)
    found = {each.name: memory.reader(fold.test, each.recalled) for each in controls(panel, fold, memory, recalled, 1)}
    return found | {"model": memory.reader(fold.test, recalled), "gate shut": models.without_memory(panel, fold)}


def test_answers_are_whole_and_controls_change_only_what_the_memory_says(weights):
    answers = answers_of(PANEL, SERIES, FOLD, weights)
    for name, given in answers.items():
        assert np.isfinite(given.mean).all() and np.isfinite(given.log_volatility).all(), name
        assert (np.diff(given.quantiles, axis=1) >= 0.0).all(), name
    assert not np.array_equal(answers["model"].mean, answers["shuffled outcomes"].mean)
    assert not np.array_equal(answers["model"].mean, answers["gate shut"].mean)


def test_no_answer_but_the_leak_knows_a_later_bar(weights):
    cut = TRAIN_BARS + 400
    changed = with_other_future(SERIES, cut)
    other = panel_of(changed)
    before = np.flatnonzero(PANEL.open_time[FOLD.test] < int(PANEL.open_time[0]) + cut * PANEL.interval_ms)
    mine, theirs = answers_of(PANEL, SERIES, FOLD, weights), answers_of(other, changed, one_fold(other), weights)
    for name, given in mine.items():
        kept, again = given.take(before), theirs[name].take(before)
        same = all(
            np.allclose(getattr(kept, f.name), getattr(again, f.name), rtol=1e-4, atol=1e-6) for f in fields(kept)
        )
        assert same != (name == LEAK), name


def test_the_volatility_of_noise_is_known(weights):
    given = answers_of(PANEL, SERIES, FOLD, weights)["model"]
    came, past = PANEL.log_volatility[FOLD.test], PANEL.past_log_volatility[FOLD.test]
    assert np.sum((came - given.log_volatility) ** 2) < 0.95 * np.sum((came - past) ** 2)
