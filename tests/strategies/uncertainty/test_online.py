"""Calibration while a run goes on: what it may know, what it counts, and that it goes on where it stopped."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.outcomes import outcome_matrix
from strategies.readout import QUANTILES
from strategies.similarity import exit_distances
from strategies.uncertainty.calibration import uncalibrated
from strategies.uncertainty.online import CalibratedForecast, OnlineUncertainty, RawForecast
from strategies.uncertainty.quantile_tracking import track

HORIZONS = (1, 4)
A, B = "AAAUSDT", "BBBUSDT"


def forecasts(bar: int) -> list[RawForecast]:
    spread = np.linspace(-1.0, 1.0, 7) * 0.01 + 0.001 * np.sin(bar)
    return [RawForecast((spread * horizon**0.5).tolist(), 0.01 * horizon**0.5) for horizon in HORIZONS]


def closes(seed: int, bars: int) -> np.ndarray:
    return 100.0 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0.0, 0.01, bars)))


def fresh() -> OnlineUncertainty:
    return OnlineUncertainty(uncalibrated(QUANTILES, HORIZONS))


def show(online: OnlineUncertainty, symbol: str, close: float, bar: int) -> tuple[CalibratedForecast, ...]:
    """One bar; every fifth has no forecast."""
    online.settle(symbol, close)
    made = online.calibrate(symbol, forecasts(bar)) if bar % 5 else ()
    online.remember(symbol, close, made)
    return made


def test_a_forecast_is_settled_by_its_horizon_of_received_bars_and_by_no_earlier_one():
    prices = closes(1, 60)
    online = fresh()
    outcomes = outcome_matrix(prices, HORIZONS)
    levels, expected = {}, uncalibrated(QUANTILES, HORIZONS).horizons[1].offsets
    for bar, close in enumerate(prices.tolist()):
        matured = bar - HORIZONS[1]
        if matured >= 0 and matured % 5:
            expected = track(expected, QUANTILES, levels[matured], float(outcomes[matured, 1]))
        made = show(online, A, close, bar)
        if made:
            levels[bar] = made[1].issued.levels
        assert online.known(A)[1].offsets == expected


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 79))
def test_another_future_changes_nothing_before_it(cut: int):
    prices = closes(2, 80)
    other = np.concatenate([prices[:cut], closes(3, 80)[cut:] * 7.0])
    one, two = fresh(), fresh()
    for bar in range(cut):
        assert show(one, A, float(prices[bar]), bar) == show(two, A, float(other[bar]), bar)
        assert one.state() == two.state()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 80))
def test_a_restored_one_goes_on_to_the_last_bit(cut: int):
    prices = {A: closes(4, 80), B: closes(5, 80)}
    unbroken, online = fresh(), fresh()
    for bar in range(80):
        if bar == cut:
            written = online.state()
            online = fresh()
            online.restore(written)
            assert online.state() == written
        for symbol in (A, B) if bar % 3 else (A,):
            close = float(prices[symbol][bar])
            assert show(online, symbol, close, bar) == show(unbroken, symbol, close, bar)
    assert online.state() == unbroken.state()


def test_symbols_do_not_touch_each_other():
    alone, together = fresh(), fresh()
    for bar, close in enumerate(closes(6, 40).tolist()):
        show(alone, A, close, bar)
        show(together, B, close * 3.0, bar)
        show(together, A, close, bar)
    assert alone.known(A) == together.known(A)


def test_quantiles_never_cross_whatever_the_offsets():
    online = fresh()
    generator = np.random.default_rng(7)
    for bar, close in enumerate(np.exp(generator.normal(0.0, 1.0, 400)).tolist()):
        for forecast in show(online, A, close, bar):
            levels = [level for _, level in forecast.quantiles]
            assert levels == sorted(levels)
            assert 0.0 < forecast.rise_probability < 1.0
            assert all(0.0 < each <= 0.5 for each in exit_distances(forecast, 1, 0.05))


def test_the_state_of_another_calibration_and_a_damaged_one_are_refused():
    online = fresh()
    show(online, A, 100.0, 1)
    other = OnlineUncertainty(uncalibrated((0.1, 0.9), HORIZONS))
    with pytest.raises(msgspec.MsgspecError, match="AAAUSDT has learned belongs to another calibration"):
        other.restore(online.state())
    with pytest.raises(msgspec.MsgspecError):
        fresh().restore(online.state()[:-3])


def test_calls_in_another_order_are_refused():
    online = fresh()
    with pytest.raises(AssertionError, match="before it was settled"):
        online.calibrate(A, forecasts(0))
    with pytest.raises(AssertionError, match="before it was settled"):
        online.remember(A, 100.0)
    online.settle(A, 100.0)
    with pytest.raises(AssertionError, match="never remembered"):
        online.settle(A, 100.0)
