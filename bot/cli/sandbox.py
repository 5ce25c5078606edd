"""``recall sandbox``: the local venue on its own."""

from __future__ import annotations

import asyncio
import signal

import click

from backtest.sandbox.clock import ClockSetting
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
from bot.cli.venues import make_sandbox
from bot.config import Config
from bot.errors import UsageError


@click.command(
    cls=ExampleCommand,
    examples=(
        "recall sandbox --symbols BTCUSDT --interval 1 --synthetic 7 --speed 60",
        "recall sandbox --symbols BTCUSDT --interval 60 --start 2024-01-01 --stepped",
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
@click.option(
    "--synthetic",
    "seed",
    type=click.IntRange(min=0),
    metavar="SEED",
    help="Play a synthetic market of this seed instead of the candle store.",
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
    seed: int | None,
) -> None:
    """Run a local venue that speaks Bybit's v5 protocol.

    It plays the candle store, or a synthetic market. Point any client at it: REST at http://127.0.0.1:PORT, websocket
    at ws://127.0.0.1:PORT/v5/public/linear.
    """
    if stepped and speed is not None:
        raise UsageError("--speed and --stepped exclude each other; choose one")
    if speed is not None and speed <= 0:
        raise UsageError(f"--speed was {speed}; it must be greater than 0, or use --stepped")
    source = {"source": "store"} if seed is None else {"source": "synthetic", "seed": seed}
    config = context.config.changed({"sandbox": source}, "the command line")
    names, code = chosen_market(config, symbols, interval)
    first, last = chosen_span(start, end)
    clock = ClockSetting.stepped() if stepped else ClockSetting.accelerated(speed or 1.0)
    asyncio.run(_serve(context, config, names, code, clock, first, last, port))


async def _serve(
    context: Context,
    config: Config,
    names: tuple[str, ...],
    code: str,
    clock: ClockSetting,
    first: int | None,
    last: int | None,
    port: int,
) -> None:
    venue = make_sandbox(config, names, code, clock, start=first, end=last)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await venue.start(port)
    except OSError as problem:
        raise UsageError(f"port {port} cannot be used: {problem.strerror or problem}; choose another --port") from None
    try:
        if context.as_json:
            context.answer(
                {"rest_url": venue.rest_url, "public_url": venue.public_url, "control_url": venue.control_url}
            )
        else:
            console.print(f"REST      [bold]{venue.rest_url}[/]\nwebsocket [bold]{venue.public_url}[/]")
            console.print(f"control   [bold]{venue.control_url}[/]  (state, step, drop, mute, raw)\nStop with Ctrl-C.")
        await stop.wait()
    finally:
        await venue.stop()
