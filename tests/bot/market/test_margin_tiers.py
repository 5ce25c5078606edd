"""Margin tiers: read from the venue, kept on disk, and what replays and the sandbox make of them."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pybit.unified_trading import HTTP

from backtest.sandbox.clock import ClockSetting
from backtest.sandbox.market import SyntheticMarket
from backtest.sandbox.venue import SandboxVenue
from bot.assembly import home_of, instruments_of
from bot.config import load_config
from bot.errors import VenueError
from bot.execution.builtin import builtin_instrument
from bot.execution.instruments import MarginTier
from bot.market.bybit_decode import decode_margin_tiers
from bot.market.bybit_rest import BybitRest
from bot.market.margin_tiers import MarginTierStore
from bot.market.validation import DataError
from strategies.bars import HOUR_MS, Calendar
from tests.runs import make_candles, recall, span

START = 480_000 * HOUR_MS
RULES = builtin_instrument("BTCUSDT", Calendar.CONTINUOUS)
TIERS = (
    MarginTier(Decimal(2_000_000), Decimal("0.005")),
    MarginTier(Decimal(10_000_000), Decimal("0.01"), Decimal(10_000)),
)


def row(limit: str, maintenance: str, initial: str, leverage: str, deduction: str = "") -> dict[str, Any]:
    return {
        "id": 1, "symbol": "BTCUSDT", "riskLimitValue": limit, "maintenanceMargin": maintenance,
        "initialMargin": initial, "isLowestRisk": 1, "maxLeverage": leverage, "mmDeduction": deduction,
    }  # fmt: skip


def test_rates_are_fractions_whether_the_venue_tells_fractions_or_percentages() -> None:
    fractions = [row("10000000", "0.01", "0.02", "50.00", "10000"), row("2000000", "0.005", "0.01", "100.00")]
    percentages = [row("2000000", "0.5", "1", "100.00"), row("10000000", "1", "2", "50.00", "10000")]
    assert decode_margin_tiers(fractions, "BTCUSDT", "here") == TIERS
    assert decode_margin_tiers(percentages, "BTCUSDT", "here") == TIERS
    other = {**percentages[0], "symbol": "ETHUSDT"}
    assert decode_margin_tiers([other], "BTCUSDT", "here") == ()


@pytest.mark.parametrize("name", ["riskLimitValue", "maintenanceMargin"])
def test_a_tier_without_a_limit_or_a_rate_is_refused(name: str) -> None:
    with pytest.raises(VenueError, match="sent a margin tier of BTCUSDT that cannot be read"):
        decode_margin_tiers([{**row("2000000", "0.005", "0.01", "100"), name: ""}], "BTCUSDT", "here")


def test_the_venue_tells_tiers_with_its_rules_and_pybit_reads_them() -> None:
    rules = msgspec.structs.replace(RULES, margin_tiers=TIERS)
    market = SyntheticMarket(5, "BTCUSDT", "60")

    async def ask() -> tuple[Any, Any, Any]:
        clock = ClockSetting.stepped()
        async with SandboxVenue({"BTCUSDT": market}, "60", clock, start=START, instruments={"BTCUSDT": rules}) as venue:
            rest, session = BybitRest(venue.rest_url), HTTP(testnet=True)
            session.endpoint = venue.rest_url
            try:
                told = await rest.instruments(["BTCUSDT"])
                page = await asyncio.to_thread(rest.margin_tiers_page, "BTCUSDT")
                raw = await asyncio.to_thread(session.get_risk_limit, category="linear", symbol="BTCUSDT")
                with pytest.raises(VenueError, match="margin tiers of NONEUSDT"):
                    await asyncio.to_thread(rest.margin_tiers_page, "NONEUSDT")
                return told, page, raw
            finally:
                rest.close()

    told, page, raw = asyncio.run(ask())
    assert told["BTCUSDT"].margin_tiers == page == TIERS
    assert [each["mmDeduction"] for each in raw["result"]["list"]] == ["", "10000"]


def test_tiers_that_were_fetched_come_with_the_rules_of_replays_and_not_of_the_spot_market(tmp_path: Path) -> None:
    config = load_config(None, overrides=[f"storage.data_dir={tmp_path}"], environment={})
    home = home_of(config)
    calendars = {"BTCUSDT": Calendar.CONTINUOUS}
    assert home.margin_tiers.load() == {}
    home.margin_tiers.keep({"BTCUSDT": TIERS})
    home.margin_tiers.keep({"ETHUSDT": TIERS[:1]})
    stored = home.margin_tiers.load()
    assert stored == {"BTCUSDT": TIERS, "ETHUSDT": TIERS[:1]}
    assert instruments_of(config, ("BTCUSDT",), calendars, tiers=stored)["BTCUSDT"].margin_tiers == TIERS
    venue = {"BTCUSDT": msgspec.structs.replace(RULES, margin_tiers=TIERS[:1])}
    assert instruments_of(config, ("BTCUSDT",), calendars, venue, stored)["BTCUSDT"].margin_tiers == TIERS[:1]
    spot = config.changed({"market": {"category": "spot"}}, "a test")
    assert instruments_of(spot, ("BTCUSDT",), calendars, tiers=stored)["BTCUSDT"].margin_tiers == ()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "margin_tiers.json"
    path.write_text("{")
    with pytest.raises(DataError, match=r"margin tiers .*margin_tiers.json are damaged .*; delete the file"):
        MarginTierStore(path).load()


def test_a_replay_liquidates_by_the_tiers_that_were_fetched(tmp_path: Path) -> None:
    """Tiers that ask for nearly all of the margin liquidate where the rate for unknown symbols does not."""
    make_candles(tmp_path, ("BTCUSDT",), 500)
    cross = (
        "--symbols", "BTCUSDT", "--interval", "60", "--strategy", "sma_cross", "--no-plot", "--verdict", "none",
        "--set", "fills.leverage=5", "--set", "risk.stop_loss=0", "--set", "risk.daily_loss_limit=0", *span(100, 500),
    )  # fmt: skip
    before = recall(tmp_path, "backtest", *cross)
    MarginTierStore(tmp_path / "margin_tiers.json").keep({"BTCUSDT": (MarginTier(Decimal(1), Decimal("0.195")),)})
    after = recall(tmp_path, "backtest", *cross)
    assert after["trades_sha256"] != before["trades_sha256"]
    assert after["trades"] > before["trades"]


@pytest.mark.parametrize("more", [("--funding",), ("--source", "yfinance"), ("--source", "file", "x.csv")])
def test_tiers_come_from_the_venue_alone(tmp_path: Path, more: tuple[str, ...]) -> None:
    recall(tmp_path, "fetch", "--margin-tiers", "--symbols", "BTCUSDT", *more, expect=2)
    recall(tmp_path, "fetch", "--margin-tiers", "--set", "market.category=spot", expect=2)
