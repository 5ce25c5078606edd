"""Cross margin at the sandbox: the account stands for all positions, and loses them together."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec

from backtest.sandbox.venue import SandboxVenue
from bot.execution.fills import PLAIN, MarginMode
from strategies.bars import BarSeries
from tests.backtest.sandbox.client import RULES, Client, bars_of, trading_venue
from tests.backtest.sandbox.test_orders import play

CROSS = replace(PLAIN, margin=MarginMode.CROSS, maintenance_rate=Decimal("0.01"))
STILL = [(100.0, 100.0, 100.0, 100.0)] * 3


def venue_of(*bitcoin: tuple[float, float, float, float]) -> SandboxVenue:
    """Bitcoin does as it is told, ether stays where it is; an account of 1,000."""
    ether: BarSeries = bars_of(*STILL, symbol="ETHUSDT")
    rules = {name: msgspec.structs.replace(RULES, symbol=name) for name in ("BTCUSDT", "ETHUSDT")}
    return trading_venue(bars_of(*bitcoin), ether, rules=rules, fills=CROSS, balance=Decimal(1_000))


async def hold(client: Client) -> Any:
    """45 bitcoin and 5 ether at 100, with an order that waits, over one bar: what is left, and how it went."""
    await client.placed("Buy", "45")
    await client.placed("Buy", "5", symbol="ETHUSDT")
    waiting = await client.placed("Buy", "1", "50", symbol="ETHUSDT")
    await client.venue.step()
    fills = (await client.get("execution/list", category="linear", execType="BustTrade"))["result"]["list"]
    sizes = [(await client.position(symbol))["size"] for symbol in ("BTCUSDT", "ETHUSDT")]
    return sizes, {(each["symbol"], each["execPrice"]) for each in fills}, (await client.shown(waiting))["cancelType"]


def test_the_account_stands_for_its_positions_with_all_it_has() -> None:
    """At 79 they have lost 945 of 997, and need a hundredth of 4,055."""
    sizes, fills, _ = play(venue_of((100, 100, 79, 90), *STILL[1:]), hold)
    assert (sizes, fills) == (["45.000", "5.000"], set())


def test_where_its_margin_is_gone_all_positions_go_and_what_waits_is_cancelled() -> None:
    """At 78 they have lost 990."""
    sizes, fills, cancelled = play(venue_of((100, 100, 78, 90), *STILL[1:]), hold)
    assert fills == {("BTCUSDT", "78.0"), ("ETHUSDT", "100.0")}
    assert sizes == ["0", "0"] and cancelled == "CancelByPrepareLiq"


def test_a_stop_that_comes_first_keeps_the_account_alive() -> None:
    async def guarded(client: Client) -> Any:
        await client.placed("Buy", "45", stopLoss="90")
        await client.venue.step()
        fills = (await client.get("execution/list", category="linear"))["result"]["list"]
        return [(each["execType"], each["execPrice"]) for each in fills]

    assert play(venue_of((100, 100, 70, 90), *STILL[1:]), guarded) == [("Trade", "90.0"), ("Trade", "100.0")]
