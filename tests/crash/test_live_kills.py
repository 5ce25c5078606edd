"""SIGKILL of a live run at any moment: no order twice, no fill forgotten, and the account is what the journal says."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bot.execution.bybit.client import BybitAccount, Credentials
from bot.execution.bybit.decode import ExecutionType, VenueExecution, VenueOrder, VenuePosition
from bot.market.backoff import Backoff
from strategies.bars import DAY_MS
from tests.runs import journal_connection, recall

SYMBOLS = "BTCUSDT,ETHUSDT"
EVERY_BAR = (
    "--strategy", "tests.bot.cli.strategies:TakesTurns", "--set", "strategy.parameters.bars=3",
    "--set", "risk.stop_loss=0.01", "--set", "risk.daily_loss_limit=0", "--set", "live.reconcile_every=1",
)  # fmt: skip


@contextmanager
def sandbox_process(folder: Path, *arguments: str) -> Iterator[str]:
    """A venue that outlives the bot; gives its URL."""
    command = [
        sys.executable, "-c", "from bot.cli import main; main()", "sandbox", "--symbols", SYMBOLS, "--interval", "1",
        "--synthetic", "7", "--stepped", "--port", "0", "--json", "--set", f"storage.data_dir={folder}", *arguments,
    ]  # fmt: skip
    with (folder / "sandbox.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=folder)
    try:
        assert process.stdout is not None
        told = b""
        while not told.rstrip().endswith(b"}"):
            line = process.stdout.readline()
            assert line, (folder / "sandbox.log").read_text()
            told += line
        yield str(json.loads(told)["rest_url"])
    finally:
        process.kill()
        process.wait()


def start_live(
    data_dir: Path, url: str, *arguments: str, key: str = "sandbox", secret: str = "sandbox"
) -> subprocess.Popen[bytes]:
    """``recall live`` on that venue, in a process of its own."""
    command = [
        sys.executable, "-c", "from bot.cli import main; main()", "live", "--venue", "sandbox", "--symbols", SYMBOLS,
        "--interval", "1", *EVERY_BAR, *arguments, "--json", "--set", f"venue.sandbox_url={url}",
        "--set", f"storage.data_dir={data_dir}",
    ]  # fmt: skip
    environment = dict(
        os.environ,
        PYTHONPATH=str(Path(__file__).parents[2]),
        RECALL_LIVE__API_KEY=key,
        RECALL_LIVE__API_SECRET=secret,
        OMP_NUM_THREADS="1",
    )
    with (data_dir / "output.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=data_dir, env=environment)


def progress(data_dir: Path) -> int:
    """Events that are durable so far."""
    if not (data_dir / "journal.sqlite").exists():
        return 0
    engine = journal_connection(data_dir)
    try:
        with engine.connect() as connection:
            return int(connection.execute(sa.text("SELECT coalesce(max(sequence), 0) FROM states")).scalar_one())
    except sa.exc.OperationalError:
        return 0  # The tables are not there yet.
    finally:
        engine.dispose()


def step(url: str) -> None:
    """Let one minute of the market pass."""
    request = urllib.request.Request(f"{url}/control/step", data=b"", method="POST")
    urllib.request.urlopen(request, timeout=10).close()


def trade_until(
    data_dir: Path, url: str, process: subprocess.Popen[bytes], steps: int | None, rng: random.Random
) -> None:
    """Let the market go on once the run has begun to act, for so many minutes, or until it ends by itself."""
    pause = threading.Event()
    before = progress(data_dir)
    while process.poll() is None and progress(data_dir) <= before:
        pause.wait(0.01)
    done = 0
    while process.poll() is None and (steps is None or done < steps):
        step(url)
        done += 1
        pause.wait(rng.uniform(0.01, 0.1))


def kill_at_random(data_dir: Path, url: str, kills: int, seed: int) -> None:
    """Start the run and kill it, again and again, each time a random while after it has begun to act."""
    rng = random.Random(seed)
    for _ in range(kills):
        process = start_live(data_dir, url)
        trade_until(data_dir, url, process, rng.randrange(0, 12), rng)
        threading.Event().wait(rng.random() * 0.05)
        assert process.poll() is None, (data_dir / "output.log").read_text()[-3000:]
        process.kill()
        process.wait()


def account_of(url: str) -> tuple[list[VenueExecution], list[VenuePosition], list[VenueOrder], Decimal]:
    """All that the venue says of the account: fills, positions, open orders, USDT."""

    async def ask() -> tuple[list[VenueExecution], list[VenuePosition], list[VenueOrder], Decimal]:
        account = BybitAccount(Credentials("sandbox", "sandbox"), url, backoff=Backoff(first_s=0.01))
        try:
            await account.synchronise()
            now = time.time_ns() // 1_000_000 + account.clock.offset
            executions = await account.executions(now - 7 * DAY_MS + 60_000)
            wallet = (await account.wallet()).coins["USDT"]
            return executions, await account.positions(), await account.open_orders(), wallet
        finally:
            account.close()

    return asyncio.run(ask())


def rows(data_dir: Path, query: str) -> list[Any]:
    engine = journal_connection(data_dir)
    try:
        with engine.connect() as connection:
            return list(connection.execute(sa.text(query)))
    finally:
        engine.dispose()


def survive(tmp_path: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill a run so often, let it end well, and hold its journal against the venue; returns what the audit says."""
    with sandbox_process(tmp_path) as url:
        kill_at_random(tmp_path, url, kills, seed)
        process = start_live(tmp_path, url, "--max-bars", "60")
        trade_until(tmp_path, url, process, None, random.Random(seed))
        assert process.wait(60) == 0, (tmp_path / "output.log").read_text()[-3000:]
        fills, positions, open_orders, wallet = account_of(url)
    assert len(rows(tmp_path, "SELECT run_id FROM runs")) == 1, "a restart began another run"
    sequences = [
        row[0]
        for row in rows(
            tmp_path,
            "SELECT sequence FROM executions UNION ALL SELECT sequence FROM events"
            " UNION ALL SELECT DISTINCT sequence FROM bars ORDER BY 1",
        )
    ]
    assert sequences == list(range(1, len(sequences) + 1)), "an event was lost or doubled"
    journalled = rows(tmp_path, "SELECT execution_id, quantity, price, fee, symbol, side FROM executions")
    traded = {fill.execution_id: fill for fill in fills if fill.kind is ExecutionType.TRADE}
    assert {row[0] for row in journalled} == set(traded), "the journal's fills are not the venue's"
    for row in journalled:
        fill = traded[row[0]]
        assert [Decimal(value) for value in row[1:4]] == [fill.quantity, fill.price, fill.fee]
    held: dict[str, Decimal] = {}
    for _, quantity, _, _, symbol, side in journalled:
        held[symbol] = held.get(symbol, Decimal(0)) + (Decimal(quantity) if side == "buy" else -Decimal(quantity))
    at_venue = {position.symbol: position.quantity for position in positions}
    assert {symbol: quantity for symbol, quantity in held.items() if quantity} == at_venue
    assert all(position.stop_loss is not None for position in positions), "a position is naked"
    ours = [order for order in open_orders if not order.guards_position]
    assert not ours, "an order was left behind"
    intents = {row[0]: row[1] for row in rows(tmp_path, "SELECT client_order_id, quantity FROM orders")}
    per_order: dict[str, Decimal] = {}
    for fill in traded.values():
        if fill.client_order_id:
            per_order[fill.client_order_id] = per_order.get(fill.client_order_id, Decimal(0)) + fill.quantity
    assert all(quantity <= Decimal(intents[name]) for name, quantity in per_order.items()), "an order was sent twice"
    report = recall(tmp_path, "audit", "latest")
    assert report["differences"] == 0, report
    assert wallet > 0
    return dict(report)


def test_a_live_run_killed_twice_forgets_no_fill_and_sends_no_order_twice(tmp_path: Path) -> None:
    report = survive(tmp_path, 2, seed=1)
    assert report["fills"] > 0


@pytest.mark.slow
def test_a_live_run_survives_a_hundred_kills_in_a_row(tmp_path: Path) -> None:
    report = survive(tmp_path, 100, seed=2)
    assert report["fills"] >= 50
