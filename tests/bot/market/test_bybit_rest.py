"""The REST client against the sandbox: paging, open candles, retries, refusals."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import pairwise

import pytest
from aiohttp import web
from pybit.unified_trading import HTTP

from backtest.sandbox.clock import ClockSetting
from backtest.sandbox.market import SyntheticMarket
from backtest.sandbox.sources import StoredBars
from backtest.sandbox.venue import SandboxVenue
from bot.errors import VenueError
from bot.execution.bybit.rate_limits import ALL_PER_SECOND, PUBLIC_PER_SECOND, SHARE
from bot.execution.instruments import Instrument
from bot.market.bybit_decode import decode_instrument, decode_klines
from bot.market.bybit_rest import BybitRest, page_windows
from strategies.bars import HOUR_MS, Calendar
from tests.bot.market.scenes import QUICK, T0, hourly

START = 480_000 * HOUR_MS
MARKET = SyntheticMarket(5, "BTCUSDT", "60")


@contextmanager
def client(url: str, attempts: int = 4) -> Iterator[BybitRest]:
    rest = BybitRest(url, timeout_s=5, attempts=attempts, backoff=QUICK)
    try:
        yield rest
    finally:
        rest.close()


def synthetic_venue() -> SandboxVenue:
    return SandboxVenue({"BTCUSDT": MARKET}, "60", ClockSetting.stepped(), start=START)


def test_more_bars_than_one_page_come_in_order_without_a_gap_or_a_double():
    async def ask():
        async with synthetic_venue() as venue:
            with client(venue.rest_url) as rest:
                first = START - 2500 * HOUR_MS
                return await rest.klines("BTCUSDT", "60", first, START), venue.requests

    bars, requests = asyncio.run(ask())
    assert bars == list(MARKET.series(START - 2500 * HOUR_MS, START).bars())
    assert requests == 3


def test_without_an_end_the_bars_reach_to_the_venues_own_now_and_leave_out_the_open_candle():
    async def ask():
        async with synthetic_venue() as venue:
            with client(venue.rest_url) as rest:
                before = await rest.klines("BTCUSDT", "60", START - 2 * HOUR_MS)
                await venue.step(2)
                raw = await asyncio.to_thread(pybit_kline, venue.rest_url, START - 2 * HOUR_MS)
                return before, await rest.klines("BTCUSDT", "60", START - 2 * HOUR_MS), raw

    before, after, raw = asyncio.run(ask())
    assert [bar.open_time for bar in before] == [START - 2 * HOUR_MS, START - HOUR_MS]
    assert after == list(MARKET.series(START - 2 * HOUR_MS, START + 2 * HOUR_MS).bars())
    assert len(raw) == len(after) + 1, "the venue itself lists the open candle, first"
    assert int(raw[0][0]) == START + 2 * HOUR_MS


def pybit_kline(url: str, start: int) -> list[list[str]]:
    session = HTTP(testnet=True)
    session.endpoint = url
    reply = session.get_kline(
        category="linear", symbol="BTCUSDT", interval="60", start=start, end=start + 999 * HOUR_MS
    )
    rows: list[list[str]] = reply["result"]["list"]
    return rows


def test_pybit_itself_unmodified_talks_to_the_sandbox():
    async def ask():
        async with synthetic_venue() as venue:

            def session() -> tuple[dict, dict, dict]:
                http = HTTP(testnet=False)
                http.endpoint = venue.rest_url
                return (
                    http.get_server_time(),
                    http.get_instruments_info(category="linear", symbol="BTCUSDT"),
                    http.get_kline(category="linear", symbol="BTCUSDT", interval="60", limit=3),
                )

            return await asyncio.to_thread(session)

    time, instruments, kline = asyncio.run(ask())
    assert time["result"] == {"timeSecond": str(START // 1000), "timeNano": str(START * 1_000_000)}
    assert instruments["result"]["list"][0]["priceFilter"]["tickSize"] == "0.01"
    assert [int(row[0]) for row in kline["result"]["list"]] == [START, START - HOUR_MS, START - 2 * HOUR_MS]


def test_the_page_of_the_fetch_command_is_synchronous_and_includes_both_ends():
    async def ask():
        async with synthetic_venue() as venue:
            with client(venue.rest_url) as rest:
                await asyncio.to_thread(rest.klines_page, "BTCUSDT", "60", START - 9 * HOUR_MS, START)
                return await asyncio.to_thread(
                    rest.klines_page, "BTCUSDT", "60", START - 9 * HOUR_MS, START - 2 * HOUR_MS
                )

    assert asyncio.run(ask()) == list(MARKET.series(START - 9 * HOUR_MS, START - HOUR_MS).bars())


def test_bars_before_a_listing_are_an_empty_list():
    async def ask():
        async with SandboxVenue({"BTCUSDT": hourly("BTCUSDT", 5)}, "60", ClockSetting.stepped()) as venue:
            with client(venue.rest_url) as rest:
                return await rest.klines("BTCUSDT", "60", T0 - 50 * HOUR_MS, T0)

    assert asyncio.run(ask()) == []


@pytest.mark.parametrize(("status", "code"), [(503, 0), (500, 0), (429, 0), (200, 10006), (200, 10016), (200, 10000)])
def test_a_passing_trouble_of_the_venue_is_ridden_out(status, code):
    async def ask():
        async with synthetic_venue() as venue:
            with client(venue.rest_url) as rest:
                venue.fail_requests(3, status=status, code=code)
                return await rest.server_time(), venue.requests

    assert asyncio.run(ask()) == (START, 4)


@pytest.mark.parametrize(
    ("status", "code", "requests", "words"),
    [
        (503, 0, 4, "gave no answer to a request for its clock in 4 attempts (last: HTTP status 503)"),
        (200, 10006, 4, "code 10006"),
        (403, 0, 1, "forbids requests from this address"),
        (404, 0, 1, "HTTP status 404"),
        (200, 33004, 1, "code 33004"),
    ],
)
def test_a_lasting_trouble_ends_in_one_sentence_and_a_ban_is_never_retried(status, code, requests, words):
    async def ask():
        async with synthetic_venue() as venue:
            with client(venue.rest_url) as rest:
                venue.fail_requests(9, status=status, code=code)
                with pytest.raises(VenueError) as error:
                    await rest.server_time()
                return str(error.value), venue.requests

    message, asked = asyncio.run(ask())
    assert words in message
    assert "\n" not in message
    assert asked == requests


def test_after_a_ban_nothing_is_sent_until_it_is_over():
    async def ask():
        async with synthetic_venue() as venue:
            rest = BybitRest(venue.rest_url, backoff=QUICK, forbidden_wait_s=0.2)
            venue.fail_requests(1, status=403)
            sent = []
            try:
                for _ in range(3):
                    with pytest.raises(VenueError, match="forbids requests"):
                        await rest.server_time()
                    sent.append(venue.requests)
                async with asyncio.timeout(10):
                    while True:
                        try:
                            return sent, await rest.server_time()
                        except VenueError:
                            await asyncio.sleep(0.02)
            finally:
                rest.close()

    sent, told = asyncio.run(ask())
    assert sent == [1, 1, 1]
    assert told == START


def test_public_requests_leave_room_for_the_account_within_the_limit_of_the_address():
    """The venue allows 600 requests in 5 seconds; a burst beyond our part has to wait for it."""
    assert PUBLIC_PER_SECOND + ALL_PER_SECOND * SHARE <= 600 / 5
    count = 2 * PUBLIC_PER_SECOND

    async def ask():
        async with synthetic_venue() as venue:
            with client(venue.rest_url) as rest:
                began = time.monotonic()
                for _ in range(count):
                    await rest.server_time()
                return time.monotonic() - began

    assert asyncio.run(ask()) >= (count - PUBLIC_PER_SECOND) / PUBLIC_PER_SECOND - 0.05


def test_an_unknown_symbol_or_interval_is_refused_at_once_and_named():
    async def ask():
        async with synthetic_venue() as venue:
            with client(venue.rest_url) as rest:
                messages = []
                for symbol, interval in (("NOPEUSDT", "60"), ("BTCUSDT", "5")):
                    with pytest.raises(VenueError) as error:
                        await rest.klines(symbol, interval, START - HOUR_MS, START)
                    messages.append(str(error.value))
                with pytest.raises(VenueError) as error:
                    await rest.instruments(["BTCUSDT", "NOPEUSDT"])
                return [*messages, str(error.value)], venue.requests

    messages, requests = asyncio.run(ask())
    assert "NOPEUSDT" in messages[0]
    assert "BTCUSDT at interval 5" in messages[1]
    assert "symbol 'NOPEUSDT' is unknown" in messages[2]
    assert requests == 4, "each refused at once; the margin tiers of the known one were asked for"


def test_nobody_listening_is_a_venue_error_and_not_a_traceback(unused_url):
    with client(unused_url, attempts=2) as rest, pytest.raises(VenueError, match=r"2 attempts \(last: ConnectionError"):
        asyncio.run(rest.server_time())


@pytest.fixture
def unused_url() -> str:
    async def find():
        async with synthetic_venue() as venue:
            return venue.rest_url

    return asyncio.run(find())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<html>maintenance</html>", "no JSON"),
        ('{"retCode":0,"result":{}}', "its time"),
        ('["retCode"]', "no JSON object"),
        ("null", "no JSON object"),
    ],
)
def test_a_host_that_does_not_speak_the_protocol_is_a_venue_error(body, words):
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=body, content_type="text/html" if body.startswith("<") else "application/json")

    async def ask():
        application = web.Application()
        application.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            with client(f"http://127.0.0.1:{runner.addresses[0][1]}", attempts=2) as rest:
                with pytest.raises(VenueError) as error:
                    await rest.server_time()
                return str(error.value)
        finally:
            await runner.cleanup()

    assert words in asyncio.run(ask())


def test_instruments_are_gathered_over_all_pages_and_come_in_the_order_asked():
    symbols = [f"S{number:04}USDT" for number in range(1003)]
    bars = StoredBars(hourly("S", 1))
    rules = {"S1002USDT": Instrument("S1002USDT", tick_size=Decimal("0.0000010"), lot_size=Decimal("100"))}

    async def ask():
        sources = dict.fromkeys(symbols, bars)
        async with SandboxVenue(sources, "60", ClockSetting.stepped(), instruments=rules) as venue:
            with client(venue.rest_url) as rest:
                return await rest.instruments(["S1002USDT", "S0000USDT"]), venue.requests

    found, requests = asyncio.run(ask())
    assert list(found) == ["S1002USDT", "S0000USDT"]
    assert found["S1002USDT"] == rules["S1002USDT"]
    assert found["S0000USDT"] == Instrument("S0000USDT")
    assert requests == 4, "two pages of rules, and the margin tiers of each symbol"


def test_every_recorded_instrument_is_understood(real_data):
    path = real_data.parent / "wire" / "capture" / "rest_instruments_info_linear_selected.json"
    if not path.is_file():
        pytest.skip("no recorded instruments here: put a folder named wire beside the real candles")
    rows = {row["symbol"]: row for row in json.loads(path.read_text())["result"]["list"]}
    bitcoin = decode_instrument("BTCUSDT", rows["BTCUSDT"], "here", "linear")
    assert (bitcoin.tick_size, bitcoin.lot_size, bitcoin.minimum_notional) == (
        Decimal("0.10"),
        Decimal("0.001"),
        Decimal("5"),
    )
    for symbol, row in rows.items():
        if row["status"] == "Trading":
            assert decode_instrument(symbol, row, "here", "linear").maximum_leverage >= 1


def test_missing_and_empty_fields_of_an_instrument_take_defaults_and_a_closed_one_is_refused():
    row = {"symbol": "XUSDT", "priceFilter": {"tickSize": "0.5"}, "lotSizeFilter": {"qtyStep": "2", "minOrderQty": ""}}
    instrument = decode_instrument("XUSDT", row, "here", "linear")
    assert (instrument.tick_size, instrument.minimum_quantity) == (Decimal("0.5"), Decimal("2"))
    for bad in (
        {**row, "status": "Closed"},
        {**row, "priceFilter": {"tickSize": "NaN"}},
        {**row, "lotSizeFilter": None},
    ):
        with pytest.raises(VenueError, match="XUSDT"):
            decode_instrument("XUSDT", bad, "here", "linear")


def test_rows_are_read_tolerantly_but_a_row_without_a_time_is_an_error():
    rows = [["3600000", "1", "2", "0.5", "1.5", "9", "9"], ["0", "1", "", "x"], ["0", "1", "2", "1", "1", "3", "3"]]
    bars = decode_klines(rows, "X", "60", Calendar.CONTINUOUS, 2 * HOUR_MS, "here")
    assert [(bar.open_time, bar.close, bar.volume) for bar in bars] == [(0, 1.0, 3.0), (HOUR_MS, 1.5, 9.0)]
    broken = decode_klines(rows[1:2], "X", "60", Calendar.CONTINUOUS, 2 * HOUR_MS, "here")
    assert broken[0].high != broken[0].high
    for row in ([], [""], None, ["x"], 7):
        with pytest.raises(VenueError, match="no open time"):
            decode_klines([row], "X", "60", Calendar.CONTINUOUS, HOUR_MS, "here")


def test_windows_cover_a_span_once_with_at_most_a_page_each():
    windows = list(page_windows("60", 7, 7 + 2500 * HOUR_MS))
    assert windows[0] == (7, 6 + 1000 * HOUR_MS)
    assert windows[-1][1] == 6 + 2500 * HOUR_MS
    assert all(second[0] == first[1] + 1 for first, second in pairwise(windows))
    assert list(page_windows("60", 5, 5)) == []
