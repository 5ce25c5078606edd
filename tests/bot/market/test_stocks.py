"""Stocks from Yahoo, by a download function that returns tables of the shape that ``yfinance.download`` returns."""

from __future__ import annotations

import datetime as dt
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bot.errors import UsageError, VenueError
from bot.market.candles import CandleStore
from bot.market.history import fetch_history
from bot.market.stocks import YFinanceSource
from bot.market.validation import DataError
from strategies.bars import DAY_MS, Calendar, parse_time

HOUR = 3_600_000
NOW = parse_time("2024-03-20T12:00")


def sessions(first: str, last: str) -> pd.DataFrame:
    """Days from one date to another as Yahoo gives them: midnights of New York, weekdays, columns by (price, ticker)."""
    index = pd.date_range(first, last, freq="B", tz="America/New_York", name="Date")
    close = 180 + np.arange(len(index), dtype=np.float64)
    prices = {"Close": close, "High": close + 2, "Low": close - 2, "Open": close - 1}
    table = pd.DataFrame({**prices, "Volume": np.arange(len(index)) * 1_000 + 50_000_000}, index=index)
    table.columns = pd.MultiIndex.from_tuples([(name, "AAPL") for name in table.columns], names=["Price", "Ticker"])
    return table


def hours(first: str, days: int) -> pd.DataFrame:
    opens = [
        stamp + pd.Timedelta(hours=9.5 + n) for stamp in sessions(first, "2024-12-31").index[:days] for n in range(7)
    ]
    table = sessions("2020-01-01", "2024-12-31").head(len(opens))
    return table.set_axis(pd.DatetimeIndex(opens, name="Datetime"))


@dataclass
class Yahoo:
    """``yfinance.download`` over one table."""

    table: pd.DataFrame
    asked: list[dict[str, Any]] = field(default_factory=list)

    def download(self, ticker: str, *, start: dt.datetime, end: dt.datetime, **options: Any) -> pd.DataFrame:
        self.asked.append({"ticker": ticker, "start": start, "end": end, **options})
        return self.table[(self.table.index >= start) & (self.table.index < end)]


def source_of(table: pd.DataFrame, now: int = NOW) -> YFinanceSource:
    return YFinanceSource(download=Yahoo(table).download, now_ms=lambda: now)


def test_days_come_adjusted_in_utc_with_the_calendar_of_sessions() -> None:
    yahoo = Yahoo(sessions("2024-02-01", "2024-03-15"))
    source = YFinanceSource(download=yahoo.download, now_ms=lambda: NOW)
    [series] = source.pages("AAPL", "D", parse_time("2024-02-01"), NOW)
    assert series.calendar is Calendar.SESSIONS
    assert len(series) == 32
    assert series.open_time[0] == parse_time("2024-02-01T05:00")
    assert series.open_time[-1] == parse_time("2024-03-15T04:00")
    assert (series.open[0], series.high[0], series.low[0], series.close[0]) == (179.0, 182.0, 178.0, 180.0)
    assert series.volume[1] == 50_001_000.0
    [asked] = yahoo.asked
    assert (asked["ticker"], asked["interval"], asked["auto_adjust"]) == ("AAPL", "1d", True)


def test_plain_and_turned_column_names_are_the_same_bars() -> None:
    table = sessions("2024-02-01", "2024-03-15")
    plain, turned = table.droplevel("Ticker", axis=1), table.swaplevel(axis=1)
    digests = {
        next(source_of(shape).pages("AAPL", "D", parse_time("2024-02-01"), NOW)).digest()
        for shape in (table, plain, turned)
    }
    assert len(digests) == 1


@pytest.mark.parametrize(("now", "bars"), [("2024-03-16T02:59", 31), ("2024-03-16T03:00", 32)])
def test_a_session_counts_once_it_has_closed(now: str, bars: int) -> None:
    source = source_of(sessions("2024-02-01", "2024-03-15"), parse_time(now))
    [series] = source.pages("AAPL", "D", parse_time("2024-02-01"), NOW)
    assert len(series) == bars


