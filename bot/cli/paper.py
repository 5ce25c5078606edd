"""``recall paper``: trade on paper, on the embedded sandbox or on a real venue's public stream."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import click

from backtest.sandbox.venue import SandboxVenue
from bot.assembly import LATEST, Home, build_strategy, home_of, needs_model
from bot.cli.common import (
    Context,
    chosen_market,
    chosen_span,
    market_options,
    span_options,
    standard_options,
    stored_calendars,
    strategy_options,
    with_choices,
)
from bot.cli.funding import settled_rates
from bot.cli.help import ExampleCommand
from bot.cli.instance import single_instance
from bot.cli.live_view import LiveView, print_farewell
from bot.cli.terminal import console, output, progress_bar
from bot.cli.training import train_first_model
from bot.cli.venues import (
    Advance,
    Connection,
    connect,
    history_start,
    lock_step,
    make_sandbox,
    plays_store,
    plays_synthetic,
    sandbox_clock,
    stored_start,
    synthetic_start,
)
from bot.config import Config
from bot.errors import NothingLeftToPlay, UsageError
from bot.journal import Journal, RunKind, RunStatus, StoredRun
from bot.lifecycle.banks import clear_preparation
from bot.lifecycle.keeper import ModelKeeper
from bot.market.bybit_stream import KlineStream
from bot.market.feed import FeedLimits, MarketFeed
from bot.market.history import BybitHistory, fetch_history
from bot.paper import PaperRun, Progress, run_paper
from bot.portfolio import ClosedTrade
from bot.session import Session, new_run_id, open_session, reopen_session, warm_again
from bot.settings import PLAIN_FILLS
from strategies.bars import Calendar, format_time, interval_ms

# What decides must be the same for a run to be taken up again; where data lies and how it is shown may change.
_QUIET_MARGIN_S: Final = 5.0
_DECIDING: Final = ("market", "strategy", "memory", "signal", "risk", "costs", "fills", "account", "instruments")


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
@click.option("--venue", type=click.Choice(["sandbox", "bybit", "testnet", "demo"]), help="Venue [default: config].")
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
    config = with_choices(context, strategy=strategy, model_id=model_id, memory_size=memory_size)
    names, code = chosen_market(config, symbols, interval)
    changes: dict[str, dict[str, Any]] = {"market": {"symbols": names, "interval": code}}
    if venue is not None:
        changes["venue"] = {"name": venue}
    config = config.changed(changes, "the command line")
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
    earlier = None if fresh else _resumable(journal, config, home)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(journal.close)
        if earlier is not None:
            stack.enter_context(journal.hold_run(earlier.record.run_id))
        sandbox = None
        if config.venue.name == "sandbox" and not config.venue.sandbox_url:
            begin = _last_close(journal, earlier) or span[0] or _fresh_start(config, home)
            try:
                sandbox = make_sandbox(
                    config,
                    names,
                    code,
                    sandbox_clock(config),
                    start=begin,
                    end=span[1],
                    history_until=_began(journal, earlier),
                    paused=True,
                )
            except NothingLeftToPlay:
                if earlier is None:
                    raise
                # It was stopped or killed between its last bar and saying so: all that is left is to say so.
                run, _ = await _resume(config, journal, earlier, stack.enter_context(_decision_thread()), stack)
                _farewell(context, config, run, Progress(finished=True))
                return
            await stack.enter_async_context(sandbox)
        connection = connect(config, sandbox)
        stack.callback(connection.rest.close)
        thread = stack.enter_context(_decision_thread())
        if earlier is None:
            run, session = await _begin(config, home, journal, connection, thread, stack)
        else:
            run, session = await _resume(config, journal, earlier, thread, stack)
        last_seen = _last_seen(run, session)
        stream = await stack.enter_async_context(KlineStream(connection.stream_url, names, code))
        # A simulated clock may run at any speed, so that silence only means something on a real venue.
        quiet = None if config.venue.name == "sandbox" else interval_ms(code) / 1000 + _QUIET_MARGIN_S
        limits = FeedLimits(straggler_s=config.venue.straggler_deadline, quiet_s=quiet)
        feed = MarketFeed(
            stream,
            connection.rest,
            names,
            code,
            last_seen,
            calendars=session.calendars,
            unavailable=run.engine.core.risk.state.unavailable,
            limits=limits,
        )
        events = await stack.enter_async_context(contextlib.aclosing(feed.events()))
        if sandbox is not None:
            sandbox.resume()
        view = stack.enter_context(LiveView(console, run, quiet=context.as_json))
        progress = await run_paper(
            run,
            events,
            thread,
            stop=_stop_on_signals(),
            max_bars=max_bars,
            advance=_advance(config, sandbox, feed),
            prepare=None
            if config.venue.name == "sandbox"
            else settled_rates(run.engine, connection.rest, home.funding),
            on_step=view.show,
        )
    _farewell(context, config, run, progress)


def _stop_on_signals() -> asyncio.Event:
    """From now on Ctrl-C and SIGTERM mean: stop after the step in hand. Before, nothing is lost by stopping at once."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _begin(
    config: Config,
    home: Home,
    journal: Journal,
    connection: Connection,
    thread: ThreadPoolExecutor,
    stack: contextlib.AsyncExitStack,
) -> tuple[PaperRun, Session]:
    """A new run, warmed up and held until ``stack`` closes."""
    loop = asyncio.get_running_loop()
    names, code = config.market.symbols, config.market.interval
    run_id = new_run_id(RunKind.PAPER)
    console.print(f"run [bold]{run_id}[/]")
    now = await connection.rest.server_time()
    instruments = await connection.rest.instruments(names)
    if not plays_store(config):
        await _fetch_past(config, home, connection, now)
    if needs_model(config):
        with _interruptible():
            train_first_model(config, home, names, code, now)
    if plays_synthetic(config):
        _require_history(config, home)
    calendars = dict.fromkeys(names, Calendar.CONTINUOUS)
    if plays_store(config):
        calendars = stored_calendars(home.candles, names, code)
    session = open_session(config, home, names, code, calendars, now, venue_instruments=instruments)
    with console.status("warming features and memory from history ..."):
        await loop.run_in_executor(thread, functools.partial(session.warm, stored=True))
    # Held before others can find it.
    stack.enter_context(journal.hold_run(run_id))
    bank = session.strategy.bank
    bank_id = journal.create_run(session.record(run_id, RunKind.PAPER), bank=bank)
    if bank is not None and bank_id is not None and bank.config.sealed:
        journal.save_snapshot(bank_id, bank, home.snapshots)
    return _paper_run(config, journal, session, run_id, stack), session


