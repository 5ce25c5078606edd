"""The doctor against a sandbox: each thing that is not well is named with its fix."""

from __future__ import annotations

import asyncio
import json
import shutil
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from backtest.sandbox.keys import TRADER, ApiKey
from backtest.sandbox.market import SyntheticMarket
from backtest.sandbox.records import PositionMode
from bot.assembly import build_strategy, home_of
from bot.cli.app import recall
from bot.config import load_config
from bot.doctor import Check, examine
from bot.doctor.account import key_checks, margin_check, orders_check
from bot.doctor.stored import candle_check, memory_check
from bot.errors import ExitCode
from bot.execution.bybit.client import BybitAccount, Credentials
from bot.execution.bybit.decode import VenueOrder, VenueOrderStatus
from bot.journal import Journal
from bot.market.backoff import Backoff
from bot.market.bybit_rest import BybitRest
from bot.orders import Side
from strategies.bars import DAY_MS, HOUR_MS
from tests.backtest.sandbox.client import KEY, trading_venue
from tests.backtest.sandbox.threaded import threaded
from tests.bot.market.scenes import T0
from tests.models import config_of, paper_arguments, train_tiny
from tests.runs import BEGIN, journal_connection, make_candles, span
from tests.runs import recall as run_recall

WITHDRAWING = ApiKey("trader", "trader-secret", {**TRADER, "Wallet": ("AccountTransfer", "Withdraw")})
NOW = datetime.fromtimestamp(T0 / 1000, UTC)


def examined(folder: Path, *overrides: str, key: ApiKey = KEY, ahead_ms: int = 0, **account: Any) -> dict[str, Check]:
    config = load_config(
        overrides=[f"storage.data_dir={folder}", "venue.name=sandbox", "strategy.name=buy_and_hold", *overrides],
        environment={},
    )

    async def run() -> list[Check]:
        async with trading_venue(keys=(key,), **account) as venue:
            rest = BybitRest(venue.rest_url, category=config.market.category)
            client = BybitAccount(
                Credentials(key.key, key.secret),
                venue.rest_url,
                backoff=Backoff(first_s=0.01, base_s=0.01, limit_s=0.01),
                wall_ms=lambda: T0 + ahead_ms,
            )
            try:
                return await examine(config, home_of(config), rest, client, NOW)
            finally:
                rest.close()
                client.close()

    return {check.name: check for check in asyncio.run(run())}


def test_what_is_well_is_said_to_be_well(tmp_path: Path) -> None:
    found = examined(tmp_path, "market.symbols=BTCUSDT", "strategy.name=sma_cross")
    bad = [name for name, check in found.items() if not check.good]
    assert bad == ["candles of BTCUSDT"]
    assert "recall fetch" in found["candles of BTCUSDT"].fix
    assert found["balance"].found == "10000 USDT"


def test_the_spot_market_needs_its_own_right_and_has_neither_leverage_nor_position_mode(tmp_path: Path) -> None:
    contracts_only = ApiKey("trader", "trader-secret", {**TRADER, "Spot": ()})
    spot = ("market.symbols=BTCUSDT", "market.category=spot")
    bad = examined(tmp_path, *spot, key=contracts_only, mode=PositionMode.HEDGE)
    good = examined(tmp_path, *spot, mode=PositionMode.HEDGE)
    assert not bad["key may trade"].good and "spot" in bad["key may trade"].fix
    assert good["key may trade"].good
    assert not [name for name in good if name.startswith(("leverage", "position"))]
    assert "leverage" not in good["symbol BTCUSDT"].found
    assert good["orders of BTCUSDT"].good and good["orders of BTCUSDT"].found == "none"


def test_open_orders_of_a_pair_are_named_and_stop_losses_of_a_run_told_from_those_of_others() -> None:
    stop = VenueOrder(
        *("v", "abcdef-BTCUSDT-stop1", "BTCUSDT", Side.SELL, VenueOrderStatus.UNTRIGGERED, Decimal(2), Decimal(0)),
        *(None, "", 1, "tpslOrder", Decimal(95)),
    )
    theirs = msgspec.structs.replace(stop, client_order_id="mine")
    elsewhere = msgspec.structs.replace(theirs, symbol="ETHUSDT")
    well = orders_check("BTCUSDT", [stop, elsewhere])
    assert well.good and well.found == "a stop loss of 2 at 95"
    bad = orders_check("BTCUSDT", [stop, theirs])
    assert not bad.good and "1 open of somebody else" in bad.found and "cancel" in bad.fix


