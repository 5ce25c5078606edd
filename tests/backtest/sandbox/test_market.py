"""The synthetic market: the same world for everyone who asks, on the grid, with something in it to learn."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.sandbox.market import CHUNK_BARS, SyntheticMarket
from backtest.sandbox.protocol import number_text
from bot.execution.instruments import Instrument
from strategies.bars import DAY_MS, HOUR_MS, interval_ms

NOW = 480_000 * HOUR_MS


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    symbol=st.sampled_from(["BTCUSDT", "ETHUSDT", "X"]),
    interval=st.sampled_from(["1", "60", "D", "W"]),
    first=st.integers(0, 4000),
    tick=st.sampled_from(["0.1", "0.01", "0.0000010", "0.05", "5"]),
)
def test_every_series_is_a_market_on_its_grid_where_each_bar_opens_at_the_close_before(
    seed, symbol, interval, first, tick
):
    instrument = Instrument(symbol, tick_size=Decimal(tick))
    market = SyntheticMarket(seed, symbol, interval, instrument=instrument)
    begin = market.opening_from(first * interval_ms(interval))
    assert begin is not None
    series = market.series(begin, begin + 700 * interval_ms(interval))
    assert len(series) == 700
    assert np.all(np.diff(series.open_time) == interval_ms(interval))
    assert np.array_equal(series.open[1:], series.close[:-1])
    assert np.all(series.low <= np.minimum(series.open, series.close))
    assert np.all(series.high >= np.maximum(series.open, series.close))
    assert np.all(series.low > 0)
    assert np.all(series.volume >= 0)
    for price in series.close[:50].tolist():
        assert Decimal(number_text(price)) % Decimal(tick) == 0


def test_history_and_future_agree_whoever_asks_first_and_in_whatever_order():
    early, late = SyntheticMarket(3, "BTCUSDT", "60"), SyntheticMarket(3, "BTCUSDT", "60")
    numbers = list(range(478_000, 478_000 + 3 * CHUNK_BARS, 7))
    forward = [early.bar(number) for number in numbers]
    backward = [late.bar(number) for number in reversed(numbers)]
    assert forward == list(reversed(backward))


def test_a_series_its_bars_and_its_windows_are_the_same_bars():
    market = SyntheticMarket(3, "BTCUSDT", "60")
    bars = list(market.series(NOW, NOW + 600 * HOUR_MS).bars())
    assert market.between(NOW, NOW + 599 * HOUR_MS, 1000) == bars
    assert market.between(NOW, NOW + 599 * HOUR_MS, 10) == bars[-10:]
    assert market.following(NOW) == bars[0]
    assert market.following(NOW - 1).close_time == NOW
    assert len(market.series(NOW, NOW)) == 0


def test_another_seed_or_symbol_is_another_market_and_symbols_of_one_seed_move_together():
    def returns(seed: int, symbol: str):
        series = SyntheticMarket(seed, symbol, "60").series(NOW, NOW + 20_000 * HOUR_MS)
        return np.diff(np.log(series.close))

    one, two, three = returns(1, "BTCUSDT"), returns(1, "ETHUSDT"), returns(2, "BTCUSDT")
    assert 0.15 < np.corrcoef(one, two)[0, 1] < 0.6
    assert abs(np.corrcoef(one, three)[0, 1]) < 0.05


def test_volatility_clusters_returns_have_fat_tails_and_no_memory_of_sign():
    series = SyntheticMarket(7, "BTCUSDT", "60").series(NOW, NOW + 40_000 * HOUR_MS)
    returns = np.diff(np.log(series.close))
    size = np.abs(returns)
    assert 0.4 < returns.std() * np.sqrt(365 * DAY_MS / HOUR_MS) < 1.0
    assert np.corrcoef(size[:-5], size[5:])[0, 1] > 0.1
    assert abs(np.corrcoef(returns[:-1], returns[1:])[0, 1]) < 0.06
    assert ((returns - returns.mean()) ** 4).mean() / returns.var() ** 2 > 4


def test_motifs_recur_and_are_followed_by_the_same_move():
    market = SyntheticMarket(11, "BTCUSDT", "60")
    series = market.series(NOW, NOW + 40_000 * HOUR_MS)
    returns = np.diff(np.log(series.close))
    motif = market._motifs[1] - market._motifs[1].mean()
    windows = np.lib.stride_tricks.sliding_window_view(returns, len(motif))[:-6]
    centred = windows - windows.mean(axis=1, keepdims=True)
    likeness = centred @ motif / (np.linalg.norm(centred, axis=1) * np.linalg.norm(motif))
    after = np.array([returns[at + 10 : at + 16].sum() for at in np.flatnonzero(likeness > 0.9)])
    assert len(after) > 20
    assert after.mean() > 3 * after.std() / np.sqrt(len(after))


@pytest.mark.parametrize(("seed", "interval", "words"), [(-1, "60", "seed -1"), (1, "M", "monthly")])
def test_what_cannot_be_made_is_refused_in_a_sentence(seed, interval, words):
    with pytest.raises(ValueError, match=words):
        SyntheticMarket(seed, "BTCUSDT", interval)
