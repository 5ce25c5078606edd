"""Two models on the same bars: who may take over, and what neither may have seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bot.lifecycle.judging import Judgement, judge, span_losses
from bot.lifecycle.work import judged_from, training_part
from strategies.bars import HOUR_MS, Bar, BarSeries
from strategies.base import Explanation, Signal
from strategies.features import feature_matrix
from strategies.memory_transformer.bundle import load_bundle, save_bundle
from strategies.memory_transformer.config import OutputType
from strategies.memory_transformer.forecast_loss import MaturingForecasts
from strategies.memory_transformer.strategy import MemoryTransformerStrategy
from strategies.outcomes import trailing_volatility
from tests.strategies.markets import random_walk, with_other_future
from tests.strategies.memory_transformer.tiny import TINY, tiny_model, tiny_training

SYMBOL = "AAAUSDT"
COST = 0.0005


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that was trained for a moment, and one that sees every price rise by five volatilities."""
    folder = tmp_path_factory.mktemp("models")
    trained, elated = tiny_training(700), tiny_model(3)
    with torch.no_grad():
        elated.head.bias += 5.0
    return folder / save_bundle(folder, trained), folder / save_bundle(folder, replace(trained, model=elated))


def cold(path: Path) -> MemoryTransformerStrategy:
    return MemoryTransformerStrategy(load_bundle(path), (SYMBOL,))


def market(bars: int = 1000) -> dict[str, BarSeries]:
    return {SYMBOL: random_walk(bars, 1)}


def test_a_model_that_is_far_off_is_worse_than_a_trained_one_and_not_the_other_way_round(bundles: tuple[Path, Path]):
    trained, elated = bundles
    series = market()
    start = int(series[SYMBOL].open_time[800])
    found = judge(cold(elated), cold(trained), series, start, cost=COST)
    assert found is not None and found.bars == 200 - TINY.primary_horizon
    assert not found.is_not_worse(1.0)
    turned = judge(cold(trained), cold(elated), series, start, cost=COST)
    assert turned is not None and turned.is_not_worse(0.0)
    assert (turned.candidate_loss, turned.running_loss) == (found.running_loss, found.candidate_loss)
    assert turned.standard_error == pytest.approx(found.standard_error)


def test_a_model_is_as_good_as_itself_and_too_few_bars_tell_nothing(bundles: tuple[Path, Path]):
    series = market()
    same = judge(cold(bundles[0]), cold(bundles[0]), series, int(series[SYMBOL].open_time[800]), cost=COST)
    assert same is not None and same.candidate_loss == same.running_loss and same.is_not_worse(0.0)
    assert judge(cold(bundles[0]), cold(bundles[1]), series, int(series[SYMBOL].open_time[930]), cost=COST) is None


def test_how_far_a_candidate_may_be_behind_counts_in_standard_errors():
    behind = Judgement(candidate_loss=1.2, running_loss=1.0, standard_error=0.15, bars=100)
    assert not behind.is_not_worse(0.0) and not behind.is_not_worse(1.3)
    assert behind.is_not_worse(1.4)


def test_no_loss_depends_on_a_bar_after_the_one_that_made_it_known(bundles: tuple[Path, Path]):
    series = market()
    bars = series[SYMBOL]
    start, cut = int(bars.open_time[800]), 900
    times, losses = span_losses(cold(bundles[0]), series, start, cost=COST)
    again, changed = span_losses(cold(bundles[0]), {SYMBOL: with_other_future(bars, cut)}, start, cost=COST)
    before = times <= int(bars.close_time[cut - 1])
    assert np.array_equal(times, again) and np.array_equal(losses[before], changed[before])
    assert before.sum() == 100 - TINY.primary_horizon and not np.array_equal(losses, changed)


def test_the_judged_span_begins_where_the_symbol_that_reaches_farthest_back_has_enough_bars():
    full, short = random_walk(500, 1), random_walk(500, 2, "BBBUSDT").slice(0, 460)
    history = {SYMBOL: full, "BBBUSDT": short}
    cut = judged_from(history, 100)
    assert cut == int(short.open_time[360])
    part = training_part(history, cut - 12 * HOUR_MS, 50)
    assert all(len(bars) == 50 for bars in part.values())
    assert all(int(bars.close_time[-1]) <= cut - 12 * HOUR_MS for bars in part.values())
    everything = training_part(history, cut, 0)
    assert int(everything[SYMBOL].open_time[0]) == int(full.open_time[0])


def forecast(bar: Bar, features: np.ndarray, prediction: float | None) -> Signal:
    seen = Explanation(features=tuple(features.tolist()), prediction=prediction)
    return Signal(bar.symbol, bar.open_time, 0.0, explanation=seen)


@pytest.mark.parametrize("head", [head for head in OutputType if head is not OutputType.PATH])
def test_a_forecast_is_charged_when_its_horizon_has_passed_by_the_head_s_own_loss(head: OutputType):
    config = replace(TINY, output_type=head)
    horizon = config.primary_horizon
    series = random_walk(400, 4)
    features = feature_matrix(series)
    rng = np.random.default_rng(0)
    predictions = rng.uniform(-0.9, 0.9, len(series))
    predictions[300] = np.nan
    forecasts = MaturingForecasts(config, cost=COST)
    for place, bar in enumerate(series.bars()):
        told = None if np.isnan(predictions[place]) else float(predictions[place])
        loss = forecasts.observe(bar, forecast(bar, features[place], told))
        asked = place - horizon
        if asked < 0 or asked == 300:
            assert loss is None
            continue
        volatility = float(trailing_volatility(features[asked])) * np.sqrt(horizon)
        target = np.clip(np.log(bar.close / series.close[asked]) / volatility, -10.0, 10.0)
        said = predictions[asked]
        expected = {
            OutputType.REGRESSION: 0.5 * (said - target) ** 2
            if abs(said - target) <= 1.0
            else abs(said - target) - 0.5,
            OutputType.DIRECTION: (said - (float(target > 0.25) - float(target < -0.25))) ** 2,
            OutputType.PORTFOLIO: -(said * target - 0.5 * (said * target) ** 2 - 2 * abs(said) * COST / volatility),
        }[head]
        assert loss == pytest.approx(expected, rel=1e-4, abs=1e-6)
