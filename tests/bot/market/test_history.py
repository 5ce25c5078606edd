"""Fetching history: incremental, resumable, honest about what the venue lacks; and asking how much there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.errors import UsageError, VenueError
from bot.market.candles import CandleStore
from bot.market.history import PAGE_BARS, BybitHistory, fetch_history, history_before
from bot.market.validation import DataError
from strategies.bars import Bar, BarSeries, Calendar, parse_time
from tests.bot.market.candle_examples import START, changed, walk, without

HOUR = 3_600_000


@dataclass
class Exchange:
    """Answers like Bybit's kline request: both ends included, and of a wider window only the newest 1000 bars."""

    series: BarSeries
    asked: list[tuple[int, int]] = field(default_factory=list)
    fails_after: int | None = None
    """Requests that are answered before the network breaks."""
    shorted: int = 0
    """How many of the first answers lack their third bar."""

    def page(self, symbol: str, interval: str, start_ms: int, end_ms: int) -> list[Bar]:
        assert (symbol, interval) == (self.series.symbol, self.series.interval)
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise VenueError("the network broke")
        self.asked.append((start_ms, end_ms))
        bars = list(self.series.span(start_ms, end_ms + 1).bars())[-PAGE_BARS:]
        return bars[:2] + bars[3:] if len(self.asked) <= self.shorted else bars


@pytest.fixture
def store(tmp_path: Path) -> CandleStore:
    return CandleStore(tmp_path)


WHOLE = walk(3_500)
END = START + 3_500 * HOUR


def test_a_whole_history_comes_page_by_page_oldest_first(store: CandleStore) -> None:
    exchange, seen = Exchange(WHOLE), []
    result = fetch_history(
        store, BybitHistory(exchange.page), "BTCUSDT", "60", START, END, progress=lambda *p: seen.append(p)
    )
    assert (result.added, result.already_there, result.starts_late) == (3_500, 0, False)
    assert result.stored == store.describe("BTCUSDT", "60")
    assert store.load("BTCUSDT", "60").digest() == WHOLE.digest()
    assert [start for start, _ in exchange.asked] == [START + n * PAGE_BARS * HOUR for n in range(4)]
    assert seen == [(1_000, 3_500), (2_000, 3_500), (3_000, 3_500), (3_500, 3_500), (3_500, 3_500)]


def test_a_second_fetch_asks_only_for_what_is_new(store: CandleStore) -> None:
    fetch_history(store, BybitHistory(Exchange(WHOLE).page), "BTCUSDT", "60", START, START + 3_000 * HOUR)
    exchange = Exchange(WHOLE)
    result = fetch_history(store, BybitHistory(exchange.page), "BTCUSDT", "60", START, END)
    assert result.added == 500
    assert len(exchange.asked) == 1
    assert exchange.asked[0][0] == START + 2_999 * HOUR + 1
    again = fetch_history(store, BybitHistory(exchange.page), "BTCUSDT", "60", START, END)
    assert (again.added, again.already_there) == (0, 0)
    assert store.load("BTCUSDT", "60").digest() == WHOLE.digest()


def test_an_interrupted_fetch_keeps_its_pages_and_resumes_after_them(store: CandleStore) -> None:
    with pytest.raises(VenueError, match="the network broke"):
        fetch_history(store, BybitHistory(Exchange(WHOLE, fails_after=2).page), "BTCUSDT", "60", START, END)
    assert len(store.load("BTCUSDT", "60")) == 2_000
    exchange = Exchange(WHOLE)
    assert fetch_history(store, BybitHistory(exchange.page), "BTCUSDT", "60", START, END).added == 1_500
    assert exchange.asked[0][0] > START + 1_999 * HOUR
    assert store.load("BTCUSDT", "60").digest() == WHOLE.digest()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3_600), min_size=1, max_size=5), st.integers(0, 500), st.sampled_from([0, 1, HOUR - 1]))
def test_fetching_in_any_number_of_steps_is_fetching_once(
    tmp_path_factory: pytest.TempPathFactory, ends: list[int], begin: int, shift: int
) -> None:
    """The end is not included, and neither it nor the start needs to be on the grid."""
    store, start = CandleStore(tmp_path_factory.mktemp("steps")), START + begin * HOUR + shift
    for end in sorted(ends):
        if START + end * HOUR > start:
            fetch_history(store, BybitHistory(Exchange(WHOLE).page), "BTCUSDT", "60", start, START + end * HOUR)
    wanted = replace(WHOLE.span(start, START + max(ends) * HOUR), first_ordinal=0)
    assert store.load("BTCUSDT", "60").digest() == wanted.digest()


def test_a_later_start_leaves_no_hole_after_what_is_stored(store: CandleStore) -> None:
    source = BybitHistory(Exchange(WHOLE).page)
    fetch_history(store, source, "BTCUSDT", "60", START, START + 100 * HOUR)
    fetch_history(store, source, "BTCUSDT", "60", START + 200 * HOUR, START + 300 * HOUR)
    assert store.load("BTCUSDT", "60").digest() == WHOLE.slice(0, 300).digest()


