"""Candle files of all kinds that people bring, good and bad."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bot.market.candles import CandleStore
from bot.market.importing import detect_calendar, read_candle_file, read_candle_frame
from bot.market.validation import CandleFrame, DataError, Policy, validate
from strategies.bars import BarSeries, Calendar, parse_time
from tests.bot.market.candle_examples import START, walk, without

HOUR = 3_600_000
WHOLE = walk(60)


def table_of(series: BarSeries = WHOLE) -> pd.DataFrame:
    names = ("open", "high", "low", "close", "volume")
    return pd.DataFrame({"open_time_ms": series.open_time, **{name: getattr(series, name) for name in names}})


def stamps(table: pd.DataFrame) -> pd.Series:
    return pd.to_datetime(table["open_time_ms"], unit="ms", utc=True)


def timed(name: str, times: Callable[[pd.DataFrame], object]) -> pd.DataFrame:
    """The table with its times written another way."""
    table = table_of()
    table.insert(0, name, times(table))
    return table.drop(columns="open_time_ms")


WAYS_TO_WRITE_TIMES = {
    "open_time_ms": table_of(),
    "milliseconds": timed("open_time", lambda table: table["open_time_ms"]),
    "seconds": timed("time", lambda table: table["open_time_ms"] // 1000),
    "fractional seconds": timed("timestamp", lambda table: table["open_time_ms"] / 1000),
    "microseconds": timed("timestamp", lambda table: table["open_time_ms"] * 1000),
    "nanoseconds": timed("timestamp", lambda table: table["open_time_ms"] * 1_000_000),
    "stamps with a zone": timed("Datetime", lambda table: stamps(table).dt.tz_convert("America/New_York")),
    "stamps without a zone": timed("Date", lambda table: stamps(table).dt.tz_localize(None)),
    "text with Z": timed("DATE", lambda table: stamps(table).dt.strftime("%Y-%m-%dT%H:%M:%SZ")),
    "text without a zone": timed("Timestamp", lambda table: stamps(table).dt.strftime("%Y-%m-%d %H:%M")),
}


@pytest.mark.parametrize("way", WAYS_TO_WRITE_TIMES)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_every_way_to_write_times_gives_the_same_bars(tmp_path: Path, way: str, kind: str) -> None:
    path, table = tmp_path / f"candles.{kind}", WAYS_TO_WRITE_TIMES[way]
    table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
    assert read_candle_file(path, "BTCUSDT", "60").digest() == WHOLE.digest()


def test_column_names_in_any_case_and_further_columns_are_accepted(tmp_path: Path) -> None:
    table = table_of().rename(columns=lambda name: f" {name.upper()} ").assign(turnover=1.0, comment="x")
    table.to_csv(tmp_path / "a.csv", index=False)
    assert read_candle_file(tmp_path / "a.csv", "BTCUSDT", "60").digest() == WHOLE.digest()


def test_a_time_index_that_pandas_stored_is_a_time_column(tmp_path: Path) -> None:
    table = table_of().set_index(stamps(table_of()).rename("Date")).drop(columns="open_time_ms")
    table.to_parquet(tmp_path / "a.parquet")
    assert read_candle_file(tmp_path / "a.parquet", "BTCUSDT", "60").digest() == WHOLE.digest()


def test_numbers_written_as_text_are_numbers(tmp_path: Path) -> None:
    table = table_of().map(str)
    pq.write_table(pa.Table.from_pandas(table), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a time '1704067200000' in column 'open_time_ms' of row 1"):
        read_candle_file(tmp_path / "a.parquet", "BTCUSDT", "60")
    table["open_time_ms"] = table_of()["open_time_ms"]
    pq.write_table(pa.Table.from_pandas(table), tmp_path / "a.parquet")
    assert read_candle_file(tmp_path / "a.parquet", "BTCUSDT", "60").digest() == WHOLE.digest()


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    (tmp_path / "volume=7").mkdir()
    table_of().to_parquet(tmp_path / "volume=7" / "a.parquet")
    assert read_candle_file(tmp_path / "volume=7" / "a.parquet", "BTCUSDT", "60").digest() == WHOLE.digest()


def test_unordered_and_repeated_rows_are_mended(tmp_path: Path) -> None:
    table = table_of()
    pd.concat([table.iloc[30:], table.iloc[:40]]).to_csv(tmp_path / "a.csv", index=False)
    assert read_candle_file(tmp_path / "a.csv", "BTCUSDT", "60").digest() == WHOLE.digest()


@pytest.mark.parametrize("column", ["open", "high", "low", "close", "volume"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path, column: str, kind: str) -> None:
    path, table = tmp_path / f"candles.{kind}", table_of().drop(columns=column)
    table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path, index=False)
    found = ", ".join(table.columns)
    with pytest.raises(DataError, match=rf"candles.{kind} has no column '{column}' \(found: {found}\)"):
        read_candle_file(path, "BTCUSDT", "60")


def refusal(path: Path, interval: str = "60") -> str:
    with pytest.raises(DataError) as refused:
        read_candle_file(path, "BTCUSDT", interval)
    message = str(refused.value)
    assert "\n" not in message
    return message


def csv_of(tmp_path: Path, table: pd.DataFrame) -> Path:
    table.to_csv(tmp_path / "bad.csv", index=False)
    return tmp_path / "bad.csv"


def test_a_missing_time_column_names_those_that_would_do(tmp_path: Path) -> None:
    message = refusal(csv_of(tmp_path, table_of().rename(columns={"open_time_ms": "when"})))
    assert "has no column of open times, one of open_time_ms, open_time, timestamp, time, date, datetime" in message
    assert "(found: when, open," in message


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    assert "more than one column 'close'" in refusal(csv_of(tmp_path, table_of().assign(Close=1.0)))


def test_text_among_the_prices_is_named(tmp_path: Path) -> None:
    table = table_of().astype({"low": object})
    table.loc[7, "low"] = "n/a?"
    message = refusal(csv_of(tmp_path, table))
    assert "something other than numbers in column 'low'" in message
    assert "n/a?" in message


@pytest.mark.parametrize("value", [np.nan, -1.0, 0.0])
def test_a_price_that_is_none_is_refused_with_its_time(tmp_path: Path, value: float) -> None:
    table = table_of()
    table.loc[7, "close"] = value
    assert "first at 2024-01-01T07:00Z" in refusal(csv_of(tmp_path, table))


def test_a_time_that_is_not_understood_is_named_with_its_row(tmp_path: Path) -> None:
    table = WAYS_TO_WRITE_TIMES["text with Z"].copy()
    table.loc[7, "DATE"] = "yesterday"
    assert "a time 'yesterday' in column 'date' of row 8" in refusal(csv_of(tmp_path, table))


def test_an_absent_time_is_named_with_its_row(tmp_path: Path) -> None:
    table = table_of().astype({"open_time_ms": "Int64"})
    table.loc[7, "open_time_ms"] = pd.NA
    assert "no time in column 'open_time_ms' of row 8" in refusal(csv_of(tmp_path, table))
    table = timed("time", lambda table: table["open_time_ms"] / 1000)
    table.loc[7, "time"] = np.nan
    table.to_parquet(tmp_path / "bad.parquet")
    assert "no time in column 'time' of row 8" in refusal(tmp_path / "bad.parquet")


def test_times_in_mixed_units_are_refused(tmp_path: Path) -> None:
    table = timed("time", lambda table: table["open_time_ms"])
    table.loc[50:, "time"] *= 1000
    assert "in column 'time' of row 51 that is" in refusal(csv_of(tmp_path, table))


def test_rows_longer_than_the_header_are_refused(tmp_path: Path) -> None:
    lines = csv_of(tmp_path, table_of()).read_text().splitlines()
    (tmp_path / "bad.csv").write_text("\n".join([lines[0], *(f"{line},1" for line in lines[1:])]))
    assert "is not a readable CSV file" in refusal(tmp_path / "bad.csv")


def test_files_without_rows_are_refused(tmp_path: Path) -> None:
    for name in ("a.csv", "a.parquet"):
        (tmp_path / name).write_bytes(b"")
        assert name in refusal(tmp_path / name)
    assert "holds no rows" in refusal(csv_of(tmp_path, table_of().head(0)))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_parquet_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.parquet"
    table_of().to_parquet(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert refusal(path).startswith(f"candle file {path} is not a complete Parquet file")


def test_what_is_no_file_or_of_unknown_kind_is_refused(tmp_path: Path) -> None:
    assert "is not there" in refusal(tmp_path / "none.csv")
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    assert "of unknown kind '.xlsx'" in refusal(tmp_path / "a.xlsx")
    (tmp_path / "a.csv").write_bytes(bytes(range(256)) * 20)
    assert "is not a readable CSV file" in refusal(tmp_path / "a.csv")


@pytest.mark.parametrize(("interval", "length"), [("1", "1 min"), ("30", "30 min"), ("240", "4 h"), ("D", "1 d")])
def test_an_interval_that_the_spacing_contradicts_is_refused(tmp_path: Path, interval: str, length: str) -> None:
    message = refusal(csv_of(tmp_path, table_of()), interval)
    assert f"has bars 1 h apart, and the interval given is '{interval}' ({length})" in message


def test_gaps_do_not_contradict_the_interval(tmp_path: Path) -> None:
    series = without(WHOLE, *range(10, 55, 3))
    assert len(read_candle_file(csv_of(tmp_path, table_of(series)), "BTCUSDT", "60")) == len(series)


@pytest.mark.parametrize("interval", ["W", "M"])
def test_weeks_and_months_are_recognised(tmp_path: Path, interval: str) -> None:
    times = pd.date_range("2020-01-01", periods=40, freq="W-MON" if interval == "W" else "MS", tz="UTC")
    table = table_of(walk(40)).assign(open_time_ms=times.as_unit("ms").astype("int64"))
    series = read_candle_file(csv_of(tmp_path, table), "BTCUSDT", interval)
    assert series.calendar is Calendar.CONTINUOUS
    assert validate(series, series.calendar).findings == ()


def test_a_single_bar_is_a_series(tmp_path: Path) -> None:
    assert len(read_candle_file(csv_of(tmp_path, table_of(walk(1))), "BTCUSDT", "60")) == 1


def test_a_market_with_outages_still_never_closes() -> None:
    assert detect_calendar(CandleFrame.of(without(walk(200), *range(50, 65)))) is Calendar.CONTINUOUS


def test_the_days_of_one_working_week_are_sessions_although_none_is_missing() -> None:
    week = walk(5, interval="D", start=parse_time("2024-01-08T14:30"))
    assert detect_calendar(CandleFrame.of(week)) is Calendar.SESSIONS


def test_hours_of_a_market_that_never_closes_at_half_past_are_refused_not_taken_for_sessions(tmp_path: Path) -> None:
    shifted = table_of(walk(60, start=START + HOUR // 2))
    assert "open times off the grid: 60" in refusal(csv_of(tmp_path, shifted))


def test_the_calendar_given_is_the_calendar_taken(tmp_path: Path) -> None:
    path = csv_of(tmp_path, table_of())
    assert read_candle_file(path, "X", "60", Calendar.SESSIONS).calendar is Calendar.SESSIONS


def test_the_policy_reaches_the_bars(tmp_path: Path) -> None:
    table = table_of()
    table.loc[7, "high"] = 1.0
    path = csv_of(tmp_path, table)
    assert "outside [low, high]: 1" in refusal(path)
    series = read_candle_file(path, "BTCUSDT", "60", policy=Policy.REPAIR)
    assert series.high[7] == max(table.loc[7, ["open", "low", "close"]])


@pytest.mark.parametrize(
    ("file", "interval", "calendar", "bars"),
    [
        ("bybit_linear_BTCUSDT_1h", "60", Calendar.CONTINUOUS, 50_582),
        ("bybit_linear_BTCUSDT_1d", "D", Calendar.CONTINUOUS, 2_108),
        ("bybit_linear_DOGEUSDT_1m", "1", Calendar.CONTINUOUS, 43_199),
        ("binance_spot_BTCUSDT_1h", "60", Calendar.CONTINUOUS, 70_006),
        ("stock_AAPL_1d_recent", "D", Calendar.SESSIONS, 1_254),
        ("stock_AAPL_1d_1998_2021", "D", Calendar.SESSIONS, 5_849),
        ("stock_MSFT_1h_recent", "60", Calendar.SESSIONS, 1_739),
    ],
)
def test_real_files_load_and_are_stored_with_their_own_calendars(
    real_data: Path, tmp_path: Path, file: str, interval: str, calendar: Calendar, bars: int
) -> None:
    path = real_data / f"{file}.parquet"
    if not path.is_file():
        pytest.skip(f"{path.name} is not among the real candles here")
    series = read_candle_file(path, "X", interval)
    assert (series.calendar, len(series)) == (calendar, bars)
    assert not validate(series, calendar).repaired
    store = CandleStore(tmp_path)
    store.append(series, source="file")
    assert store.load("X", interval).digest() == series.digest()
    # What is known at a close must not come before what was known at an earlier one.
    assert (np.diff(series.close_time) > 0).all()
    assert (series.close_time[:-1] <= series.open_time[1:]).all()


def test_a_file_of_funding_rates_is_not_one_of_candles(real_data: Path) -> None:
    path = real_data / "bybit_linear_BTCUSDT_funding.parquet"
    if not path.is_file():
        pytest.skip(f"{path.name} is not among the real candles here")
    with pytest.raises(DataError, match=r"no column 'open' \(found: open_time_ms, funding_rate\)"):
        read_candle_frame(path, "BTCUSDT", "60")
