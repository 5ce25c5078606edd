"""``recall paper``: trade on paper, on the embedded sandbox or on a real venue's public stream."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

from backtest.sandbox.venue import SandboxVenue
from bot.assembly import Home, home_of, needs_model
from bot.cli.common import (
    Context,
    chosen_market,
    chosen_span,
    console,
    market_options,
    output,
    progress_bar,
    span_options,
    standard_options,
    strategy_options,
    with_choices,
)
from bot.cli.live_view import LiveView, print_farewell
from bot.cli.training import train_first_model
from bot.cli.venues import (
    Advance,
    Connection,
    connect,
    history_start,
    lock_step,
    make_sandbox,
    sandbox_clock,
    stored_start,
    synthetic_start,
)
from bot.config import Config
from bot.errors import UsageError
from bot.journal import Journal, RunKind, RunStatus, StoredRun
from bot.logs import configure_logs
from bot.market.bybit_stream import KlineStream
from bot.market.feed import FeedLimits, MarketFeed
from bot.market.history import BybitHistory, fetch_history
from bot.paper import PaperRun, Progress, run_paper
from bot.portfolio import ClosedTrade
from bot.session import Session, new_run_id, open_session, reopen_session, warm_again
from strategies.bars import Calendar

# What decides must be the same for a run to be taken up again; where data lies and how it is shown may change.
_DECIDING = ("market", "strategy", "memory", "signal", "risk", "costs", "account", "instruments")


@click.command(
    epilog="Examples: recall paper (embedded sandbox, synthetic market); "
    "recall paper --venue bybit --symbols BTCUSDT --interval 1; "
    "recall paper --venue sandbox --set sandbox.source=store --start 2024-01-01 --end 2026-01-01"
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
) -> int:
    """Trade on paper: real or simulated candles, simulated fills, everything journalled.

    After a stop or a crash the same command goes on with the same run: account, positions, memory and halts. No key is
    needed. --start and --end choose what a sandbox plays.
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
    configure_logs(config, to=console)
    with _single_instance(config.storage.data_dir):
        return asyncio.run(_trade(context, config, span, max_bars, fresh))


async def _trade(
    context: Context, config: Config, span: tuple[int | None, int | None], max_bars: int | None, fresh: bool
) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    journal = Journal(config.journal_url, durable=True)
    earlier = None if fresh else _resumable(journal, config)
    names, code = config.market.symbols, config.market.interval
    home = home_of(config, venue=config.venue.name)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(journal.close)
        sandbox = None
        if config.venue.name == "sandbox" and not config.venue.sandbox_url:
            begin = _last_close(journal, earlier) or span[0] or _fresh_start(config, home)
            sandbox = make_sandbox(config, names, code, sandbox_clock(config), start=begin, end=span[1])
            await stack.enter_async_context(sandbox)
        connection = connect(config, sandbox)
        stack.callback(connection.rest.close)
        thread = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="decide"))
        run, session = await _prepare(config, home, journal, connection, earlier, thread)
        last_seen = _last_seen(run, session)
        stream = await stack.enter_async_context(KlineStream(connection.stream_url, names, code))
        limits = FeedLimits(straggler_s=config.venue.straggler_deadline)
        feed = MarketFeed(stream, connection.rest, names, code, last_seen, limits=limits)
        events = await stack.enter_async_context(contextlib.aclosing(feed.events()))
        view = stack.enter_context(LiveView(console, session, run, quiet=context.as_json))
        progress = await run_paper(
            run,
            events,
            thread,
            stop=stop,
            max_bars=max_bars,
            advance=_advance(config, sandbox, feed),
            on_step=view.show,
        )
    return _farewell(context, config, run, session, progress, interrupted=stop.is_set())


