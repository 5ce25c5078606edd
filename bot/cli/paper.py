"""``recall paper``: trade on paper, on the embedded sandbox or on a real venue's public stream."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import click

from bot.assembly import home_of
from bot.cli.common import (
    Context,
    at_venue,
    chosen_span,
    market_options,
    span_options,
    standard_options,
    strategy_options,
    venue_option,
    with_choices,
)
from bot.cli.feeding import advancing, market_feed
from bot.cli.funding import settled_rates
from bot.cli.help import ExampleCommand
from bot.cli.instance import single_instance
from bot.cli.live_view import LiveView
from bot.cli.starting import begin, decision_thread, farewell, resumable, resume, stop_on_signals
from bot.cli.terminal import console
from bot.cli.venues import (
    connect,
    make_sandbox,
    sandbox_clock,
    sandbox_start,
)
from bot.config import Config
from bot.engine import SimulatedEngine
from bot.errors import NothingLeftToPlay, UsageError
from bot.journal import Journal, RunKind, StoredRun
from bot.trading import Progress, trade

_QUIET_MARGIN_S: Final = 5.0


@click.command(
    cls=ExampleCommand,
    examples=(
        "recall paper",
        "recall paper --venue bybit --symbols BTCUSDT,ETHUSDT --interval 1",
        "recall paper --set sandbox.source=store --interval 60 --start 2024-01-01 --end 2026-01-01",
        "recall paper --strategy sma_cross --max-bars 500 --new",
    ),
)
@market_options
@span_options
@strategy_options
@venue_option
@click.option("--max-bars", type=click.IntRange(min=1), help="Stop after so many bars.")
@click.option("--new", "fresh", is_flag=True, help="Begin a new run instead of going on with the last one.")
@standard_options
def paper(
    context: Context,
    symbols: str | None,
    interval: str | None,
    start: str | None,
    end: str | None,
    strategy: str | None,
    model_id: str | None,
    memory_size: int | None,
    venue: str | None,
    max_bars: int | None,
    fresh: bool,
) -> None:
    """Trade on paper: real or simulated candles, simulated fills.

    Everything is journalled: after a stop or a crash the same command goes on with the same run, its account, positions,
    memory and halts. No key is needed. Ctrl-C stops after the step in hand. --start and --end choose what the embedded
    sandbox plays.
    """
    chosen = with_choices(context, strategy=strategy, model_id=model_id, memory_size=memory_size)
    config = at_venue(chosen, symbols, interval, venue)
    span = chosen_span(start, end)
    if span != (None, None) and (config.venue.name != "sandbox" or config.venue.sandbox_url):
        raise UsageError("--start and --end choose what the embedded sandbox plays; leave them out for another venue")
    with single_instance(config.storage.data_dir):
        asyncio.run(_trade(context, config, span, max_bars, fresh))


async def _trade(
    context: Context, config: Config, span: tuple[int | None, int | None], max_bars: int | None, fresh: bool
) -> None:
    journal = Journal(config.journal_url, durable=True)
    names, code = config.market.symbols, config.market.interval
    home = home_of(config, venue=config.venue.name)
    earlier = None if fresh else resumable(RunKind.PAPER, journal, config, home)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(journal.close)
        if earlier is not None:
            stack.enter_context(journal.hold_run(earlier.record.run_id))
        sandbox = None
        if config.venue.name == "sandbox" and not config.venue.sandbox_url:
            first = _last_close(journal, earlier) or span[0] or sandbox_start(config, home)
            try:
                sandbox = make_sandbox(
                    config,
                    names,
                    code,
                    sandbox_clock(config),
                    start=first,
                    end=span[1],
                    history_until=_began(journal, earlier),
                    paused=True,
                )
            except NothingLeftToPlay:
                if earlier is None:
                    raise
                # It was stopped or killed between its last bar and saying so: all that is left is to say so.
                run, _ = await resume(config, journal, earlier, stack.enter_context(decision_thread()), stack)
                farewell(context, config, run, Progress(finished=True))
                return
            await stack.enter_async_context(sandbox)
        connection = connect(config, sandbox)
        stack.callback(connection.rest.close)
        thread = stack.enter_context(decision_thread())
        if earlier is None:
            run, session = await begin(RunKind.PAPER, config, home, journal, connection, thread, stack)
        else:
            run, session = await resume(config, journal, earlier, thread, stack)
        feed = await market_feed(config, connection, run, session, stack)
        events = await stack.enter_async_context(contextlib.aclosing(feed.events()))
        if sandbox is not None:
            sandbox.resume()
        stop = stop_on_signals()  # before the view, which gives the streams back as it found them
        view = stack.enter_context(LiveView(console, run, quiet=context.as_json))
        progress = await trade(
            run,
            events,
            thread,
            stop=stop,
            max_bars=max_bars,
            advance=advancing(config, sandbox, feed),
            prepare=None
            if config.venue.name == "sandbox" or not isinstance(run.engine, SimulatedEngine)
            else settled_rates(run.engine, connection.rest, home.funding),
            on_step=view.show,
        )
    farewell(context, config, run, progress)


def _last_close(journal: Journal, run: StoredRun | None) -> int | None:
    if run is None:
        return None
    rows = journal.read_bars(run.record.run_id)
    return max((row["close_time"] for row in rows), default=max(span.end_time for span in run.record.warm.values()))


def _began(journal: Journal, run: StoredRun | None) -> int | None:
    """Where a run once began: its bars open from then on, those before were its history."""
    if run is None:
        return None
    warmed = max(span.end_time for span in run.record.warm.values())
    if warmed:
        return warmed
    return min((row["open_time"] for row in journal.read_bars(run.record.run_id)), default=None)
