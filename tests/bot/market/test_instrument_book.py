"""Trading rules: asked for daily, what changed is said, and those from before serve while the venue is silent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backtest.sandbox.venue import SandboxVenue
from bot.errors import VenueError
from bot.execution.instruments import Instrument
from bot.market.backoff import Backoff
from bot.market.bybit_rest import BybitRest
from bot.market.instrument_book import REFRESH_MS, RETRY_MS, InstrumentBook, Rulebook
from strategies.bars import HOUR_MS
from tests.backtest.sandbox.client import KEY, RULES, bars_of, client_of, level, trading_venue
from tests.bot.market.scenes import T0

DAY = 24 * HOUR_MS
Look = Callable[[int], Awaitable[Rulebook]]


def talk(
    folder: Path, venue: SandboxVenue, story: Callable[[Look], Awaitable[Any]], symbols: Sequence[str] = ("BTCUSDT",)
) -> Any:
    async def run() -> Any:
        async with venue:
            rest = BybitRest(venue.rest_url, attempts=1, backoff=Backoff(0.01, 0.01, 0.01))
            try:
                return await story(lambda now: InstrumentBook(folder / "instruments.json").refresh(rest, symbols, now))
            finally:
                rest.close()

    return asyncio.run(run())


def test_a_minimum_that_rose_overnight_is_said_and_orders_below_it_are_refused_from_then_on(tmp_path: Path) -> None:
    venue = trading_venue()

    async def run() -> Any:
        async with client_of(venue) as client:
            rest = BybitRest(venue.rest_url)
            book = InstrumentBook(tmp_path / "instruments.json")
            try:
                await book.refresh(rest, ["BTCUSDT"], T0)
                before = await client.order("Buy", "0.06")
                venue.change_rules(msgspec.structs.replace(RULES, minimum_notional=Decimal(10)))
                after = await client.order("Buy", "0.06")
                return before, after, await book.refresh(rest, ["BTCUSDT"], T0 + DAY)
            finally:
                rest.close()

    before, after, seen = asyncio.run(run())
    assert (before["retCode"], after["retCode"]) == (0, 110094)
    assert [str(change) for change in seen.changes] == ["minimum_notional of BTCUSDT was 5 and is 10"]
    assert seen.instruments["BTCUSDT"].minimum_notional == 10


def test_rules_from_before_the_start_serve_while_the_venue_is_silent_and_say_how_old_they_are(tmp_path: Path) -> None:
    venue = trading_venue()

    async def story(look: Look) -> Any:
        first = await look(T0)
        venue.fail_requests(1, status=503)
        return first, await look(T0 + 5 * HOUR_MS)

    told, recalled = talk(tmp_path, venue, story)
    assert recalled.instruments == told.instruments
    assert "503" in recalled.failure
    assert recalled.age_ms(T0 + 5 * HOUR_MS) == 5 * HOUR_MS
    assert (told.failure, told.age_ms(T0), told.changes) == ("", 0, ())


def test_without_rules_from_before_a_silent_venue_is_an_error(tmp_path: Path) -> None:
    venue = trading_venue()

    async def story(look: Look) -> Any:
        venue.fail_requests(1, status=503)
        return await look(T0)

    with pytest.raises(VenueError, match="no trading rules of BTCUSDT are kept"):
        talk(tmp_path, venue, story)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"endpoint":"x","instruments":{},"told_at":{}}'])
def test_a_file_that_is_damaged_or_of_another_host_is_not_believed_and_is_written_anew(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "instruments.json"
    path.write_bytes(content)
    assert talk(tmp_path, trading_venue(), lambda look: look(T0)).changes == ()
    assert path.read_bytes() != content
    assert [file.name for file in tmp_path.iterdir()] == ["instruments.json"]


def test_a_symbol_that_is_gone_is_said_and_its_rules_stay_for_closing_what_is_held(tmp_path: Path) -> None:
    both = ("BTCUSDT", "ETHUSDT")
    rules = {symbol: msgspec.structs.replace(RULES, symbol=symbol) for symbol in both}
    series = [level(100.0), bars_of(*[(100.0,) * 4] * 12, symbol="ETHUSDT")]

    async def run() -> Any:
        book = InstrumentBook(tmp_path / "instruments.json")
        first = trading_venue(*series, rules=rules)
        async with first:
            port = int(first.rest_url.rpartition(":")[2])
            rest = BybitRest(first.rest_url, attempts=3, backoff=Backoff(0.05, 0.05, 0.05))
            known = await book.refresh(rest, both, T0)
        second = trading_venue(level(100.0))
        await second.start(port)
        try:
            return known, await book.refresh(rest, both, T0 + DAY)
        finally:
            rest.close()
            await second.stop()

    known, seen = asyncio.run(run())
    assert seen.instruments == known.instruments
    assert list(seen.closed) == ["ETHUSDT"]
    assert "unknown" in seen.closed["ETHUSDT"]
    assert seen.age_ms(T0 + DAY) == DAY, "of the symbol that the venue no longer tells"


def test_a_symbol_that_nobody_ever_knew_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(VenueError, match="NOPEUSDT"):
        talk(tmp_path, trading_venue(), lambda look: look(T0), symbols=("BTCUSDT", "NOPEUSDT"))


def test_the_next_look_is_a_day_after_an_answer_and_minutes_after_a_failure(tmp_path: Path) -> None:
    venue = trading_venue()

    async def run() -> Any:
        async with venue:
            rest = BybitRest(venue.rest_url, attempts=1)
            book = InstrumentBook(tmp_path / "instruments.json")
            due = [book.is_due(T0)]
            try:
                await book.refresh(rest, ["BTCUSDT"], T0)
                due += [book.is_due(T0 + REFRESH_MS - 1), book.is_due(T0 + REFRESH_MS)]
                venue.fail_requests(1, status=502)
                await book.refresh(rest, ["BTCUSDT"], T0 + REFRESH_MS)
                due += [book.is_due(T0 + REFRESH_MS + RETRY_MS - 1), book.is_due(T0 + REFRESH_MS + RETRY_MS)]
            finally:
                rest.close()
            return due

    assert asyncio.run(run()) == [True, False, True, False, True]


def test_the_venue_changes_no_tick_while_orders_lie_on_it() -> None:
    venue = trading_venue(keys=(KEY,))
    with pytest.raises(ValueError, match="tick and lot"):
        venue.change_rules(msgspec.structs.replace(RULES, tick_size=Decimal("0.5")))
    with pytest.raises(ValueError, match="NOPE"):
        venue.change_rules(Instrument("NOPE"))
