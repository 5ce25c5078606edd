"""The market's events of a run, and the steps of a sandbox that waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from backtest.sandbox.venue import SandboxVenue
from bot.cli.starting import last_seen
from bot.cli.venues import Advance, Connection, lock_step
from bot.config import Config
from bot.market.bybit_stream import KlineStream
from bot.market.feed import FeedLimits, MarketFeed
from bot.run import Run
from bot.session import Session
from strategies.bars import interval_ms

_QUIET_MARGIN_S: Final = 5.0


async def market_feed(
    config: Config, connection: Connection, run: Run, session: Session, stack: contextlib.AsyncExitStack
) -> MarketFeed:
    """The bars that a run has not decided on yet, from its venue's stream until ``stack`` closes."""
    names, code = config.market.symbols, config.market.interval
    # A simulated clock may run at any speed, so that silence only means something on a real venue.
    quiet = None if config.venue.name == "sandbox" else interval_ms(code) / 1000 + _QUIET_MARGIN_S
    stream = await stack.enter_async_context(KlineStream(connection.stream_url, names, code, topic_silence_s=quiet))
    return MarketFeed(
        stream,
        connection.rest,
        names,
        code,
        last_seen(run, session),
        calendars=session.calendars,
        unavailable=run.engine.core.risk.state.unavailable,
        limits=FeedLimits(straggler_s=config.venue.straggler_deadline, quiet_s=quiet),
    )


def advancing(
    config: Config,
    sandbox: SandboxVenue | None,
    feed: MarketFeed,
    idle: Callable[[], Awaitable[None]] | None = None,
) -> Advance | None:
    """How an embedded sandbox goes on; ``None`` for a venue whose time passes by itself.

    Args:
        config: says how fast.
        sandbox: that was started.
        feed: listens and misses nothing before every step.
        idle: awaited before every step: nothing that was sent is on its way.
    """
    if sandbox is None:
        return None
    if config.sandbox.speed == 0:

        async def pause() -> None:
            if config.sandbox.pause:
                await asyncio.sleep(config.sandbox.pause)

        async def ready() -> None:
            await sandbox.subscribed()
            await feed.caught_up()
            if idle is not None:
                await idle()

        return lock_step(sandbox, pause, ready)

    async def until_finished(decided: int) -> bool:
        return not sandbox.finished or decided < sandbox.tape.now()

    return until_finished
