"""How a bot starts and ends: a new run warmed up, an earlier one taken up again, and the summary at the end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import io
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TextIO

from bot.assembly import LATEST, Home, build_strategy, needs_model
from bot.cli.common import Context, stored_calendars
from bot.cli.live_view import print_farewell
from bot.cli.terminal import console, output, progress_bar
from bot.cli.training import train_first_model
from bot.cli.venues import Connection, history_start, plays_store, plays_synthetic
from bot.config import Config, stored_config
from bot.errors import UsageError
from bot.journal import Journal, RunKind, RunStatus, StoredRun
from bot.lifecycle.banks import clear_preparation
from bot.lifecycle.keeper import ModelKeeper
from bot.market.history import BybitHistory, fetch_history
from bot.portfolio import ClosedTrade
from bot.run import Run
from bot.session import Session, engine_of, new_run_id, open_session, reopen_session, warm_again
from bot.trading import Progress
from strategies.bars import Calendar, format_time

# What decides must be the same for a run to be taken up again; where data lies and how it is shown may change.
_DECIDING: Final = ("market", "strategy", "memory", "signal", "risk", "instruments")
_SIMULATING: Final = ("costs", "fills", "account")
"""Of a live run the venue says what these come to."""
_STANDARD_OUTPUT: Final = 1
_STANDARD_ERROR: Final = 2


def stop_on_signals() -> asyncio.Event:
    """From now on Ctrl-C, SIGTERM and a terminal that is closed mean: stop after the step in hand.

    Before, nothing is lost by stopping at once. Whoever began with ``nohup`` wants to outlive the terminal, and does.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    sys.stdout, sys.stderr = enduring(sys.stdout), enduring(sys.stderr)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        terminals = [stream for stream in (_STANDARD_OUTPUT, _STANDARD_ERROR) if os.isatty(stream)]

        def hang_up(_number: int, _frame: object) -> None:
            _fall_silent(terminals)
            if not loop.is_closed():
                loop.call_soon_threadsafe(stop.set)

        # The loop's own handlers wait for its next turn, and until then a line that is printed would end the run.
        signal.signal(signal.SIGHUP, hang_up)
    return stop


class _Terminal(io.FileIO):
    """A terminal that may go while it is written to, before the signal that tells so is served."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as problem:
            if problem.errno != errno.EIO:
                raise
        _fall_silent([self.fileno()])
        return super().write(data)


def enduring(stream: TextIO) -> TextIO:
    """The same stream; where it is a terminal, one whose end is not an error."""
    if not stream.isatty():
        return stream
    stream.flush()
    raw = io.BufferedWriter(_Terminal(stream.fileno(), "w", closefd=False))
    return io.TextIOWrapper(raw, encoding=stream.encoding, errors=stream.errors, line_buffering=True)


def _fall_silent(streams: Iterable[int]) -> None:
    """Write no more to terminals that are gone, which would be refused and end the run before it is put in order."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream)
    os.close(nowhere)


def decision_thread() -> ThreadPoolExecutor:
    """The one thread in which everything that decides or commits runs."""
    return ThreadPoolExecutor(1, thread_name_prefix="decide")


async def begin(
    kind: RunKind,
    config: Config,
    home: Home,
    journal: Journal,
    connection: Connection,
    thread: ThreadPoolExecutor,
    stack: contextlib.AsyncExitStack,
) -> tuple[Run, Session]:
    """A new run, warmed up and held until ``stack`` closes."""
    loop = asyncio.get_running_loop()
    names, code = config.market.symbols, config.market.interval
    run_id = new_run_id(kind)
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
    bank_id = journal.create_run(session.record(run_id, kind), bank=bank)
    if bank is not None and bank_id is not None and bank.config.sealed:
        journal.save_snapshot(bank_id, bank, home.snapshots)
    return _make_run(config, journal, session, run_id, stack), session


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


def _make_run(config: Config, journal: Journal, session: Session, run_id: str, stack: contextlib.AsyncExitStack) -> Run:
    """A run that the journal knows, with whoever keeps its model up to date until ``stack`` closes."""
    trades: list[ClosedTrade] = []
    stored = journal.find_run(run_id)
    models = None
    if needs_model(config):
        models = ModelKeeper(config, session, journal, stored)
        stack.callback(models.close)
    engine = engine_of(stored.record.kind, session, run_id, trades)
    return Run(engine, journal, run_id, bank_id=stored.bank_id, closed_trades=trades, models=models)


async def resume(
    config: Config,
    journal: Journal,
    earlier: StoredRun,
    thread: ThreadPoolExecutor,
    stack: contextlib.AsyncExitStack,
) -> tuple[Run, Session]:
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
    run = _make_run(config, journal, session, run_id, stack)
    run.resume()
    journal.resume_run(run_id)
    return run, session


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


def resumable(kind: RunKind, journal: Journal, config: Config, home: Home) -> StoredRun | None:
    """The newest run of a kind in this market, where its settings are those of today."""
    wanted = config.masked()
    compared = _DECIDING if kind is RunKind.LIVE else (*_DECIDING, *_SIMULATING)
    for run in journal.list_runs(kinds=(kind,), limit=20):
        then = run.record.config
        is_same_place = (
            then["venue"]["name"] == config.venue.name
            and {"category": "linear", **then["market"]} == wanted["market"]
            and then["sandbox"]["source"] == config.sandbox.source
            and run.record.candles == home.name
        )
        if run.status is RunStatus.FINISHED or not is_same_place:
            continue
        with contextlib.suppress(UsageError):  # settings that this version does not know are other settings
            # What this version added was then as it is by default.
            then = stored_config(then, run.record.run_id).masked()
        different = [section for section in compared if then.get(section) != wanted[section]]
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


def last_seen(run: Run, session: Session) -> dict[str, int | None]:
    decided = run.engine.core.state().last_open_times
    seen: dict[str, int | None] = {}
    for symbol, series in session.history.items():
        warm = int(series.open_time[-1]) if len(series) else None
        seen[symbol] = decided.get(symbol, warm)
    return seen


def farewell(context: Context, config: Config, run: Run, progress: Progress, *, goes_on: bool = True) -> None:
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
        "total_return": portfolio.equity / float(portfolio.invested) - 1.0,
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
        print_farewell(output, document, portfolio, goes_on=goes_on)