def _require_history(config: Config, home: Home) -> None:
    """
    Raises:
        UsageError: the synthetic market has too little history for the strategy.
    """
    strategy, _ = build_strategy(config, config.market.symbols, config.market.interval, home.models)
    if config.sandbox.history_bars < strategy.required_bars:
        raise UsageError(
            f"{config.strategy.name} needs {strategy.required_bars} bars to warm up on, and sandbox.history_bars is "
            f"{config.sandbox.history_bars}; raise it"
        )


def _paper_run(
    config: Config, journal: Journal, session: Session, run_id: str, stack: contextlib.AsyncExitStack
) -> PaperRun:
    """A run that the journal knows, with whoever keeps its model up to date until ``stack`` closes."""
    trades: list[ClosedTrade] = []
    stored = journal.find_run(run_id)
    models = None
    if needs_model(config):
        models = ModelKeeper(config, session, journal, stored)
        stack.callback(models.close)
    engine = session.engine(run_id, trades)
    return PaperRun(engine, journal, run_id, bank_id=stored.bank_id, closed_trades=trades, models=models)


async def _resume(
    config: Config,
    journal: Journal,
    earlier: StoredRun,
    thread: ThreadPoolExecutor,
    stack: contextlib.AsyncExitStack,
) -> tuple[PaperRun, Session]:
    """A run as it was after its last step."""
    loop = asyncio.get_running_loop()
    run_id = earlier.record.run_id
    console.print(f"run [bold]{run_id}[/] goes on")
    session = reopen_session(config, earlier, model_id=journal.model_of(earlier))
    with console.status("warming from candles and journal ..."):
        await loop.run_in_executor(thread, clear_preparation, journal, run_id)
        opened = await loop.run_in_executor(thread, warm_again, session, journal, earlier)
    if opened is not None and opened.rebuilt is not None:
        console.print(f"memory rebuilt from the journal, not opened from its snapshot: {opened.rebuilt}", markup=False)
    if opened is not None and opened.sealed_again:
        console.print(f"{opened.sealed_again} sealed segments of the memory made again from the journal", markup=False)
    if opened is not None and opened.unsaved is not None:
        console.print(opened.unsaved, markup=False)
    run = _paper_run(config, journal, session, run_id, stack)
    run.resume()
    journal.resume_run(run_id)
    return run, session


