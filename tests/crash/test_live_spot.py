"""``recall live`` on the spot market of a sandbox: killed, taken up again, and held against the wallet."""

from __future__ import annotations

import asyncio
import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

from bot.execution.bybit.client import BybitAccount, Credentials
from bot.execution.bybit.decode import VenueExecution
from bot.market.backoff import Backoff
from bot.orders import Order, Side, Verdict
from strategies.bars import DAY_MS
from tests.crash.test_live_kills import rows, sandbox_process, start_live, step, trade_until
from tests.runs import recall

SPOT = (
    "--set", "market.category=spot", "--set", "live.require_stop_loss=false",
    "--strategy", "tests.bot.cli.strategies:TurnsRound",
)  # fmt: skip


def at_venue(url: str, *orders: Order) -> tuple[list[VenueExecution], dict[str, Decimal], int]:
    """Fills, coins and the number of open orders of the account, after some orders of somebody else."""

    async def ask() -> tuple[list[VenueExecution], dict[str, Decimal], int]:
        account = BybitAccount(Credentials("sandbox", "sandbox"), url, backoff=Backoff(first_s=0.01), category="spot")
        try:
            await account.synchronise()
            for order in orders:
                assert (await account.send(order)).is_accepted
            now = account.stamp()
            fills = await account.executions(now - 7 * DAY_MS + 60_000)
            return fills, (await account.wallet()).coins, len(await account.open_orders())
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
    assert still_open == 0
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
    assert not any("stop" in str(row) for row in told(tmp_path)), "a stop was set that the venue has not"
    report = recall(tmp_path, "audit", "latest")
    assert report["differences"] == 0 and report["fills"] == len(journalled), report


def test_it_starts_only_where_the_lack_of_stop_losses_is_accepted_by_name(tmp_path: Path) -> None:
    """On the sandbox inside the command, whose instruments are those of the spot market."""
    market = ("--venue", "sandbox", "--symbols", "BTCUSDT", "--interval", "15", "--set", "sandbox.history_bars=400")
    recall(tmp_path, "live", *market, *SPOT[:2], *SPOT[4:], "--max-bars", "12", expect=2)
    result = recall(
        tmp_path, "live", *market, *SPOT, "--set", "strategy.parameters.bars=2", "--max-bars", "12"
    )  # fmt: skip
    assert result["trades"] >= 2 and result["decisions"] == 12
    assert rows(tmp_path, "SELECT count(*) FROM executions WHERE withheld IS NOT NULL")[0][0] >= 2
    assert recall(tmp_path, "audit", "latest")["differences"] == 0


def told(tmp_path: Path) -> list[Any]:
    """Alarms of the run."""
    events = [json.loads(row[0]) for row in rows(tmp_path, "SELECT payload FROM events")]
    return [event["text"] for event in events if event.get("kind") == "alarm"]


def test_paper_on_the_spot_market_is_long_only_pays_no_funding_and_the_audit_finds_nothing(tmp_path: Path) -> None:
    result = recall(
        tmp_path, "paper", "--venue", "sandbox", "--symbols", "BTCUSDT", "--interval", "60", *SPOT[:2], *SPOT[4:],
        "--set", "strategy.parameters.bars=3", "--set", "costs.taker_fee=0.001", "--max-bars", "40",
    )  # fmt: skip
    assert result["trades"] > 3
    assert not rows(tmp_path, "SELECT payload FROM events WHERE kind = 'funding'")
    decided = [row[0] for row in rows(tmp_path, "SELECT payload FROM decisions")]
    assert all(Decimal(json.loads(text)["position"]) >= 0 for text in decided)
    assert any("long_only" in text for text in decided)
    assert (tmp_path / "sandbox").exists() and list((tmp_path / "sandbox").glob("*/spot/candles"))
    assert recall(tmp_path, "audit", "latest")["differences"] == 0
