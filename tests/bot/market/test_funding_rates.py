"""Funding rates on disk, from files and from the venue; and which positions pay them when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import VenueError
from bot.execution.funding import FundingSchedule
from bot.execution.instruments import Instrument
from bot.market.bybit_decode import decode_funding
from bot.market.bybit_rest import BybitRest
from bot.market.funding import PAGE_RATES, FundingStore, fetch_funding, read_funding_file
from bot.market.funding_rates import FundingRates
from bot.market.validation import DataError
from bot.orders import Funding, Side
from bot.portfolio import Portfolio
from strategies.bars import HOUR_MS, Calendar
from tests.bot.market.scenes import QUICK
from tests.bot.scenes import START, A, B, execution

EIGHT = 8 * HOUR_MS
FALLBACK = Decimal("0.0003")


def rates(*texts: str, start: int = START, step: int = EIGHT) -> list[tuple[int, Decimal]]:
    return [(start + number * step, Decimal(text)) for number, text in enumerate(texts)]


# -- the store -------------------------------------------------------------------------------------------


def test_rates_are_stored_exactly_in_order_and_once(tmp_path: Path) -> None:
    store = FundingStore(tmp_path)
    assert store.load(A) == FundingRates()
    assert store.append(A, list(reversed(rates("0.00010", "-0.000123456789")))) == 2
    assert store.append(A, rates("0.0001", "-0.000123456789", "0")) == 1
    assert store.load(A) == FundingRates(
        (START, START + EIGHT, START + 2 * EIGHT), (Decimal("0.00010"), Decimal("-0.000123456789"), Decimal(0))
    )


def test_a_rate_that_comes_again_with_another_value_is_refused_and_nothing_is_stored(tmp_path: Path) -> None:
    store = FundingStore(tmp_path)
    store.append(A, rates("0.0001"))
    with pytest.raises(DataError, match="never revised"):
        store.append(A, rates("0.0002", "0.0001"))
    assert len(store.load(A).times) == 1


def test_a_damaged_file_is_named_with_the_fix(tmp_path: Path) -> None:
    (tmp_path / f"{A}.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match="fetch it again"):
        FundingStore(tmp_path).load(A)


@pytest.mark.parametrize("column", ["funding_rate", "fundingRate", "rate"])
def test_rates_come_out_of_files_as_the_shortest_decimals(tmp_path: Path, column: str) -> None:
    path = tmp_path / "rates.parquet"
    pq.write_table(pa.table({"open_time_ms": [START, START + EIGHT], column: [0.0001, -2.5e-05]}), path)
    assert read_funding_file(path) == rates("0.0001", "-0.000025")


@pytest.mark.parametrize(
    ("name", "value", "problem"), [("price", 1.0, "no column of rates"), ("rate", 7.0, "for a rate")]
)
def test_a_file_without_usable_rates_is_refused(tmp_path: Path, name: str, value: float, problem: str) -> None:
    path = tmp_path / "rates.csv"
    path.write_text(f"time,{name}\n{START},{value}\n")
    with pytest.raises(DataError, match=problem):
        read_funding_file(path)


def venue_of(known: Sequence[tuple[int, Decimal]], asked: list[tuple[int, int]]) -> Callable[[str, int, int], Any]:
    """A venue that answers with the newest rates of a window."""

    def page(symbol: str, first: int, last: int) -> list[tuple[int, Decimal]]:
        asked.append((first, last))
        return [row for row in known if first <= row[0] <= last][-PAGE_RATES:]

    return page


def test_a_download_walks_back_through_pages_and_later_asks_only_for_what_is_new(tmp_path: Path) -> None:
    store, asked = FundingStore(tmp_path), list[tuple[int, int]]()
    known = rates(*[str(Decimal(number) / 10**6) for number in range(450)])
    page = venue_of(known, asked)
    assert fetch_funding(store, page, A, START - EIGHT, START + 400 * EIGHT) == 400
    assert len(asked) == 3
    asked.clear()
    assert fetch_funding(store, page, A, 0, START + 450 * EIGHT) == 50
    assert asked == [(START + 399 * EIGHT + 1, START + 450 * EIGHT - 1)]
    assert store.load(A).rates == tuple(rate for _, rate in known)


def test_the_venues_reply_is_asked_for_with_both_ends_and_read_exactly() -> None:
    seen = {}

    async def reply(request: web.Request) -> web.Response:
        seen.update(request.query)
        rows = [
            {"symbol": A, "fundingRate": text, "fundingRateTimestamp": str(time)}
            for time, text in ((8, "-0.00005"), (4, "0.0001"))
        ]
        return web.json_response({"retCode": 0, "retMsg": "OK", "result": {"list": rows}, "time": 9})

    async def ask() -> list[tuple[int, Decimal]]:
        app = web.Application()
        app.router.add_get("/v5/market/funding/history", reply)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        rest = BybitRest(f"http://127.0.0.1:{port}", timeout_s=5, attempts=2, backoff=QUICK)
        try:
            return await rest.funding_rates(A, 3, 8)
        finally:
            rest.close()
            await runner.cleanup()

    assert asyncio.run(ask()) == [(4, Decimal("0.0001")), (8, Decimal("-0.00005"))]
    assert {name: seen[name] for name in ("category", "symbol", "startTime", "endTime", "limit")} == {
        "category": "linear", "symbol": A, "startTime": "3", "endTime": "8", "limit": "200",
    }  # fmt: skip


@pytest.mark.parametrize("row", [{}, None, {"fundingRate": "x", "fundingRateTimestamp": "1"}, {"fundingRate": "NaN"}])
def test_a_rate_that_cannot_be_read_is_the_venues_fault(row: Any) -> None:
    with pytest.raises(VenueError, match="cannot be read"):
        decode_funding([row], A, "here")


# -- the schedule ----------------------------------------------------------------------------------------


def holding(**quantities: str) -> Portfolio:
    """An account that bought or sold short at 100, marked at 110."""
    names = {A: quantities.get("a", "0"), B: quantities.get("b", "0")}
    portfolio = Portfolio(Decimal(1000), {symbol: Instrument(symbol) for symbol in names})
    for symbol, quantity in names.items():
        if Decimal(quantity):
            side = Side.BUY if Decimal(quantity) > 0 else Side.SELL
            portfolio.apply_execution(execution(side, str(abs(Decimal(quantity))), "100", symbol=symbol))
        portfolio.mark(symbol, 110.0)
    return portfolio


def schedule_of(
    known: Sequence[tuple[int, Decimal]] = (), fallback: Decimal = FALLBACK, minutes: int = 480
) -> FundingSchedule:
    instruments = {symbol: Instrument(symbol, funding_interval_minutes=minutes) for symbol in (A, B)}
    stored = FundingRates(tuple(time for time, _ in known), tuple(rate for _, rate in known))
    schedule = FundingSchedule(instruments, {A: stored}, fallback)
    schedule.begin(START)
    return schedule


def test_a_settlement_is_charged_once_its_time_has_come_at_the_stored_rate_and_the_mark() -> None:
    schedule, portfolio = schedule_of(rates("0.5", "0.0001", "-0.0002")), holding(a="2")
    assert schedule.settle(START + EIGHT - 1, portfolio) == []
    assert schedule.settle(START + EIGHT, portfolio) == [Funding(A, Decimal("0.0001"), Decimal(110), START + EIGHT)]
    assert schedule.settle(START + EIGHT, portfolio) == []
    (paid,) = schedule.settle(START + 2 * EIGHT, portfolio)
    assert portfolio.apply_funding(paid) == Decimal("2") * 110 * Decimal("-0.0002")


@pytest.mark.parametrize("quantity", ["2", "-2"])
def test_where_no_rate_is_stored_every_position_pays_whichever_side_it_has(quantity: str) -> None:
    schedule, portfolio = schedule_of(), holding(b=quantity)
    (paid,) = schedule.settle(START + EIGHT, portfolio)
    assert portfolio.apply_funding(paid) == 2 * 110 * FALLBACK


def test_a_flat_account_and_a_market_with_sessions_pay_nothing() -> None:
    assert schedule_of().settle(START + 10 * EIGHT, holding()) == []
    stock = FundingSchedule({A: Instrument(A, calendar=Calendar.SESSIONS)}, {}, FALLBACK)
    stock.begin(START)
    assert stock.settle(START + 10 * EIGHT, holding(a="2")) == []


def test_a_bar_longer_than_the_interval_brings_all_its_settlements_in_order() -> None:
    found = schedule_of(minutes=60).settle(START + 3 * HOUR_MS, holding(a="1", b="1"))
    assert [(each.symbol, (each.time - START) // HOUR_MS) for each in found] == [
        (A, 1), (B, 1), (A, 2), (B, 2), (A, 3), (B, 3),
    ]  # fmt: skip


def test_stored_settlements_tell_the_interval_and_holes_between_them_are_filled_with_the_fallback() -> None:
    """Eight hours are stored where the instrument says four; two days without any are a hole."""
    known = [*rates("0.0001", "0.0002"), *rates("0.0004", start=START + 7 * EIGHT)]
    found = schedule_of(known, minutes=240).settle(START + 7 * EIGHT, holding(a="1"))
    times = [(each.time - START) // HOUR_MS for each in found]
    assert times == [8, *range(12, 56, 4), 56]
    assert found[0].rate == Decimal("0.0002")
    assert {each.rate for each in found[1:-1]} == {FALLBACK}
    assert found[-1].rate == Decimal("0.0004")


def test_a_rate_that_becomes_known_is_used_from_then_on() -> None:
    schedule = schedule_of()
    assert schedule.due_symbols(START + EIGHT) == [(A, START + EIGHT), (B, START + EIGHT)]
    schedule.learn(A, START + EIGHT, Decimal("-0.001"))
    (paid,) = schedule.settle(START + EIGHT, holding(a="1"))
    assert paid.rate == Decimal("-0.001")


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(0, 11))
def test_a_schedule_that_begins_again_after_any_batch_goes_on_as_if_nothing_had_been(
    steps: list[int], cut: int
) -> None:
    portfolio = holding(a="1", b="-1")
    known = rates("0.0001", "0.0002", "-0.0001", "0.0003")
    unbroken, broken, close = schedule_of(known), schedule_of(known), START
    for number, step in enumerate(steps):
        close += step * HOUR_MS
        assert broken.settle(close, portfolio) == unbroken.settle(close, portfolio)
        if number == cut:
            broken = schedule_of(known)
            broken.begin(close)


def test_a_rate_of_later_changes_no_settlement_before() -> None:
    known = rates("0.0001", "0.0002", "0.0003")
    other = [*known[:2], (known[2][0], Decimal("0.9")), *rates("0.5", start=START + 3 * EIGHT)]
    assert schedule_of(known).settle(START + EIGHT, holding(a="1")) == schedule_of(other).settle(
        START + EIGHT, holding(a="1")
    )
    assert msgspec.json.decode(msgspec.json.encode(Funding(A, FALLBACK, FALLBACK, 1)), type=Funding).rate == FALLBACK