def test_a_bad_clock_a_withdrawing_key_a_wrong_mode_and_a_missing_symbol_are_named_each_with_its_fix(
    tmp_path: Path,
) -> None:
    found = examined(
        tmp_path, "market.symbols=BTCUSDT,NOSUCHUSDT", key=WITHDRAWING, ahead_ms=900, mode=PositionMode.HEDGE
    )
    fixes = {name: check.fix for name, check in found.items() if not check.good}
    assert "clock" in fixes["clock"]
    assert "withdraw" in fixes["key may not withdraw"]
    assert "one-way" in fixes["position mode of BTCUSDT"]
    assert "market.symbols" in fixes["symbol NOSUCHUSDT"]
    assert all(check.fix for check in found.values() if not check.good)
    assert not any(check.fix for check in found.values() if check.good)


def test_the_table_names_each_with_its_fix_too(tmp_path: Path) -> None:
    venue = trading_venue(keys=(WITHDRAWING,), mode=PositionMode.HEDGE)
    with threaded(venue):
        words = ["doctor", "--symbols", "BTCUSDT,NOSUCHUSDT"]
        for setting in (f"storage.data_dir={tmp_path}", f"venue.sandbox_url={venue.rest_url}", "venue.name=sandbox"):
            words += ["--set", setting]
        keys = {"RECALL_LIVE__API_KEY": KEY.key, "RECALL_LIVE__API_SECRET": KEY.secret}
        result = CliRunner().invoke(recall, words, env={**keys, "COLUMNS": "300"})
    told = {line.split("  ")[0].strip(" │|"): line for line in result.stdout.splitlines()}
    for name, fix in (
        ("clock", "set this machine's clock"),
        ("key may not withdraw", "make a key"),
        ("position mode of BTCUSDT", "switch the position"),
        ("symbol NOSUCHUSDT", "take it out"),
        ("model", "start recall paper"),
    ):
        assert "bad" in told[name], name
        assert fix in told[name], name
    assert "good" in told["key may trade"]


def test_a_withdrawing_key_is_allowed_by_name_only(tmp_path: Path) -> None:
    found = examined(tmp_path, "market.symbols=BTCUSDT", "live.allow_withdrawal_key=true", key=WITHDRAWING)
    assert found["key may not withdraw"].good


def test_low_leverage_and_an_empty_account_are_named(tmp_path: Path) -> None:
    found = examined(tmp_path, "market.symbols=BTCUSDT", "risk.max_leverage=5", leverage=Decimal(2), balance=Decimal(0))
    assert "risk.max_leverage" in found["leverage of BTCUSDT"].fix
    assert "USDT" in found["balance"].fix


