"""``recall sandbox``: the local venue on its own."""

from __future__ import annotations

import asyncio
import signal
import time
import tomllib
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click

from backtest.sandbox.account import AccountSetting
from backtest.sandbox.clock import ClockSetting
from backtest.sandbox.faults import FaultPlan
from backtest.sandbox.keys import ApiKey
from backtest.sandbox.records import PositionMode
from backtest.sandbox.tls import LocalCertificate, make_certificate
from backtest.sandbox.venue import SandboxVenue
from bot.cli.common import (
    Context,
    chosen_market,
    chosen_span,
    market_options,
    span_options,
    standard_options,
)
from bot.cli.help import ExampleCommand
from bot.cli.terminal import console
from bot.cli.venues import Trade, make_sandbox
from bot.errors import UsageError
from strategies.bars import interval_ms


@click.command(
    cls=ExampleCommand,
    examples=(
        "recall sandbox --symbols BTCUSDT --interval 1 --synthetic 7 --speed 60",
        "recall sandbox --symbols BTCUSDT --interval 60 --start 2024-01-01 --stepped",
        "recall sandbox --symbols BTCUSDT --interval 1 --synthetic 7 --now --balance 5000",
    ),
)
@market_options
@span_options
@click.option(
    "--port",
    default=8788,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port on the loopback interface; 0 takes a free one.",
)
@click.option("--speed", type=float, help="Simulated seconds per second [default: 1].")
@click.option("--stepped", is_flag=True, help="Time stands still until POST /control/step.")
@click.option("--now", is_flag=True, help="With --synthetic: the market's time is this machine's.")
@click.option(
    "--synthetic",
    "seed",
    type=click.IntRange(min=0),
    metavar="SEED",
    help="Play a synthetic market of this seed instead of the candle store.",
)
@click.option("--key", default="sandbox", show_default=True, help="API key of the account.")
@click.option("--secret", default="sandbox", show_default=True, help="Secret of that key.")
@click.option("--balance", default="10000", show_default=True, metavar="USDT", help="What the account starts with.")
@click.option("--hedge", is_flag=True, help="Begin with a position for each side instead of one per symbol.")
@click.option(
    "--faults",
    "plan",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What is to go wrong, as TOML; see docs/sandbox.md.",
)
@click.option("--fault-seed", type=int, help="Seed of the plan, in place of its own.")
@click.option(
    "--partial-pushes",
    default=0,
    show_default=True,
    type=click.IntRange(0, 1000),
    help="Pushes of every candle that forms.",
)
@click.option(
    "--tls",
    "authority",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Serve https and wss; write the certificate that clients must trust to this file.",
)
@standard_options
def sandbox(
    context: Context,
    symbols: str | None,
    interval: str | None,
    start: str | None,
    end: str | None,
    port: int,
    speed: float | None,
    stepped: bool,
    now: bool,
    seed: int | None,
    key: str,
    secret: str,
    balance: str,
    hedge: bool,
    plan: Path | None,
    fault_seed: int | None,
    partial_pushes: int,
    authority: Path | None,
) -> None:
    """Run a local venue that speaks Bybit's v5 protocol.

    It plays the candle store, or a synthetic market, and takes orders of one account. Point any client at it: REST at
    http://127.0.0.1:PORT, websockets at ws://127.0.0.1:PORT/v5/public/linear, /v5/private and /v5/trade.
    """
    if stepped and speed is not None:
        raise UsageError("--speed and --stepped exclude each other; choose one")
    if speed is not None and speed <= 0:
        raise UsageError(f"--speed was {speed}; it must be greater than 0, or use --stepped")
    if now and (seed is None or start is not None or stepped or speed is not None):
        raise UsageError("--now goes with --synthetic, and without --start, --stepped and --speed")
    source = {"source": "store"} if seed is None else {"source": "synthetic", "seed": seed}
    config = context.config.changed({"sandbox": source}, "the command line")
    names, code = chosen_market(config, symbols, interval)
    first, last = chosen_span(start, end)
    clock = ClockSetting.stepped() if stepped else ClockSetting.accelerated(speed or 1.0)
    certificate = None if authority is None else make_certificate()
    if certificate is not None and authority is not None:
        _write(certificate, authority)
    account = AccountSetting(
        (ApiKey(key, secret),),
        balance=_amount(balance),
        costs=config.costs.costs(),
        rules=config.fills.rules(config.risk.max_position),
        mode=PositionMode.HEDGE if hedge else PositionMode.ONE_WAY,
    )
    tls = None if certificate is None else certificate.context
    trade = Trade(account, _plan(plan, fault_seed), partial_pushes, tls)
    if now:
        # A tape begins where a candle opens: with the one that forms now, not the one that follows.
        first = _now() - interval_ms(code) + 1
    venue = make_sandbox(config, names, code, clock, start=first, end=last, trade=trade)
    asyncio.run(_serve(context, venue, port, keeps_time=now))


def _plan(path: Path | None, seed: int | None) -> FaultPlan:
    """The fault plan of a file, perhaps with another seed."""
    if path is None:
        return FaultPlan()
    try:
        plan = FaultPlan.read(path)
    except (OSError, tomllib.TOMLDecodeError, ValueError) as problem:
        raise UsageError(f"fault plan {path}: {problem}") from None
    return plan if seed is None else FaultPlan(plan.rules, seed)


def _amount(text: str) -> Decimal:
    """A balance.

    Raises:
        UsageError: it is no number, or less than 0.
    """
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise UsageError(f"--balance was {text!r}; it must be a number of USDT") from None
    if not amount.is_finite() or amount < 0:
        raise UsageError(f"--balance was {text}; it must be 0 or more")
    return amount


def _write(certificate: LocalCertificate, path: Path) -> None:
    try:
        certificate.write(path)
    except OSError as problem:
        raise UsageError(f"--tls {path} cannot be written: {problem.strerror or problem}") from None


def _now() -> int:
    return time.time_ns() // 1_000_000


async def _serve(context: Context, venue: SandboxVenue, port: int, *, keeps_time: bool) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await venue.start(port)
    except OSError as problem:
        raise UsageError(f"port {port} cannot be used: {problem.strerror or problem}; choose another --port") from None
    if keeps_time:
        # The candle that forms opened a while ago, and the history took a moment to make.
        venue.tape.clock.advance_to(_now())
    try:
        _tell(context, venue)
        await stop.wait()
    finally:
        await venue.stop()


def _tell(context: Context, venue: SandboxVenue) -> None:
    places: dict[str, Any] = {
        "rest_url": venue.rest_url,
        "public_url": venue.public_url,
        "public_spot_url": venue.stream_url("spot"),
        "private_url": venue.private_url,
        "trade_url": venue.trade_url,
        "control_url": venue.control_url,
    }
    if context.as_json:
        context.answer(places)
        return
    console.print(f"REST      [bold]{venue.rest_url}[/]\npublic    [bold]{venue.public_url}[/]")
    console.print(f"private   [bold]{venue.private_url}[/]\ntrade     [bold]{venue.trade_url}[/]")
    console.print(
        f"control   [bold]{venue.control_url}[/]  (state, step, drop, mute, raw, fail, faults, skew, restart)"
    )
    console.print("Stop with Ctrl-C.")
