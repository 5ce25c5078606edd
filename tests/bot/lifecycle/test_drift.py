"""The drift alarm: silent while forecasts are as good as they were, loud when they are not, blind to what is to come."""

from __future__ import annotations

import numpy as np
import pytest

from bot.lifecycle.drift import REFERENCE_STRETCHES, DriftAlarm
from strategies.bars import Bar
from strategies.base import Signal
from strategies.features import feature_matrix
from strategies.outcomes import trailing_volatility
from tests.bot.lifecycle.test_judging import forecast
from tests.strategies.markets import random_walk
from tests.strategies.memory_transformer.tiny import TINY

STRETCH = TINY.primary_horizon + TINY.embargo
KNOWN = (REFERENCE_STRETCHES + 2) * STRETCH
"""Bars after which the usual loss is known."""


def decided(bars: int, worse_from: int, seed: int = 0) -> list[tuple[Bar, Signal]]:
    """Forecasts that miss by a standard deviation, and from some bar on by three."""
    series = random_walk(bars + TINY.primary_horizon, seed)
    features = feature_matrix(series)
    rng = np.random.default_rng(seed)
    made = []
    for place, bar in enumerate(series.slice(0, bars).bars()):
        volatility = float(trailing_volatility(features[place])) * np.sqrt(TINY.primary_horizon)
        came = np.log(series.close[place + TINY.primary_horizon] / bar.close) / volatility
        miss = rng.normal() * (3.0 if place >= worse_from else 1.0)
        made.append((bar, forecast(bar, features[place], float(came + miss))))
    return made


def alarms(shown: list[tuple[Bar, Signal]], threshold: float = 5.0) -> list[int]:
    """Places at which it goes off."""
    alarm = DriftAlarm(TINY, "60", cost=0.0, threshold=threshold)
    return [place for place, (bar, signal) in enumerate(shown) if alarm.observe((bar,), (signal,))]


def test_it_goes_off_soon_after_forecasts_become_worse_and_not_before():
    worse_from = KNOWN + 10 * STRETCH
    found = alarms(decided(worse_from + 12 * STRETCH, worse_from))
    assert found and worse_from < found[0] <= worse_from + 4 * STRETCH


def test_it_is_silent_while_forecasts_stay_as_they_were():
    quiet = sum(not alarms(decided(KNOWN + 10 * STRETCH, 10**9, seed)) for seed in range(8))
    assert quiet >= 7


def test_forecasts_that_were_never_good_are_its_usual():
    assert alarms(decided(KNOWN + 10 * STRETCH, worse_from=0, seed=1)) == []


def test_whether_it_goes_off_depends_on_no_later_bar():
    worse_from = KNOWN + 4 * STRETCH
    shown = decided(worse_from + 10 * STRETCH, worse_from)
    first = alarms(shown)[0]
    assert alarms(shown[: first + 1]) == [first]
    other = decided(len(shown), 10**9, seed=5)
    assert alarms([*shown[: first + 1], *other[first + 1 :]])[0] == first


@pytest.mark.parametrize("threshold", [1.0, 20.0])
def test_a_higher_threshold_waits_for_more_evidence(threshold: float):
    worse_from = KNOWN + 10 * STRETCH
    shown = decided(worse_from + 20 * STRETCH, worse_from)
    usual, found = alarms(shown)[0], alarms(shown, threshold)[0]
    assert found <= usual if threshold < 5.0 else found > usual
