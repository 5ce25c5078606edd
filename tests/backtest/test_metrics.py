"""Performance figures: closed forms, invariances, and ``None`` where a figure does not exist."""

from __future__ import annotations

import json
import math
import warnings
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backtest.metrics import PerformanceMetrics, drawdowns, performance
from bot.engine import AccountSettings, SimulatedEngine
from bot.execution.fills import Costs
from bot.execution.instruments import Instrument
from bot.market.batches import BarBatch
from bot.orders import OperatorAction, OperatorCommand
from bot.portfolio import ClosedTrade
from bot.risk import RiskLimits
from strategies.bars import DAY_MS, HOUR_MS, MINUTE_MS, Bar, Calendar, FloatArray, IntArray, close_time_of
from strategies.base import Signal, Strategy

START = 1_704_067_200_000  # 2024-01-01T00:00Z


def closes(count: int, spacing: int = DAY_MS, start: int = START) -> IntArray:
    return start + spacing * np.arange(1, count + 1, dtype=np.int64)


def figures(
    close_times: IntArray,
    equity: FloatArray,
    trades: list[ClosedTrade] | None = None,
    *,
    initial_cash: float = 1000.0,
    calendar: Calendar = Calendar.CONTINUOUS,
) -> PerformanceMetrics:
    return performance(close_times, equity, trades or [], initial_cash=initial_cash, calendar=calendar)


def round_trip(profit: str, *, quantity: str = "1", entry: str = "100", fees: str = "0") -> ClosedTrade:
    return ClosedTrade(
        symbol="BTCUSDT",
        side="long",
        quantity=Decimal(quantity),
        entry_price=Decimal(entry),
        exit_price=Decimal(entry),
        opened_at=START,
        closed_at=START + DAY_MS,
        profit=Decimal(profit),
        fees=Decimal(fees),
        funding=Decimal(0),
    )


daily_returns = st.lists(st.integers(-200, 250).map(lambda mille: mille / 1000), min_size=3, max_size=60)


def curve(returns: list[float], initial_cash: float = 1000.0) -> FloatArray:
    return np.asarray(initial_cash * np.cumprod(1.0 + np.array(returns)))


@given(seed=st.integers(0, 2**32 - 1), days=st.integers(3, 20), calendar=st.sampled_from(Calendar))
@settings(max_examples=20, deadline=None)
def test_one_equity_path_has_one_annual_return_and_one_sharpe_ratio_however_often_it_is_sampled(
    seed: int, days: int, calendar: Calendar
) -> None:
    path = 1000.0 * np.exp(np.cumsum(np.random.default_rng(seed).normal(1e-6, 5e-4, days * 1440)))
    times = closes(len(path), MINUTE_MS)
    minute, hour, day = (
        figures(times[step - 1 :: step], path[step - 1 :: step], calendar=calendar) for step in (1, 60, 1440)
    )
    for other in (hour, day):
        assert other.annual_return == pytest.approx(minute.annual_return, rel=1e-12)
        for name in ("sharpe_ratio", "sortino_ratio", "volatility", "best_day", "worst_day", "days", "total_return"):
            assert getattr(other, name) == getattr(minute, name), name
    # Drawdowns are read from every bar, so finer sampling can only find deeper ones.
    assert minute.max_drawdown <= hour.max_drawdown <= day.max_drawdown


@given(returns=daily_returns, factor=st.floats(1e-3, 1e6))
def test_figures_do_not_depend_on_the_size_of_the_account(returns: list[float], factor: float) -> None:
    times = closes(len(returns))
    small = figures(times, curve(returns)).to_json()
    large = figures(times, curve(returns) * factor, initial_cash=1000.0 * factor).to_json()
    for name in ("initial_cash", "final_equity"):
        small[name] = (small[name] or 0.0) * factor
    for name, value in small.items():
        if name in ("long", "short", "months"):
            continue
        assert large[name] == (None if value is None else pytest.approx(value, rel=1e-6, abs=1e-9)), name


@given(returns=daily_returns)
def test_ratios_match_their_textbook_formulas(returns: list[float]) -> None:
    result = figures(closes(len(returns)), curve(returns))
    r = np.diff(np.concatenate(([1000.0], curve(returns)))) / np.concatenate(([1000.0], curve(returns)))[:-1]
    mean, spread = r.mean(), r.std(ddof=1)
    if spread > 1e-9:
        assert result.volatility == pytest.approx(spread * math.sqrt(365))
        assert result.sharpe_ratio == pytest.approx(mean / spread * math.sqrt(365))
    downside = math.sqrt(np.mean(np.minimum(r, 0.0) ** 2))
    if downside > 1e-9:
        assert result.sortino_ratio == pytest.approx(mean / downside * math.sqrt(365))
    assert result.total_return == pytest.approx(np.prod(1.0 + r) - 1.0, abs=1e-12)


@given(returns=daily_returns)
def test_max_drawdown_is_the_deepest_fall_between_any_two_moments(returns: list[float]) -> None:
    values = np.concatenate(([1000.0], curve(returns)))
    deepest = min(values[j] / values[i] - 1.0 for i in range(len(values)) for j in range(i, len(values)))
    assert figures(closes(len(returns)), curve(returns)).max_drawdown == pytest.approx(deepest, abs=1e-15)