def test_earlier_bars_come_only_on_purpose(store: CandleStore) -> None:
    source, middle = BybitHistory(Exchange(WHOLE).page), START + 2_000 * HOUR
    fetch_history(store, source, "BTCUSDT", "60", middle, END - 500 * HOUR)
    result = fetch_history(store, source, "BTCUSDT", "60", START, END - 400 * HOUR)
    assert (result.added, result.starts_late) == (100, True)
    seen: list[tuple[int, int]] = []
    result = fetch_history(store, source, "BTCUSDT", "60", START, END, prepend=True, progress=lambda *p: seen.append(p))
    assert (result.added, result.starts_late) == (2_400, False)
    assert seen == [(1_000, 2_400), (2_000, 2_400), (2_400, 2_400), (2_400, 2_400)]
    assert store.load("BTCUSDT", "60").digest() == WHOLE.digest()


def test_an_interrupted_prepending_changes_nothing(store: CandleStore) -> None:
    fetch_history(store, BybitHistory(Exchange(WHOLE).page), "BTCUSDT", "60", START + 2_000 * HOUR, END)
    before = store.load("BTCUSDT", "60").digest()
    with pytest.raises(VenueError):
        source = BybitHistory(Exchange(WHOLE, fails_after=1).page)
        fetch_history(store, source, "BTCUSDT", "60", START, END, prepend=True)
    assert store.load("BTCUSDT", "60").digest() == before


def test_windows_before_a_listing_are_empty_and_no_mistake(store: CandleStore) -> None:
    exchange = Exchange(WHOLE)
    result = fetch_history(store, BybitHistory(exchange.page), "BTCUSDT", "60", START - 2_500 * HOUR, END)
    assert result.added == 3_500
    assert len(exchange.asked) == 6


def test_nothing_there_at_all_is_nothing_stored(store: CandleStore) -> None:
    result = fetch_history(
        store, BybitHistory(Exchange(WHOLE).page), "BTCUSDT", "60", START - 2_000 * HOUR, START - HOUR
    )
    assert (result.added, result.stored) == (0, None)


def test_an_answer_with_a_hole_is_asked_for_again(store: CandleStore) -> None:
    exchange = Exchange(WHOLE, shorted=1)
    fetch_history(store, BybitHistory(exchange.page), "BTCUSDT", "60", START, END)
    assert store.load("BTCUSDT", "60").digest() == WHOLE.digest()
    assert len(exchange.asked) == 5


def test_a_hole_that_stays_is_taken_as_it_is(store: CandleStore) -> None:
    holed = without(WHOLE, 50, 51, *range(1_000, 2_000), 2_500)
    fetch_history(store, BybitHistory(Exchange(holed).page), "BTCUSDT", "60", START, END)
    assert store.load("BTCUSDT", "60").digest() == holed.digest()


def test_a_stock_that_a_sandbox_plays_has_no_holes_to_ask_for_again(store: CandleStore) -> None:
    sessions = without(walk(90, calendar=Calendar.SESSIONS), *range(7, 24), *range(31, 48))
    exchange = Exchange(sessions)
    source = BybitHistory(exchange.page, name="sandbox", calendar=Calendar.SESSIONS)
    fetch_history(store, source, "BTCUSDT", "60", START, END)
    assert store.load("BTCUSDT", "60").digest() == sessions.digest()
    assert len(exchange.asked) == 4


def test_bars_outside_the_window_asked_for_are_refused(store: CandleStore) -> None:
    def newest(symbol: str, interval: str, start_ms: int, end_ms: int) -> list[Bar]:
        return list(WHOLE.slice(3_000, 3_500).bars())

    with pytest.raises(VenueError, match=r"from 2024-01-01T00:00Z .* with a bar of 2024-05-05T00:00Z"):
        fetch_history(store, BybitHistory(newest), "BTCUSDT", "60", START, END)
    assert store.list() == []


def test_months_are_fetched_by_their_calendar(store: CandleStore) -> None:
    start = parse_time("2020-01-01")
    opens = [parse_time(f"{2020 + n // 12}-{n % 12 + 1:02}-01") for n in range(30)]
    months = replace(walk(30, interval="M", start=start), open_time=WHOLE.open_time[:30] * 0 + opens)
    result = fetch_history(store, BybitHistory(Exchange(months).page), "BTCUSDT", "M", start, parse_time("2022-07-01"))
    assert result.added == 30
    assert store.load("BTCUSDT", "M").digest() == months.digest()


def test_an_empty_span_is_refused(store: CandleStore) -> None:
    with pytest.raises(UsageError, match="from 2024-01-01T00:00Z to 2024-01-01T00:00Z is empty"):
        fetch_history(store, BybitHistory(Exchange(WHOLE).page), "BTCUSDT", "60", START, START)


@dataclass(frozen=True)
class Adjusted:
    """A source that rewrites its past at every split."""

    series: BarSeries
    name: str = "stocks"
    calendar: Calendar = Calendar.CONTINUOUS
    is_adjusted: bool = True

    def pages(self, symbol: str, interval: str, start_ms: int, end_ms: int) -> Iterator[BarSeries]:
        yield self.series.span(start_ms, end_ms)


