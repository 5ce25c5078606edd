"""Baselines: exact averages that do not depend on where the history began, and holding."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.bars import HOUR_MS, Bar, BarSeries
from strategies.baselines import BuyAndHold, SmaCross, fixed_point
from strategies.errors import SettingsError
from tests.strategies.markets import random_walk, real_candles, with_other_future


def bars_of(closes) -> list[Bar]:
    return [
        Bar("AAAUSDT", HOUR_MS * place, HOUR_MS * (place + 1), close, close, close, close, 1.0)
        for place, close in enumerate(closes)
    ]


def targets(strategy, bars) -> list[float | None]:
    return [strategy.on_bar(bar).target_exposure for bar in bars]


# Ticks of venues: prices with up to 10 decimals, often equal to each other.
DECIMALS = st.builds(
    lambda units, places: Decimal(units) / Decimal(10) ** places, st.integers(1, 30), st.sampled_from([0, 1, 2, 8, 10])
)


@settings(max_examples=100, deadline=None)
@given(prices=st.lists(DECIMALS, max_size=40), fast=st.integers(1, 5), extra=st.integers(1, 6), long_only=st.booleans())
def test_the_cross_compares_the_exact_averages_of_the_decimal_prices(prices, fast, extra, long_only):
    slow = fast + extra
    signals = targets(SmaCross(fast, slow, long_only=long_only), bars_of([float(price) for price in prices]))
    for place, signal in enumerate(signals):
        if place + 1 < slow:
            assert signal is None
            continue
        window = [Fraction(price) for price in prices[place + 1 - slow : place + 1]]
        lead = sum(window[-fast:]) / fast - sum(window) / slow
        assert signal == (1.0 if lead > 0 else 0.0 if lead == 0 or long_only else -1.0)


@given(price=DECIMALS)
def test_fixed_point_prices_are_the_decimals_themselves(price):
    assert fixed_point(float(price)) == price * 10**15


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), start=st.integers(0, 5_000))
def test_a_signal_does_not_depend_on_where_the_history_began(seed, start):
    bars = list(random_walk(5_200, seed).bars())
    everything = targets(SmaCross(7, 30), bars)
    assert targets(SmaCross(7, 30), bars[start:])[29:] == everything[start + 29 :]


def test_warming_is_being_shown_the_bars():
    series = random_walk(400, 1)
    shown = SmaCross()
    targets(shown, series.slice(0, 300).bars())
    warmed = SmaCross()
    warmed.warm({series.symbol: series.slice(0, 300)})
    rest = list(series.slice(300, 400).bars())
    assert targets(warmed, rest) == targets(shown, rest)


def test_as_many_bars_as_required_make_the_first_answer_known():
    strategy = SmaCross(5, 10)
    series = random_walk(60, 1)
    strategy.warm({series.symbol: series.slice(0, strategy.required_bars)})
    assert strategy.on_bar(next(series.slice(strategy.required_bars, 60).bars())).target_exposure is not None


def test_symbols_do_not_mix():
    one, other = random_walk(100, 1, "AAAUSDT"), random_walk(100, 2, "BBBUSDT")
    together = SmaCross(3, 9)
    mixed = []
    for first, second in zip(one.bars(), other.bars(), strict=True):
        mixed.append(together.on_bar(first).target_exposure)
        together.on_bar(second)
    assert mixed == targets(SmaCross(3, 9), one.bars())


def test_no_signal_knows_the_future():
    series = random_walk(300, 4)
    signals = targets(SmaCross(5, 20), series.bars())
    assert targets(SmaCross(5, 20), with_other_future(series, 150).bars())[:150] == signals[:150]


def test_averages_on_real_candles_cross_where_floats_say_so(real_data):
    series = real_candles(real_data, "bybit_linear_BTCUSDT_1h", "BTCUSDT")
    signals = np.array(targets(SmaCross(20, 50), series.bars())[49:])
    windows = np.lib.stride_tricks.sliding_window_view(series.close, 50)
    lead = windows[:, -20:].mean(axis=1) - windows.mean(axis=1)
    clear = np.abs(lead) > 1e-6
    assert clear.mean() > 0.999
    assert (signals[clear] == np.sign(lead[clear])).all()


@pytest.mark.parametrize(("fast", "slow"), [(0, 5), (5, 5), (6, 5)])
def test_windows_that_make_no_cross_are_refused(fast, slow):
    with pytest.raises(SettingsError, match="1 <= fast < slow"):
        SmaCross(fast, slow)


def test_holding_is_long_from_the_first_bar_on():
    strategy = BuyAndHold()
    strategy.warm({"AAAUSDT": BarSeries.empty("AAAUSDT", "60")})
    assert strategy.required_bars == 0
    assert targets(strategy, random_walk(5, 1).bars()) == [1.0] * 5
