"""``recall live``: trade an account at Bybit, or at a sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import click

from backtest.sandbox.account import AccountSetting
from backtest.sandbox.faults import FaultPlan
from backtest.sandbox.keys import ApiKey
from backtest.sandbox.venue import SandboxVenue
from bot.account_feed import with_account
from bot.assembly import Home, home_of
from bot.cli.common import (
    Context,
    at_venue,
    market_options,
    standard_options,
    strategy_options,
    venue_option,
    with_choices,
)
from bot.cli.feeding import advancing, market_feed
from bot.cli.help import ExampleCommand
from bot.cli.instance import single_instance
from bot.cli.live_view import LiveView
from bot.cli.starting import begin, decision_thread, farewell, resumable, resume, stop_on_signals
from bot.cli.terminal import console
from bot.cli.venues import (
    SANDBOX_KEY,
    Connection,
    Trade,
    account_at,
    connect,
    make_sandbox,
    order_entry_at,
    private_stream_at,
    sandbox_clock,
    sandbox_start,
)
from bot.config import Config
from bot.doctor import examine
from bot.errors import CheckFailed
from bot.execution.bybit.client import BybitAccount
from bot.execution.instruments import Instrument
from bot.journal import Journal, RunKind
from bot.live_account import LiveAccount
from bot.live_comparison import AccountLimits
from bot.live_start import book_of, open_account, require_consent, require_stop_loss, rule_changes, set_leverage
from bot.market.bybit_private_stream import PrivateStream
from bot.risk import run_token
from bot.run import Run
from bot.session import Session
from bot.trading import trade


@click.command(
    cls=ExampleCommand,
    examples=(
        "recall live --venue sandbox --max-bars 500",
        "recall live --venue testnet --symbols BTCUSDT --interval 1",
        "recall live --venue bybit --real-money",
    ),
)
@market_options
@strategy_options
@venue_option
@click.option("--max-bars", type=click.IntRange(min=1), help="Stop after so many bars.")
@click.option("--new", "fresh", is_flag=True, help="Begin a new run instead of going on with the last one.")
@click.option("--real-money", is_flag=True, help='Trade real money; live.mode = "live" must say so too.')
@standard_options
def live(
    context: Context,
    symbols: str | None,
    interval: str | None,
    strategy: str | None,
    model_id: str | None,
    memory_size: int | None,
    venue: str | None,
    max_bars: int | None,
    fresh: bool,
    real_money: bool,
) -> None:
    """Trade an account: orders go to the venue, and the venue says what became of them.

    Before a new run begins the account is looked at as recall doctor does, and nothing is sent unless all is well. Every order
    is in the journal before it leaves, and is sent once. After a stop or a crash the same command goes on with the same run:
    the journal is compared with the venue first. Ctrl-C stops after the step in hand; stops stay at the venue. On bybit,
    --real-money and live.mode = "live" are both needed. With --venue sandbox and no venue.sandbox_url a sandbox with an
    account of its own starts inside, and ends with the command.
    """
    chosen = with_choices(context, strategy=strategy, model_id=model_id, memory_size=memory_size)
    config = at_venue(chosen, symbols, interval, venue)
    require_consent(config, real_money)
    require_stop_loss(config)
    with single_instance(config.storage.data_dir):
        asyncio.run(_trade(context, config, max_bars, fresh))


async def _trade(context: Context, config: Config, max_bars: int | None, fresh: bool) -> None:
    journal = Journal(config.journal_url, durable=True)
    home = home_of(config, venue=config.venue.name)
    is_inside = config.venue.name == "sandbox" and not config.venue.sandbox_url
    # An account inside this process ends with it, so that no run of it can go on.
    earlier = None if fresh or is_inside else resumable(RunKind.LIVE, journal, config, home)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(journal.close)
        if earlier is not None:
            stack.enter_context(journal.hold_run(earlier.record.run_id))
        sandbox = await stack.enter_async_context(_inside(config, home)) if is_inside else None
        connection = connect(config, sandbox)
        stack.callback(connection.rest.close)
        client = account_at(config, sandbox)
        stack.callback(client.close)
        await client.synchronise()
        entry = order_entry_at(config, client, sandbox)
        if entry is not None:
            client.entry = await stack.enter_async_context(entry)
        thread = stack.enter_context(decision_thread())
        if earlier is None:
            run, session = await _begin(config, home, journal, connection, client, thread, stack)
        else:
            run, session = await resume(config, journal, earlier, thread, stack)
        private = await stack.enter_async_context(_private_stream(config, sandbox, client))
        account = await stack.enter_async_context(
            LiveAccount(
                client,
                private,
                book_of(run, journal),
                token=run_token(run.run_id),
                limits=AccountLimits(every_s=config.live.reconcile_every),
                whole_wallet=not config.live.capital,
                rule_changes=rule_changes(home.instruments, connection.rest, _venue_rules(config, run), _now),
            )
        )
        feed = await market_feed(config, connection, run, session, stack)
        bars = await stack.enter_async_context(contextlib.aclosing(feed.events()))
        events = await stack.enter_async_context(contextlib.aclosing(with_account(bars, account)))
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
            advance=advancing(config, sandbox, feed, account.idle),
            entry=account,
            on_step=view.show,
            on_news=view.tell,
        )
    farewell(context, config, run, progress, goes_on=not is_inside)


async def _begin(
    config: Config,
    home: Home,
    journal: Journal,
    connection: Connection,
    client: BybitAccount,
    thread: ThreadPoolExecutor,
    stack: contextlib.AsyncExitStack,
) -> tuple[Run, Session]:
    """A new run on an account that was looked at and found well.

    Raises:
        CheckFailed: something is not well.
    """
    names = config.market.symbols
    rules = await home.instruments.refresh(connection.rest, names, _now())
    await set_leverage(client, config, rules.instruments.values())
    await _examine(config, home, connection, client)
    opening = await open_account(client, config, names)
    changes: dict[str, dict[str, Any]] = {"account": {"initial_cash": opening.cash}}
    if opening.costs:
        changes["costs"] = dict(opening.costs)
    config = config.changed(changes, "the account")
    run, session = await begin(RunKind.LIVE, config, home, journal, connection, thread, stack)
    if opening.events:
        await asyncio.get_running_loop().run_in_executor(thread, functools.partial(run.apply_waiting, *opening.events))
    return run, session


async def _examine(config: Config, home: Home, connection: Connection, client: BybitAccount) -> None:
    """
    Raises:
        CheckFailed: something about the account is not well.
    """
    with console.status("looking at the account ..."):
        checks = await examine(config, home, connection.rest, client, datetime.now(UTC), stored=False)
    # The time of a sandbox is its own.
    simulated = config.venue.name == "sandbox"
    if bad := [check for check in checks if not check.good and not (simulated and check.name == "clock")]:
        told = "; ".join(f"{check.name}: {check.found}, {check.fix}" for check in bad)
        raise CheckFailed(f"the account is not ready to trade: {told}")


def _venue_rules(config: Config, run: Run) -> dict[str, Instrument]:
    """Trading rules that the run goes by, but for those that the configuration has set."""
    known = run.engine.portfolio.instruments
    return {symbol: rules for symbol, rules in known.items() if symbol not in config.instruments}


def _now() -> int:
    return time.time_ns() // 1_000_000


def _inside(config: Config, home: Home) -> SandboxVenue:
    """A sandbox with an account, in this process."""
    key, secret = SANDBOX_KEY
    account = AccountSetting(
        (ApiKey(key, secret),),
        balance=config.account.initial_cash,
        costs=config.costs.costs(),
        rules=config.fills.rules(config.risk.max_position),
    )
    return make_sandbox(
        config,
        config.market.symbols,
        config.market.interval,
        sandbox_clock(config),
        start=sandbox_start(config, home),
        end=None,
        paused=True,
        trade=Trade(account, FaultPlan()),
    )


def _private_stream(config: Config, sandbox: SandboxVenue | None, client: BybitAccount) -> PrivateStream:
    url, key, secret = private_stream_at(config, sandbox)
    return PrivateStream(url, key, secret, venue_ms=lambda: _now() + client.clock.offset, category=client.category)
