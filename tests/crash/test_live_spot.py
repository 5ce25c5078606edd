"""``recall live`` on the spot market of a sandbox: killed, taken up again, and held against the wallet."""

from __future__ import annotations

import asyncio
import json
import random
from decimal import Decimal
from pathlib import Path

import pytest

from bot.execution.bybit.client import BybitAccount, Credentials
from bot.execution.bybit.decode import VenueExecution, VenueOrder
from bot.market.backoff import Backoff
from bot.orders import Order, Side, Verdict, is_guard
from strategies.bars import DAY_MS
from tests.crash.test_live_kills import rows, sandbox_process, start_live, step, trade_until
from tests.runs import recall

SPOT = ("--set", "market.category=spot", "--strategy", "tests.bot.cli.strategies:TurnsRound")


def at_venue(url: str, *orders: Order) -> tuple[list[VenueExecution], dict[str, Decimal], list[VenueOrder]]:
    """Fills, coins and open orders of the account, after some orders of somebody else."""

    async def ask() -> tuple[list[VenueExecution], dict[str, Decimal], list[VenueOrder]]:
        account = BybitAccount(Credentials("sandbox", "sandbox"), url, backoff=Backoff(first_s=0.01), category="spot")
        try:
            await account.synchronise()
            for order in orders:
                assert (await account.send(order)).is_accepted
            now = account.stamp()
            fills = await account.executions(now - 7 * DAY_MS + 60_000)
            return fills, (await account.wallet()).coins, await account.open_orders()
        finally:
            account.close()

    return asyncio.run(ask())


def test_a_spot_run_that_is_killed_holds_what_the_wallet_holds_and_never_sells_short(tmp_path: Path) -> None:
    rng = random.Random(5)
    theirs = Order("somebody", "BTCUSDT", Side.BUY, Decimal("0.013"), 0, 0)
    with sandbox_process(tmp_path) as url:
        step(url)
        _, before, _ = at_venue(url, theirs)
        for _ in range(2):
            process = start_live(tmp_path, url, *SPOT)
            trade_until(tmp_path, url, process, 8, rng)
            process.kill()
            process.wait()
        process = start_live(tmp_path, url, *SPOT, "--max-bars", "20")
        trade_until(tmp_path, url, process, None, rng)
        assert process.wait(60) == 0, (tmp_path / "output.log").read_text()[-3000:]
        fills, coins, still_open = at_venue(url)
    assert len(rows(tmp_path, "SELECT run_id FROM runs")) == 1, "a restart began another run"
    check_guards(tmp_path, coins, still_open, {"BTC": before["BTC"]})
    journalled = rows(tmp_path, "SELECT execution_id, symbol, side, quantity, price, withheld, fee FROM executions")
    ours = {fill.execution_id: fill for fill in fills if fill.client_order_id != "somebody"}
    assert {row[0] for row in journalled} == set(ours) and len(ours) >= 4
    held = {"BTC": before["BTC"], "ETH": Decimal(0)}
    cash = before["USDT"]
    for name, symbol, side, quantity, price, withheld, fee in journalled:
        fill, coin = ours[name], symbol.removesuffix("USDT")
        if side == "buy":
            assert fill.fee_coin == coin and Decimal(withheld) == fill.fee
            held[coin] += Decimal(quantity) - fill.fee
            cash -= Decimal(quantity) * Decimal(price)
        else:
            assert fill.fee_coin == "USDT" and withheld is None and Decimal(fee) == fill.fee
            held[coin] -= Decimal(quantity)
            cash += Decimal(quantity) * Decimal(price) - fill.fee
    assert {coin: amount for coin, amount in held.items() if amount} == {
        coin: amount for coin, amount in coins.items() if coin != "USDT" and amount
    }
    assert cash == coins["USDT"]
    assert min(held.values()) >= 0
    verdicts = ",".join(row[0] for row in rows(tmp_path, "SELECT verdicts FROM decisions"))
    assert Verdict.LONG_ONLY in verdicts and Verdict.FOREIGN not in verdicts
    sold = [row for row in journalled if row[2] == "sell"]
    trades = rows(tmp_path, "SELECT symbol FROM trades")
    assert len(trades) == len(sold) > 0, "dust keeps round trips open"
    report = recall(tmp_path, "audit", "latest")
    assert report["differences"] == 0 and report["fills"] == len(journalled), report


