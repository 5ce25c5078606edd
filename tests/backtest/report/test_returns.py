"""Returns by day and by month, exposure and costs of a run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.metrics import drawdowns, performance
from backtest.report.exposure import exposure_of
from backtest.report.returns import (
    deepest_drawdowns,
    hold_equally,
    monthly_returns,
    returns_by_day,
    rolling_sharpe,
    yearly_returns,
)
from bot.orders import Side
from strategies.bars import DAY_MS, HOUR_MS, Calendar
from tests.backtest.report.scenes import START, path_of
from tests.bot import scenes
from tests.bot.scenes import A, B, execution, walk


def daily_of(bars: int, seed: int = 1):
    return returns_by_day(*path_of(bars, seed), 1000.0, Calendar.CONTINUOUS)


@given(bars=st.integers(2, 3000), seed=st.integers(0, 20))
def test_months_and_years_compound_to_the_whole_return(bars: int, seed: int) -> None:
    times, equity = path_of(bars, seed)
    months = monthly_returns(returns_by_day(times, equity, 1000.0, Calendar.CONTINUOUS))
    whole = equity[-1] / 1000.0
    assert np.prod([1.0 + change for change in months.values()]) == pytest.approx(whole)
    assert np.prod([1.0 + change for change in yearly_returns(months).values()]) == pytest.approx(whole)


def test_months_are_those_of_utc() -> None:
    times = np.array([START + 31 * DAY_MS, START + 31 * DAY_MS + HOUR_MS], dtype=np.int64)
    months = monthly_returns(returns_by_day(times, np.array([1100.0, 1210.0]), 1000.0, Calendar.CONTINUOUS))
    assert months == pytest.approx({(2024, 1): 0.1, (2024, 2): 0.1})


def test_the_rolling_ratio_over_all_days_is_the_sharpe_ratio_of_the_run() -> None:
    times, equity = path_of(60 * 24)
    daily = returns_by_day(times, equity, 1000.0, Calendar.CONTINUOUS)
    ends, ratio = rolling_sharpe(daily, 365)
    metrics = performance(times, equity, [], initial_cash=1000.0, calendar=Calendar.CONTINUOUS)
    assert len(ends) == 1 and ends[0] == times[-1]
    assert ratio[0] == pytest.approx(metrics.sharpe_ratio)


def test_drawdowns_are_told_apart_by_their_peaks_and_the_deepest_comes_first() -> None:
    equity = np.array([100.0, 90.0, 95.0, 110.0, 55.0, 66.0, 110.0, 120.0, 108.0])
    times = START + DAY_MS * np.arange(1, 10, dtype=np.int64)
    found = deepest_drawdowns(times, equity, 100.0)
    assert [each.depth for each in found] == pytest.approx([-0.5, -0.1, -0.1])
    halved, early, last = found
    assert (halved.peak, halved.trough, halved.end) == (times[3], times[4], times[6]) and halved.days == 3.0
    assert (early.peak, early.trough, early.end) == (times[0], times[1], times[3])
    assert (last.peak, last.end) == (times[7], None) and last.days == 1.0
    assert deepest_drawdowns(times, np.arange(1.0, 10.0), 1.0) == []


@given(bars=st.integers(2, 400), seed=st.integers(0, 20))
def test_the_deepest_drawdown_is_that_of_the_metrics(bars: int, seed: int) -> None:
    times, equity = path_of(bars, seed)
    found = deepest_drawdowns(times, equity, 1000.0, most=bars)
    assert min((each.depth for each in found), default=0.0) == drawdowns(equity, 1000.0).min()
    assert sorted(each.depth for each in found) == [each.depth for each in found]


def test_the_rolling_ratio_of_a_day_knows_no_later_day() -> None:
    whole, short = daily_of(200 * 24), daily_of(120 * 24)
    assert rolling_sharpe(whole, 365)[1][:61].tolist() == rolling_sharpe(short, 365)[1].tolist()


def test_holding_grows_as_prices_do_and_shares_its_money_equally() -> None:
    one, other = walk(50, 1), walk(50, 2, B)
    times, equity = hold_equally({A: one, B: other}, 1000.0)
    expected = 500.0 * one.close / one.open[0] + 500.0 * other.close / other.open[0]
    assert times.tolist() == one.close_time.tolist()
    assert equity == pytest.approx(expected)


def test_a_fill_counts_from_the_close_of_the_bar_that_it_was_made_in() -> None:
    series = walk(6, 1)
    fills = [execution(Side.BUY, "2", "100", number=2), execution(Side.SELL, "2", "100", number=4)]
    equity = np.full(6, 1000.0)
    exposure = exposure_of(fills, {A: series}, series.close_time, equity)
    held = np.array([0.0, 0.0, 2.0, 2.0, 0.0, 0.0])
    assert exposure.times.tolist() == series.close_time.tolist()
    assert exposure.net == pytest.approx(held * series.close / 1000.0)
    assert exposure.share_of_time == pytest.approx(2 / 6)


def test_longs_and_shorts_add_up_in_gross_and_cancel_in_net() -> None:
    one, other = walk(4, 1), walk(4, 2, B)
    fills = [execution(Side.BUY, "1", "100"), execution(Side.SELL, "1", "100", symbol=B)]
    exposure = exposure_of(fills, {A: one, B: other}, one.close_time, np.full(4, 1000.0))
    assert exposure.net == pytest.approx((one.close - other.close) / 1000.0)
    assert exposure.gross == pytest.approx((one.close + other.close) / 1000.0)


def test_decimals_that_cancel_leave_no_dust_of_exposure() -> None:
    series = walk(5, 1)
    fills = [execution(Side.BUY, "0.1", "100"), execution(Side.BUY, "0.2", "100", number=1)]
    fills += [execution(Side.SELL, "0.3", "100", number=2)]
    exposure = exposure_of(fills, {A: series}, series.close_time, np.full(5, 1000.0))
    assert exposure.gross[2:].tolist() == [0.0, 0.0, 0.0]


def test_a_run_without_candles_has_no_exposure_to_show() -> None:
    exposure = exposure_of([], {}, np.array([scenes.START]), np.array([1.0]))
    assert len(exposure.times) == 0 and exposure.share_of_time == 0.0
