"""Baselines: exact averages that do not depend on where the history began, and holding."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.bars import HOUR_MS, Bar, BarSeries
from strategies.baselines import BuyAndHold, SmaCross, fixed_point, fixed_points
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


# -- signals made ahead ----------------------------------------------------------------------------------


def series_of(closes) -> BarSeries:
    return BarSeries.of(bars_of(closes), "60")


@given(before=st.lists(DECIMALS, min_size=1, max_size=5), closes=st.lists(DECIMALS, min_size=1, max_size=20))
def test_fixed_points_of_an_array_are_those_of_its_prices_in_one_unit(before, closes):
    floats = [float(price) for price in (*before, *closes)]
    wanted = [fixed_point(price) for price in floats]
    found = fixed_points(wanted[: len(before)], np.array(floats[len(before) :]))
    unit = 1 if min(floats) < 1.0 else 1_000_000
    assert [int(price) * unit for price in found] == wanted


@pytest.mark.parametrize("price", [float("nan"), float("inf"), -1.0, 1e10])
def test_prices_that_no_unit_of_64_bits_holds_have_no_fixed_points_in_an_array(price):
    assert fixed_points([10**15], np.array([2.0, price])) is None
    assert fixed_points([10**12], np.array([9e3])) is None


@settings(max_examples=100, deadline=None)
@given(
    prices=st.lists(DECIMALS, min_size=8, max_size=60),
    fast=st.integers(1, 3),
    extra=st.integers(1, 4),
    previews=st.lists(st.integers(7, 60), max_size=4).map(sorted),
    shown=st.integers(1, 30),
    data=st.data(),
)
def test_a_preview_changes_no_signal_whatever_is_shown_after_it(prices, fast, extra, previews, shown, data):
    """Previews may be of other prices than those that come, end early, begin late, and follow each other."""
    slow = fast + extra
    series = series_of([float(price) for price in prices])
    plain, offered = SmaCross(fast, slow), SmaCross(fast, slow)
    for strategy in (plain, offered):
        strategy.warm({series.symbol: series.slice(0, slow)})
    for place, bar in enumerate(series.slice(slow, len(series)).bars(), start=slow):
        if place in previews:
            upcoming = series.slice(place + data.draw(st.integers(0, 2)), place + shown)
            wrong = data.draw(st.sampled_from([0, 0, 1.0]))
            offered.preview({series.symbol: replace(upcoming, close=upcoming.close + wrong)})
        assert offered.on_bar(bar) == plain.on_bar(bar)


@pytest.mark.parametrize("scale", [1.0, 1e-4, 0.01])
def test_signals_made_ahead_are_given_out_over_many_bars(scale):
    series = random_walk(3_000, 8)
    series = replace(series, close=np.round(series.close * scale, 9))
    plain, offered = SmaCross(long_only=True), SmaCross(long_only=True)
    for strategy in (plain, offered):
        strategy.warm({series.symbol: series.slice(0, 100)})
    offered.preview({series.symbol: series.slice(100, 2_900)})
    rest = list(series.slice(100, 3_000).bars())
    assert [offered.on_bar(bar) for bar in rest] == [plain.on_bar(bar) for bar in rest]


def test_warming_again_forgets_what_was_made_ahead():
    series, other = random_walk(300, 9), random_walk(300, 10)
    strategy = SmaCross(3, 9)
    strategy.warm({series.symbol: series.slice(0, 100)})
    strategy.preview({series.symbol: series.slice(100, 200)})
    strategy.warm({series.symbol: other.slice(0, 100)})
    rest = list(other.slice(100, 300).bars())
    assert targets(strategy, rest) == targets(SmaCross(3, 9), other.bars())[100:]


@pytest.mark.parametrize(("fast", "slow"), [(0, 5), (5, 5), (6, 5)])
def test_windows_that_make_no_cross_are_refused(fast, slow):
    with pytest.raises(SettingsError, match="1 <= fast < slow"):
        SmaCross(fast, slow)


def test_holding_is_long_from_the_first_bar_on():
    strategy = BuyAndHold()
    strategy.warm({"AAAUSDT": BarSeries.empty("AAAUSDT", "60")})
    assert strategy.required_bars == 0
    assert targets(strategy, random_walk(5, 1).bars()) == [1.0] * 5