def split(series: BarSeries, factor: float) -> BarSeries:
    return replace(series, **{name: getattr(series, name) * factor for name in ("open", "high", "low", "close")})


def test_an_adjusted_source_that_still_tells_the_same_past_is_appended(store: CandleStore) -> None:
    fetch_history(store, Adjusted(WHOLE), "BTCUSDT", "60", START + 200 * HOUR, START + 1_000 * HOUR)
    noisy = Adjusted(split(WHOLE, 1 + 3e-7))
    assert fetch_history(store, noisy, "BTCUSDT", "60", START, START + 1_200 * HOUR).added == 200
    assert fetch_history(store, noisy, "BTCUSDT", "60", START, START + 1_200 * HOUR, prepend=True).added == 200
    assert len(store.load("BTCUSDT", "60")) == 1_200


@pytest.mark.parametrize("prepend", [False, True])
def test_an_adjusted_source_that_rewrote_the_past_is_refused_not_joined_with_a_jump(
    store: CandleStore, prepend: bool
) -> None:
    fetch_history(store, Adjusted(WHOLE), "BTCUSDT", "60", START + 200 * HOUR, START + 1_000 * HOUR)
    with pytest.raises(DataError, match=r"stocks adjusted past prices .* delete the stored series and fetch it again"):
        fetch_history(store, Adjusted(split(WHOLE, 0.998)), "BTCUSDT", "60", START, END, prepend=prepend)
    assert len(store.load("BTCUSDT", "60")) == 800


def test_bars_that_a_venue_revised_are_refused(store: CandleStore) -> None:
    fetch_history(store, BybitHistory(Exchange(WHOLE).page), "BTCUSDT", "60", START, START + 10 * HOUR)
    with pytest.raises(DataError, match="another volume"):
        store.append(changed(WHOLE, "volume", 9, 1e6), source="bybit")


# -- what is there before a start --------------------------------------------------------------------------------------


def test_the_history_before_a_start_is_its_last_bars_with_their_numbers(store: CandleStore) -> None:
    store.append(WHOLE, source="file")
    store.append(walk(50, symbol="ETHUSDT", start=START + 70 * HOUR), source="file")
    history = history_before(store, ["BTCUSDT", "ETHUSDT"], "60", START + 100 * HOUR, at_most=40, at_least=30)
    assert list(history) == ["BTCUSDT", "ETHUSDT"]
    assert history["BTCUSDT"].digest() == WHOLE.slice(60, 100).digest()
    assert len(history["ETHUSDT"]) == 30
    assert history["ETHUSDT"].first_ordinal == 0


def test_too_short_a_history_names_what_is_needed_what_is_there_and_the_fetch(store: CandleStore) -> None:
    store.append(WHOLE, source="file")
    with pytest.raises(UsageError) as refused:
        history_before(store, ["BTCUSDT"], "60", START + 100 * HOUR, at_most=4_096, at_least=480)
    message = str(refused.value)
    assert "BTCUSDT 60: 480 bars are needed before 2024-01-05T04:00Z and 100 are stored" in message
    assert "`recall fetch --symbols BTCUSDT --interval 60 --start 2023-12-14 --prepend`" in message


def test_an_unknown_symbol_is_a_history_without_bars(store: CandleStore) -> None:
    with pytest.raises(
        UsageError, match=r"NOPE 60: 10 bars .* and 0 are stored; run `recall fetch --symbols NOPE .*14`"
    ):
        history_before(store, ["NOPE"], "60", parse_time("2024-01-15"), at_most=10, at_least=10)


def test_the_fetch_that_is_proposed_brings_enough_bars(store: CandleStore) -> None:
    exchange = Exchange(walk(9_000, start=START - 4_500 * HOUR))
    source, start = BybitHistory(exchange.page), START + 50 * HOUR
    fetch_history(store, source, "BTCUSDT", "60", START, END)
    with pytest.raises(UsageError) as refused:
        history_before(store, ["BTCUSDT"], "60", start, at_most=2_000, at_least=2_000)
    proposed = str(refused.value).split("--start ")[1][:10]
    fetch_history(store, source, "BTCUSDT", "60", parse_time(proposed), END, prepend=True)
    assert len(history_before(store, ["BTCUSDT"], "60", start, at_most=2_000, at_least=2_000)["BTCUSDT"]) == 2_000


def test_sessions_need_an_earlier_start_for_as_many_bars(store: CandleStore) -> None:
    days = walk(364, symbol="AAPL", interval="D", calendar=Calendar.SESSIONS)
    weekends = [row for row in range(364) if row % 7 in (5, 6)]
    store.append(without(days, *weekends), source="yfinance")
    with pytest.raises(UsageError, match=r"--start 2022-0[1-7]-.. --prepend"):
        history_before(store, ["AAPL"], "D", parse_time("2024-01-02"), at_most=500, at_least=400)
