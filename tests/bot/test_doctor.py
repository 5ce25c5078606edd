"""The doctor against a sandbox: each thing that is not well is named with its fix."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from backtest.sandbox.keys import TRADER, ApiKey
from backtest.sandbox.records import PositionMode
from bot.assembly import home_of
from bot.cli.app import recall
from bot.config import load_config
from bot.doctor import Check, examine, key_checks
from bot.errors import ExitCode
from bot.execution.bybit.client import BybitAccount, Credentials
from bot.market.backoff import Backoff
from bot.market.bybit_rest import BybitRest
from tests.backtest.sandbox.client import KEY, trading_venue
from tests.backtest.sandbox.threaded import threaded
from tests.bot.market.scenes import T0

WITHDRAWING = ApiKey("trader", "trader-secret", {**TRADER, "Wallet": ("AccountTransfer", "Withdraw")})
NOW = datetime.fromtimestamp(T0 / 1000, UTC)


def examined(folder: Path, *overrides: str, key: ApiKey = KEY, ahead_ms: int = 0, **account: Any) -> dict[str, Check]:
    config = load_config(
        overrides=[f"storage.data_dir={folder}", "venue.name=sandbox", "strategy.name=buy_and_hold", *overrides],
        environment={},
    )

    async def run() -> list[Check]:
        async with trading_venue(keys=(key,), **account) as venue:
            rest = BybitRest(venue.rest_url)
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