def _decision_thread() -> ThreadPoolExecutor:
    """The one thread in which everything that decides or commits runs."""
    return ThreadPoolExecutor(1, thread_name_prefix="decide")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end a long piece of work at once, which asyncio would put off until the work is done."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


async def _fetch_past(config: Config, home: Home, connection: Connection, now: int) -> None:
    code = config.market.interval
    remembered = config.memory.memory_size + config.memory.sealed_size
    wanted = remembered // len(config.market.symbols) + 1_000
    history = BybitHistory(connection.rest.klines_page)
    for symbol in config.market.symbols:
        begin = history_start(config, code, now, wanted)
        with progress_bar(f"fetching {symbol}", None) as update:
            fetch = functools.partial(fetch_history, home.candles, history, symbol, code, begin, now, progress=update)
            fetched = await asyncio.get_running_loop().run_in_executor(None, fetch)
        if fetched.starts_late and fetched.stored is not None:
            console.print(
                f"{symbol}: the stored candles begin at {format_time(fetched.stored.first_open)}, later than the memory "
                "could use; recall fetch --prepend gets earlier ones, another storage.data_dir starts afresh",
                soft_wrap=True,
            )


def _advance(config: Config, sandbox: SandboxVenue | None, feed: MarketFeed) -> Advance | None:
    if sandbox is None:
        return None
    if config.sandbox.speed == 0:

        async def pause() -> None:
            if config.sandbox.pause:
                await asyncio.sleep(config.sandbox.pause)

        async def ready() -> None:
            await sandbox.subscribed()
            await feed.caught_up()

        return lock_step(sandbox, pause, ready)

    async def until_finished(decided: int) -> bool:
        return not sandbox.finished or decided < sandbox.tape.now()

    return until_finished


def _resumable(journal: Journal, config: Config, home: Home) -> StoredRun | None:
    """The newest paper run of this market, where its settings are those of today."""
    wanted = config.masked()
    for run in journal.list_runs(kind=RunKind.PAPER, limit=20):
        then = run.record.config
        is_same_place = (
            then["venue"]["name"] == config.venue.name
            and then["market"] == wanted["market"]
            and then["sandbox"]["source"] == config.sandbox.source
            and run.record.candles == home.name
        )
        if run.status is RunStatus.FINISHED or not is_same_place:
            continue
        then = {"fills": PLAIN_FILLS.model_dump(mode="json"), **then}
        different = [section for section in _DECIDING if then.get(section) != wanted[section]]
        if needs_model(config) and config.model.id not in (LATEST, run.record.model_id, journal.model_of(run)):
            different.append("model")
        if not different:
            return run
        console.print(
            f"run {run.record.run_id} was made with other settings ({', '.join(different)}): it stays as it is, and a new "
            "run begins",
            soft_wrap=True,
        )
        return None
    return None


def _fresh_start(config: Config, home: Home) -> int:
    if config.sandbox.source == "synthetic":
        return synthetic_start(config)
    return stored_start(home, config.market.symbols, config.market.interval)


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


def _last_seen(run: PaperRun, session: Session) -> dict[str, int | None]:
    decided = run.engine.core.state().last_open_times
    seen: dict[str, int | None] = {}
    for symbol, series in session.history.items():
        warm = int(series.open_time[-1]) if len(series) else None
        seen[symbol] = decided.get(symbol, warm)
    return seen


def _farewell(context: Context, config: Config, run: PaperRun, progress: Progress) -> None:
    journal = Journal(config.journal_url, durable=True)
    clear_preparation(journal, run.run_id)
    core, portfolio = run.engine.core, run.engine.portfolio
    document = {
        "run_id": run.run_id,
        "model_id": journal.model_of(journal.find_run(run.run_id)) or None,
        "bars": progress.bars,
        "fills": progress.fills,
        "decisions": core.decisions_made,
        "equity": portfolio.equity,
        "total_return": portfolio.equity / float(portfolio.initial_cash) - 1.0,
        "trades": portfolio.trades_closed,
        "fees_paid": float(portfolio.fees_paid),
        "decisions_sha256": core.decisions_sha256,
        "trades_sha256": core.trades_sha256,
        "finished": progress.finished,
    }
    journal.end_run(run.run_id, RunStatus.FINISHED if progress.finished else RunStatus.STOPPED, document)
    journal.close()
    if context.as_json:
        context.answer(document)
    else:
        print_farewell(output, document, portfolio)