@example(equity=[9.9e-214, 1.0], spacing=DAY_MS)
@example(equity=[2.225073858507e-311, 1.0], spacing=DAY_MS)
@given(equity=st.lists(st.floats(-1e6, 1e6), max_size=30), spacing=st.sampled_from([MINUTE_MS, HOUR_MS, DAY_MS]))
def test_every_finite_curve_gives_strict_json_without_warnings(equity: list[float], spacing: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for calendar in Calendar:
            result = figures(closes(len(equity), spacing), np.array(equity), calendar=calendar)
            json.dumps(result.to_json(), allow_nan=False)


def test_an_account_that_doubles_in_365_days_returns_one_hundred_percent_a_year() -> None:
    equity = 1000.0 * 2.0 ** (np.arange(1, 366) / 365)
    result = figures(closes(365), equity)
    assert result.annual_return == pytest.approx(1.0)
    assert result.total_return == pytest.approx(1.0)


def test_hourly_crypto_is_annualised_by_the_hours_that_passed_not_by_252_bars() -> None:
    """8,760 bars of one hour are one year, whatever the bar."""
    equity = 1000.0 * 1.259 ** (np.arange(1, 8761) / 8760)
    assert figures(closes(8760, HOUR_MS), equity).annual_return == pytest.approx(0.259)


def test_a_market_with_sessions_has_252_days_a_year() -> None:
    """252 session days that double the account return 100 % a year though more calendar days passed."""
    weekdays = np.array([day for day in range(360) if day % 7 < 5][:252])
    opens = START + weekdays * DAY_MS + 14 * HOUR_MS
    times = np.array([close_time_of(int(t), "D", Calendar.SESSIONS) for t in opens], dtype=np.int64)
    rng = np.random.default_rng(5)
    logs = rng.normal(0.0, 0.01, 252)
    equity = 1000.0 * np.exp(np.cumsum(logs - logs.mean() + math.log(2.0) / 252))
    result = figures(times, equity, calendar=Calendar.SESSIONS)
    assert result.days == 252
    assert result.annual_return == pytest.approx(1.0)
    returns = np.diff(np.concatenate(([1000.0], equity))) / np.concatenate(([1000.0], equity))[:-1]
    assert result.sharpe_ratio == pytest.approx(returns.mean() / returns.std(ddof=1) * math.sqrt(252))


def test_sessions_count_only_days_with_bars_while_a_continuous_market_counts_every_day() -> None:
    times = np.array([START + day * DAY_MS for day in (1, 2, 3, 6, 7)], dtype=np.int64)
    equity = np.array([1010.0, 1000.0, 1020.0, 1030.0, 1010.0])
    assert figures(times, equity, calendar=Calendar.SESSIONS).days == 5
    assert figures(times, equity).days == 7


def test_a_hole_in_the_bars_is_days_without_return_not_missing_days() -> None:
    full = np.array([1010.0, 1010.0, 1010.0, 1020.0, 990.0, 1005.0])
    present = [0, 3, 4, 5]
    whole = figures(closes(6), full)
    holed = figures(closes(6)[present], full[present])
    assert holed.sharpe_ratio == whole.sharpe_ratio
    assert holed.annual_return == pytest.approx(whole.annual_return)


def test_weekly_bars_are_spread_over_the_days_that_they_cover() -> None:
    result = figures(closes(52, 7 * DAY_MS), curve([0.001] * 52))
    assert result.days == 364
    assert result.annual_return == pytest.approx(1.001 ** (52 * 365 / 364) - 1.0)


def test_the_day_of_a_bar_is_the_day_in_which_it_ends_and_midnight_still_belongs_to_it() -> None:
    """Hourly closes 01:00 to 24:00 are one day: the equity that counts is the one at midnight."""
    equity = np.concatenate((np.full(23, 500.0), [1100.0], np.full(23, 500.0), [1210.0]))
    result = figures(closes(48, HOUR_MS), equity)
    assert result.days == 2
    assert result.best_day == pytest.approx(0.1)
    assert result.worst_day == pytest.approx(0.1)


def test_constant_growth_has_no_sharpe_or_sortino_ratio_rather_than_an_infinite_one() -> None:
    result = figures(closes(30), curve([0.001] * 30))
    assert result.volatility == 0.0
    assert result.sharpe_ratio is None
    assert result.sortino_ratio is None
    assert result.calmar_ratio is None
    assert result.max_drawdown == 0.0


def test_a_run_without_bars_or_trades_is_undefined_not_zero() -> None:
    result = figures(np.empty(0, dtype=np.int64), np.empty(0))
    assert (result.total_return, result.max_drawdown, result.max_drawdown_days, result.trades) == (0.0, 0.0, 0.0, 0)
    for name in ("annual_return", "volatility", "sharpe_ratio", "win_rate", "profit_factor", "expectancy", "best_day"):
        assert getattr(result, name) is None, name


@pytest.mark.parametrize("bars", [1, 5, 24])
def test_less_than_two_days_cannot_be_annualised(bars: int) -> None:
    result = figures(closes(bars, HOUR_MS), np.linspace(1000.0, 1010.0, bars))
    assert (result.annual_return, result.volatility, result.sharpe_ratio) == (None, None, None)


def test_an_account_that_lost_everything_has_no_growth_rate_but_a_drawdown() -> None:
    result = figures(closes(4), np.array([900.0, 100.0, -50.0, -50.0]))
    assert result.total_return == pytest.approx(-1.05)
    assert result.annual_return is None
    assert result.sharpe_ratio is None
    assert result.max_drawdown == pytest.approx(-1.05)


def test_the_first_loss_counts_as_a_drawdown_from_the_initial_cash() -> None:
    result = figures(closes(3), np.array([900.0, 950.0, 990.0]))
    assert result.max_drawdown == pytest.approx(-0.1)
    assert result.max_drawdown_days == 3.0


def test_the_longest_drawdown_ends_where_its_peak_is_reached_again() -> None:
    """Peak on day 1, back on day 4 (three days); a later and deeper fall lasts two."""
    result = figures(closes(7), np.array([1100.0, 1050.0, 1090.0, 1100.0, 1200.0, 600.0, 1300.0]))
    assert result.max_drawdown_days == 3.0
    assert result.max_drawdown == pytest.approx(-0.5)


def test_drawdowns_are_zero_at_new_peaks_and_measured_from_the_latest_one() -> None:
    equity = np.array([900.0, 1200.0, 600.0, 1200.0, 1500.0])
    assert drawdowns(equity, 1000.0) == pytest.approx([-0.1, 0.0, -0.5, 0.0, 0.0])


def test_wins_are_counted_over_closed_trades_after_costs() -> None:
    """A trade that ends exactly at zero after fees did not win."""
    trades = [round_trip("30"), round_trip("-10"), round_trip("0", fees="1"), round_trip("10")]
    result = figures(closes(3), np.full(3, 1030.0), trades)
    assert result.trades == 4
    assert result.win_rate == 0.5
    assert result.profit_factor == pytest.approx(4.0)
    assert result.expectancy == pytest.approx(0.075)


def test_a_profit_factor_without_losses_is_undefined() -> None:
    result = figures(closes(3), np.full(3, 1030.0), [round_trip("30")])
    assert result.profit_factor is None
    assert result.win_rate == 1.0


@pytest.mark.parametrize(
    ("times", "equity", "cash", "message"),
    [
        ([1, 2], [1.0], 1.0, "one length"),
        ([2, 1], [1.0, 1.0], 1.0, "strictly increasing"),
        ([1, 2], [1.0, math.nan], 1.0, "finite"),
        ([1, 2], [1.0, 1.0], 0.0, "positive"),
    ],
)
def test_a_curve_that_makes_no_sense_is_refused_in_one_sentence(
    times: list[int], equity: list[float], cash: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        figures(np.array(times, dtype=np.int64), np.array(equity), initial_cash=cash)


class _AlwaysLong(Strategy):
    name = "always_long"

    @property
    def required_bars(self) -> int:
        return 0

    def warm(self, history: object, *, remember: bool = True) -> None:
        pass

    def on_bar(self, bar: Bar) -> Signal:
        return Signal(bar.symbol, bar.open_time, 0.5)


def test_buying_once_and_selling_once_pays_exactly_two_fees() -> None:
    """Entry and exit are both charged, on what was executed, and the books close to the cent."""
    costs = Costs(taker_fee=Decimal("0.001"), slippage=Decimal(0))
    limits = RiskLimits(stop_loss=0.0, daily_loss_limit=0.0, no_trade_band=0.9)
    trades: list[ClosedTrade] = []
    engine = SimulatedEngine(
        _AlwaysLong(),
        {"BTCUSDT": Instrument("BTCUSDT")},
        AccountSettings(Decimal(1000), costs, limits),
        run_id="two fees",
        on_trade=trades.append,
    )
    equity: list[float] = []
    for number, price in enumerate([100.0, 100.0, 110.0, 120.0, 120.0]):
        if number == 3:
            engine.apply([OperatorCommand(OperatorAction.FLATTEN)])
        opened = START + number * DAY_MS
        bar = Bar("BTCUSDT", opened, opened + DAY_MS, price, price, price, price, 1.0)
        equity.append(engine.step(BarBatch((bar,), (False,))).decisions[0].equity)
    book = engine.portfolio
    result = performance(
        closes(5),
        np.array(equity),
        trades,
        initial_cash=book.initial_cash,
        calendar=Calendar.CONTINUOUS,
        fees_paid=book.fees_paid,
        funding_paid=book.funding_paid,
        turnover=book.turnover,
    )
    assert result.trades == 1
    assert result.fees_paid == pytest.approx(0.001 * 5 * (100 + 120))
    assert result.turnover == pytest.approx(5 * (100 + 120))
    assert result.total_return == pytest.approx((5 * 20 - 1.1) / 1000)
    assert result.expectancy == pytest.approx((5 * 20 - 1.1) / 500)