def test_a_key_that_ends_within_a_week_or_may_only_look_is_named() -> None:
    soon = (NOW + timedelta(days=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = {"readOnly": 1, "permissions": {"ContractTrade": ["Order", "Position"]}, "expiredAt": soon}
    assert [check.good for check in key_checks(told, NOW, allow_withdrawal=False)] == [False, True, False]
    told = {"readOnly": 0, "permissions": {"ContractTrade": ["Order", "Position"]}, "expiredAt": "1970-01-01T00:00:00Z"}
    assert all(check.good for check in key_checks(told, NOW, allow_withdrawal=False))


def test_the_command_answers_in_json_without_the_secret_and_fails_where_something_is_bad(tmp_path: Path) -> None:
    venue = trading_venue()
    with threaded(venue):
        words = ["doctor", "--symbols", "BTCUSDT", "--json"]
        for setting in (
            f"storage.data_dir={tmp_path}",
            f"venue.sandbox_url={venue.rest_url}",
            "venue.name=sandbox",
            "strategy.name=buy_and_hold",
        ):
            words += ["--set", setting]
        result = CliRunner().invoke(
            recall, words, env={"RECALL_LIVE__API_KEY": KEY.key, "RECALL_LIVE__API_SECRET": KEY.secret}
        )
    told = json.loads(result.stdout)
    assert not told["good"], "the market's clock is another than this machine's"
    assert {check["name"] for check in told["checks"]} >= {"clock", "key may trade", "balance", "symbol BTCUSDT"}
    assert KEY.secret not in result.output
    assert result.exception is not None
    assert getattr(result.exception, "exit_code", None) is ExitCode.CHECK_FAILED


def test_without_a_key_the_rest_is_looked_at_and_the_key_is_named_with_its_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECALL_LIVE__API_KEY", raising=False)
    monkeypatch.delenv("RECALL_LIVE__API_SECRET", raising=False)
    venue = trading_venue()
    with threaded(venue):
        words = ["doctor", "--symbols", "BTCUSDT", "--venue", "sandbox", "--json"]
        for setting in (f"storage.data_dir={tmp_path}", f"venue.sandbox_url={venue.rest_url}"):
            words += ["--set", setting]
        result = CliRunner().invoke(recall, words)
    told = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert not told["key"]["good"] and "RECALL_LIVE__API_KEY" in told["key"]["fix"]
    assert told["symbol BTCUSDT"]["good"]
    assert "clock" in told
    assert getattr(result.exception, "exit_code", None) is ExitCode.CHECK_FAILED


def test_portfolio_margin_is_named_because_the_risk_limits_are_not_made_for_it() -> None:
    assert [margin_check(mode).good for mode in ("REGULAR_MARGIN", "ISOLATED_MARGIN")] == [True, True]
    found = margin_check("PORTFOLIO_MARGIN")
    assert not found.good
    assert "cross or isolated" in found.fix


def test_a_hole_in_the_candles_and_old_ones_are_named_each_with_its_fix(tmp_path: Path) -> None:
    config = load_config(overrides=[f"storage.data_dir={tmp_path}", "market.interval=60"], environment={})
    home = home_of(config)
    whole = SyntheticMarket(3, "BTCUSDT", "60").series(BEGIN, BEGIN + 50 * HOUR_MS)
    home.candles.append(whole.slice(0, 20), source="test")
    end = int(whole.close_time[-1])

    def seen(now: int | None) -> Check:
        return candle_check(config, home, "BTCUSDT", None, now)

    assert seen(None).good
    assert seen(BEGIN + 20 * HOUR_MS + 7 * DAY_MS).good
    old = seen(BEGIN + 20 * HOUR_MS + 8 * DAY_MS)
    assert (old.good, old.fix) == (False, "recall fetch --symbols BTCUSDT --interval 60")
    assert "8 days ago" in old.found
    home.candles.append(whole.slice(25, 50), source="test")
    holed = seen(end)
    assert "5 are missing" in holed.found
    assert holed.fix.startswith(f"delete {tmp_path}")


def test_a_memory_whose_keys_the_strategy_does_not_make_is_named_with_its_fix(tmp_path: Path) -> None:
    make_candles(tmp_path, ("BTCUSDT",), 400)
    overrides = [
        f"storage.data_dir={tmp_path}",
        "market.interval=60",
        "strategy.name=similarity",
        "memory.memory_size=200",
    ]
    config = load_config(overrides=overrides, environment={})
    home = home_of(config)
    strategy, _ = build_strategy(config, ("BTCUSDT",), "60", home.models)
    assert "no run" in memory_check(config, home, strategy).found
    assert not (tmp_path / "journal.sqlite").exists(), "looking changes nothing"
    paper = ("paper", "--symbols", "BTCUSDT", "--interval", "60", "--venue", "sandbox", "--set", "sandbox.source=store")
    settings = ("--strategy", "similarity", "--memory-size", "200", "--max-bars", "3")
    run_recall(tmp_path, *paper, *settings, *span(380, 400))
    known = memory_check(config, home, strategy)
    assert known.good
    assert "moments of run paper-" in known.found
    engine = journal_connection(tmp_path)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE memory_banks SET encoder_version = 'shape-0'"))
    engine.dispose()
    other = memory_check(config, home, strategy)
    assert not other.good
    assert "by encoder shape-0" in other.found
    assert "--new" in other.fix


def test_a_journal_of_a_newer_version_is_named(tmp_path: Path) -> None:
    config = load_config(overrides=[f"storage.data_dir={tmp_path}", "strategy.name=similarity"], environment={})
    Journal(config.journal_url, durable=False).close()
    engine = journal_connection(tmp_path)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE journal_format SET version = 999"))
    engine.dispose()
    strategy, _ = build_strategy(config, config.market.symbols, config.market.interval, home_of(config).models)
    found = memory_check(config, home_of(config), strategy)
    assert not found.good
    assert "update Recall" in found.found


@pytest.mark.slow
def test_a_run_goes_on_with_the_model_of_its_memory_which_has_to_be_there(tmp_path: Path) -> None:
    make_candles(tmp_path, ("BTCUSDT",), 700)
    first = train_tiny(tmp_path, 400)
    run_recall(tmp_path, *paper_arguments(first, 600, 700), "--max-bars", "3")
    config = config_of(tmp_path, "market.interval=60", "strategy.name=memory_transformer")
    home = home_of(config)

    def seen() -> Check:
        strategy, _ = build_strategy(config, ("BTCUSDT",), "60", home.models)
        return memory_check(config, home, strategy)

    known = seen()
    assert known.good
    assert first in known.found
    second = train_tiny(tmp_path, 500)
    newer = seen()
    assert newer.good
    assert "not the newest model" in newer.found
    shutil.rmtree(home.models / first)
    gone = seen()
    assert second not in gone.found
    assert not gone.good
    assert f"put model {first} back" in gone.fix