def test_hours_open_at_half_past() -> None:
    [series] = source_of(hours("2024-03-04", 9)).pages("AAPL", "60", parse_time("2024-03-01"), NOW)
    assert len(series) == 63
    assert set((series.open_time % HOUR).tolist()) == {HOUR // 2}
    assert series.open_time[0] == parse_time("2024-03-04T14:30")
    assert series.open_time[-1] == parse_time("2024-03-14T19:30")


def test_sessions_without_prices_are_left_out() -> None:
    table = sessions("2024-02-01", "2024-03-15")
    table.iloc[5] = np.nan
    [series] = source_of(table).pages("AAPL", "D", parse_time("2024-02-01"), NOW)
    assert len(series) == 31


def test_the_rounding_error_of_adjusting_is_mended_and_a_half_missing_bar_refused() -> None:
    table = sessions("2024-02-01", "2024-03-15")
    table.loc[table.index[3], ("High", "AAPL")] = table.loc[table.index[3], ("Close", "AAPL")] - 1e-12
    [series] = source_of(table).pages("AAPL", "D", parse_time("2024-02-01"), NOW)
    assert series.high[3] == series.close[3]
    table.loc[table.index[3], ("Low", "AAPL")] = np.nan
    with pytest.raises(DataError, match=r"AAPL D: prices that are not positive numbers: 1, first at 2024-02-06T05:00Z"):
        list(source_of(table).pages("AAPL", "D", parse_time("2024-02-01"), NOW))


def test_minutes_are_asked_for_by_the_week_and_no_earlier_than_yahoo_keeps_them() -> None:
    yahoo = Yahoo(sessions("2024-03-01", "2024-03-01"))
    source = YFinanceSource(download=yahoo.download, now_ms=lambda: NOW)
    list(source.pages("AAPL", "1", parse_time("2020-01-01"), NOW + DAY_MS))
    spans = [(asked["start"].timestamp() * 1000, asked["end"].timestamp() * 1000) for asked in yahoo.asked]
    assert spans[0][0] == NOW - 29 * DAY_MS
    assert spans[-1][1] == NOW
    assert all(end - start <= 7 * DAY_MS for start, end in spans)
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]


@pytest.mark.parametrize("answer", [None, pd.DataFrame(), sessions("2019-01-01", "2019-01-31")])
def test_a_symbol_without_bars_is_named(answer: pd.DataFrame | None) -> None:
    source = YFinanceSource(download=lambda *_, **__: None if answer is None else answer.head(0), now_ms=lambda: NOW)
    with pytest.raises(VenueError, match="Yahoo has no bars of NOPE D from 2024-02-01T00:00Z to 2024-03-20T12:00Z"):
        list(source.pages("NOPE", "D", parse_time("2024-02-01"), NOW))


def test_a_failing_download_is_one_sentence() -> None:
    def broken(*_: Any, **__: Any) -> pd.DataFrame:
        raise ConnectionError("no route to host")

    source = YFinanceSource(download=broken, now_ms=lambda: NOW)
    with pytest.raises(VenueError, match=r"Yahoo did not give bars of AAPL D \(ConnectionError: no route to host\)"):
        list(source.pages("AAPL", "D", parse_time("2024-02-01"), NOW))


def test_an_answer_of_another_shape_is_refused() -> None:
    table = sessions("2024-02-01", "2024-03-15").drop(columns=[("Volume", "AAPL")])
    with pytest.raises(VenueError, match="has no column 'volume'; update yfinance"):
        list(source_of(table).pages("AAPL", "D", parse_time("2024-02-01"), NOW))


def test_an_interval_that_yahoo_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match="interval '240' is not one of Yahoo's; use one of 1, 5, 15, 30, 60, D, W, M"):
        list(source_of(sessions("2024-02-01", "2024-03-15")).pages("AAPL", "240", 0, NOW))


@pytest.mark.skipif(importlib.util.find_spec("yfinance") is not None, reason="yfinance is installed here")
def test_without_yfinance_the_extra_is_named() -> None:
    with pytest.raises(UsageError, match=r"pip install 'recall-bot\[stocks\]'"):
        YFinanceSource()


def test_stocks_are_fetched_incrementally_and_a_dividend_in_between_is_noticed(tmp_path: Path) -> None:
    store, start = CandleStore(tmp_path), parse_time("2024-02-01")
    table = sessions("2024-02-01", "2024-03-15")
    first = source_of(table, parse_time("2024-03-01T12:00"))
    assert fetch_history(store, first, "AAPL", "D", start, NOW).added == 21
    assert fetch_history(store, source_of(table), "AAPL", "D", start, NOW).added == 11
    assert fetch_history(store, source_of(table), "AAPL", "D", start, NOW).added == 0
    [stored] = store.list()
    assert (stored.calendar, stored.source, stored.bars) == (Calendar.SESSIONS, "yfinance", 32)
    adjusted = table.copy()
    adjusted.iloc[:, :4] *= 0.9987
    with pytest.raises(DataError, match="AAPL D: yfinance adjusted past prices"):
        fetch_history(store, source_of(adjusted), "AAPL", "D", start, NOW)