async def _prepare(
    config: Config,
    home: Home,
    journal: Journal,
    connection: Connection,
    earlier: StoredRun | None,
    thread: ThreadPoolExecutor,
) -> tuple[PaperRun, Session]:
    """The run, warmed up to its last decided bar."""
    loop = asyncio.get_running_loop()
    names, code = config.market.symbols, config.market.interval
    trades: list[ClosedTrade] = []
    if earlier is not None:
        console.print(f"run [bold]{earlier.record.run_id}[/] goes on")
        session = reopen_session(config, earlier)
        with console.status("warming from candles and journal ..."):
            await loop.run_in_executor(thread, warm_again, session, journal, earlier)
        run_id, bank_id = earlier.record.run_id, earlier.bank_id
        run = PaperRun(session.engine(run_id, trades), journal, run_id, bank_id=bank_id, closed_trades=trades)
        run.resume()
        journal.resume_run(run_id)
        return run, session
    run_id = new_run_id(RunKind.PAPER)
    console.print(f"run [bold]{run_id}[/]")
    now = await connection.rest.server_time()
    instruments = await connection.rest.instruments(names)
    if config.venue.name != "sandbox" or config.sandbox.source == "synthetic" or config.venue.sandbox_url:
        await _fetch_past(config, home, connection, now)
    if needs_model(config):
        train_first_model(config, home, names, code, now)
    calendars = dict.fromkeys(names, Calendar.CONTINUOUS)
    session = open_session(config, home, names, code, calendars, now, venue_instruments=instruments)
    with console.status("warming features and memory from history ..."):
        await loop.run_in_executor(thread, session.warm)
    bank_id = journal.create_run(session.record(run_id, RunKind.PAPER), bank=session.strategy.bank)
    return PaperRun(session.engine(run_id, trades), journal, run_id, bank_id=bank_id, closed_trades=trades), session


async def _fetch_past(config: Config, home: Home, connection: Connection, now: int) -> None:
    code = config.market.interval
    wanted = config.memory.memory_size // len(config.market.symbols) + 1_000
    history = BybitHistory(connection.rest.klines_page)
    for symbol in config.market.symbols:
        begin = history_start(config, code, now, wanted)
        with progress_bar(f"fetching {symbol}", None) as update:
            await asyncio.get_running_loop().run_in_executor(
                None,
                lambda s=symbol, b=begin, u=update: fetch_history(home.candles, history, s, code, b, now, progress=u),
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


def _resumable(journal: Journal, config: Config) -> StoredRun | None:
    """The newest paper run of this market, where its settings are those of today."""
    wanted = config.masked()
    for run in journal.list_runs(kind=RunKind.PAPER, limit=20):
        if run.status is RunStatus.FINISHED or run.record.config["venue"]["name"] != config.venue.name:
            continue
        if (
            run.record.config["market"] != wanted["market"]
            or run.record.config["sandbox"]["source"] != config.sandbox.source
        ):
            continue
        different = [section for section in _DECIDING if run.record.config.get(section) != wanted[section]]
        if not different:
            return run
        console.print(
            f"run {run.record.run_id} was made with other settings ({', '.join(different)}): it stays as it is, a new run "
            "begins"
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


def _last_seen(run: PaperRun, session: Session) -> dict[str, int | None]:
    decided = run.engine.core.state().last_open_times
    seen: dict[str, int | None] = {}
    for symbol, series in session.history.items():
        warm = int(series.open_time[-1]) if len(series) else None
        seen[symbol] = decided.get(symbol, warm)
    return seen


def _farewell(
    context: Context, config: Config, run: PaperRun, session: Session, progress: Progress, *, interrupted: bool
) -> int:
    journal = Journal(config.journal_url, durable=True)
    core, portfolio = run.engine.core, run.engine.portfolio
    document = {
        "run_id": run.run_id,
        "model_id": session.model_id or None,
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
    del interrupted
    return 0


@contextlib.contextmanager
def _single_instance(data_dir: Path) -> Iterator[None]:
    """Only one bot at a time may write into a data_dir.

    Raises:
        UsageError: another one runs.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "paper.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another bot is running in {data_dir}; stop it, or give this one its own with --set storage.data_dir=..."
            ) from None
        yield