def check_guards(
    tmp_path: Path, coins: dict[str, Decimal], still_open: list[VenueOrder], outside: dict[str, Decimal]
) -> None:
    """Whole lots of every coin of the run's are held by one stop loss, whose id the journal has."""
    written = {row[0] for row in rows(tmp_path, "SELECT client_order_id FROM orders")}
    assert all(is_guard(order.client_order_id) and order.client_order_id in written for order in still_open)
    guarded = {order.symbol.removesuffix("USDT"): order.quantity for order in still_open}
    assert len(guarded) == len(still_open), "coins have two stop losses"
    for coin in set(coins) - {"USDT"}:
        rest = coins[coin] - outside.get(coin, Decimal(0)) - guarded.get(coin, Decimal(0))
        assert 0 <= rest < Decimal("0.01"), f"{rest} {coin} are bare"


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, 25])
def test_stop_losses_of_a_spot_run_survive_sigkill_and_sell_what_they_hold(tmp_path: Path, kills: int) -> None:
    """Stops so near that many are reached, some of them while nobody is there."""
    near = ("--set", "market.category=spot", "--set", "risk.stop_loss=0.0005")
    rng = random.Random(kills)
    with sandbox_process(tmp_path) as url:
        for _ in range(kills):
            process = start_live(tmp_path, url, *near)
            trade_until(tmp_path, url, process, rng.randrange(3, 12), rng)
            process.kill()
            process.wait()
            for _ in range(rng.randrange(4)):
                step(url)
        process = start_live(tmp_path, url, *near, "--max-bars", "40")
        trade_until(tmp_path, url, process, None, rng)
        assert process.wait(60) == 0, (tmp_path / "output.log").read_text()[-3000:]
        fills, coins, still_open = at_venue(url)
    check_guards(tmp_path, coins, still_open, {})
    journalled = {
        row[0]: row[1:] for row in rows(tmp_path, "SELECT execution_id, kind, client_order_id FROM executions")
    }
    assert set(journalled) == {fill.execution_id for fill in fills}
    stops = [name for kind, name in journalled.values() if kind == "stop_loss"]
    assert stops and all(is_guard(name) for name in stops)
    statuses = dict(rows(tmp_path, "SELECT client_order_id, status FROM orders"))
    assert {statuses[name] for name in stops} <= {"filled", "cancelled"}
    report = recall(tmp_path, "audit", "latest")
    assert report["differences"] == 0 and report["fills"] == len(journalled), report


def test_it_starts_with_stop_losses_and_without_them_only_where_that_is_accepted_by_name(tmp_path: Path) -> None:
    """On the sandbox inside the command, whose instruments are those of the spot market."""
    market = ("--venue", "sandbox", "--symbols", "BTCUSDT", "--interval", "15", "--set", "sandbox.history_bars=400")
    recall(tmp_path, "live", *market, *SPOT, "--set", "risk.stop_loss=0", "--max-bars", "12", expect=2)
    result = recall(
        tmp_path, "live", *market, *SPOT, "--set", "strategy.parameters.bars=2", "--max-bars", "12"
    )  # fmt: skip
    assert result["trades"] >= 2 and result["decisions"] == 12
    assert rows(tmp_path, "SELECT count(*) FROM executions WHERE withheld IS NOT NULL")[0][0] >= 2
    assert recall(tmp_path, "audit", "latest")["differences"] == 0


def test_paper_on_the_spot_market_is_long_only_pays_no_funding_and_the_audit_finds_nothing(tmp_path: Path) -> None:
    result = recall(
        tmp_path, "paper", "--venue", "sandbox", "--symbols", "BTCUSDT", "--interval", "60", *SPOT,
        "--set", "strategy.parameters.bars=3", "--set", "costs.taker_fee=0.001", "--max-bars", "40",
    )  # fmt: skip
    assert result["trades"] > 3
    assert not rows(tmp_path, "SELECT payload FROM events WHERE kind = 'funding'")
    decided = [row[0] for row in rows(tmp_path, "SELECT payload FROM decisions")]
    assert all(Decimal(json.loads(text)["position"]) >= 0 for text in decided)
    assert any("long_only" in text for text in decided)
    assert (tmp_path / "sandbox").exists() and list((tmp_path / "sandbox").glob("*/spot/candles"))
    assert recall(tmp_path, "audit", "latest")["differences"] == 0
