"""A run from its settings: the strategy warmed from stored candles, the engine, and the record that makes it repeatable.

Replay, paper and audit all come through here, so that the same settings and candles give the same run.
"""

from __future__ import annotations

import platform
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bot.assembly import Home, account_of, build_strategy, funding_of, home_named, instruments_of
from bot.config import Config, stored_config
from bot.engine import AccountSettings, Engine, SimulatedEngine
from bot.errors import UsageError
from bot.execution.fills.model import FinerBars
from bot.execution.instruments import Instrument
from bot.journal import Journal, RunKind, RunRecord, StoredRun, WarmSpan
from bot.live_engine import LiveEngine
from bot.market.history import history_before
from bot.portfolio import ClosedTrade
from memory_store.opening import OpenedBank
from strategies.bars import BarSeries, Calendar, FloatArray, close_time_of, format_time
from strategies.base import Strategy

if TYPE_CHECKING:
    pass

_VERSIONED: Final = ("recall-bot", "torch", "numpy", "numba", "faiss-cpu")


@dataclass(slots=True)
class Session:
    """A strategy with its past and its surroundings, ready to be warmed."""

    config: Config
    home: Home
    symbols: tuple[str, ...]
    interval: str
    calendars: dict[str, Calendar]
    instruments: dict[str, Instrument]
    strategy: Strategy
    model_id: str
    history: dict[str, BarSeries]

    def warm(self, *, stored: bool = False) -> None:
        """Show the strategy its past and fill its memory from it.

        Args:
            stored: the memory is going to be written to a journal; else it keeps no record of its changes.
        """
        bank = self.strategy.bank
        if bank is not None and not stored:
            bank.stop_recording()
        self.strategy.warm(self.history)

    def engine(
        self,
        run_id: str,
        trades: list[ClosedTrade],
        *,
        finer_bars: FinerBars | None = None,
        strategy: Strategy | None = None,
        account: AccountSettings | None = None,
    ) -> SimulatedEngine:
        """An engine with a fresh account.

        Args:
            run_id: of the run.
            trades: closed trades are appended to it.
            finer_bars: tells the order of events inside a bar, where it is known.
            strategy: decides; that of the session by default.
            account: settings of the account; those of the configuration by default.
        """
        return SimulatedEngine(
            self.strategy if strategy is None else strategy,
            self.instruments,
            account_of(self.config) if account is None else account,
            run_id=run_id,
            on_trade=trades.append,
            finer_bars=finer_bars,
            funding=funding_of(self.config, self.home, self.instruments),
        )

    def live_engine(self, run_id: str, trades: list[ClosedTrade]) -> LiveEngine:
        """An engine whose fills come from a venue, or from the journal of a run that had them from there.

        Args:
            run_id: of the run.
            trades: closed trades are appended to it.
        """
        return LiveEngine(
            self.strategy, self.instruments, account_of(self.config), run_id=run_id, on_trade=trades.append
        )

    def record(self, run_id: str, kind: RunKind) -> RunRecord:
        """What the journal must know to repeat the run."""
        return RunRecord(
            run_id=run_id,
            kind=kind,
            strategy=self.config.strategy.name,
            model_id=self.model_id,
            symbols=self.symbols,
            interval=self.interval,
            calendars=self.calendars,
            instruments=self.instruments,
            config=self.config.masked(),
            warm={symbol: _span_of(series) for symbol, series in self.history.items()},
            candles=self.home.name,
            started_at=time.time_ns() // 1_000_000,
            versions=versions(),
        )


def engine_of(kind: RunKind, session: Session, run_id: str, trades: list[ClosedTrade]) -> Engine:
    """The engine of a run that a stream drives: with its own fills on paper, with the venue's live."""
    return session.live_engine(run_id, trades) if kind is RunKind.LIVE else session.engine(run_id, trades)


def open_session(
    config: Config,
    home: Home,
    symbols: tuple[str, ...],
    interval: str,
    calendars: dict[str, Calendar],
    start: int,
    *,
    venue_instruments: Mapping[str, Instrument] | None = None,
    hindsight: bool = False,
    models: Path | None = None,
) -> Session:
    """Settings and stored candles before ``start`` as a session.

    Args:
        config: settings; ``model.in_sample`` allows what ``hindsight`` does.
        home: of the market.
        symbols: of the session.
        interval: of its bars.
        calendars: of its symbols.
        start: open time of the first bar that is decided on.
        venue_instruments: what the venue says of its symbols.
        hindsight: the decisions prove nothing about the model's skill, so it may have learned from their bars.
        models: folder of models; that of ``home`` by default.

    Raises:
        UsageError: there is no such strategy or model, it has learned from bars after ``start``, or there is too little
            history; the message names the bars needed.
    """
    strategy, model_id = build_strategy(config, symbols, interval, models or home.models)
    learned = strategy.learned_until
    first_close = min(close_time_of(start, interval, calendars[symbol]) for symbol in symbols)
    if learned is not None and first_close <= learned and not (hindsight or config.model.in_sample):
        raise UsageError(
            f"model {model_id} learned from bars up to {format_time(learned)}, and the first decision would be on "
            f"{format_time(start)}; start at {format_time(learned)} or later, train one with --end {format_time(start)}, "
            f"or ask for hindsight with --set model.in_sample=true"
        )
    history = history_before(
        home.candles, symbols, interval, start, at_most=strategy.history_bars, at_least=strategy.required_bars
    )
    instruments = instruments_of(config, symbols, calendars, venue_instruments, home.margin_tiers.load())
    return Session(config, home, symbols, interval, calendars, instruments, strategy, model_id, history)


def earliest_start(config: Config, home: Home, symbols: tuple[str, ...], interval: str) -> int:
    """Open time of the first bar before which every symbol has just enough stored candles to warm the strategy, and
    that the strategy has not learned from.

    Raises:
        UsageError: there is no such bar.
    """
    strategy, _ = build_strategy(config, symbols, interval, home.models)
    needed = strategy.required_bars
    learned = strategy.learned_until
    starts = [] if learned is None or config.model.in_sample else [learned]
    for symbol in symbols:
        series = home.candles.load(symbol, interval)
        if len(series) <= needed:
            raise UsageError(
                f"{symbol} has {len(series)} stored bars of interval {interval}, {strategy.name} needs {needed} to warm "
                f"up and more to decide on; get more with recall fetch --symbols {symbol} --interval {interval}"
            )
        starts.append(int(series.open_time[needed]))
    return max(starts)


def reopen_session(
    config: Config, run: StoredRun, *, bars: Mapping[str, BarSeries] | None = None, model_id: str | None = None
) -> Session:
    """The session of an earlier run, from its record and the candles it was warmed from.

    Args:
        config: says where candles and models are now.
        run: the run.
        bars: take the candles from these series, not from the candle store.
        model_id: decide with this model, not with the one that the run began with.

    Raises:
        UsageError: the candles or the model are not there any more, or the candles have changed.
    """
    record = run.record
    settings = stored_config(record.config, record.run_id).changed(
        {"storage": config.storage.model_dump()}, "the configuration"
    )
    home = home_named(config, record.candles)
    model_id = model_id or record.model_id
    strategy, _ = build_strategy(settings, record.symbols, record.interval, home.models, model_id=model_id or None)
    history: dict[str, BarSeries] = {}
    for symbol, span in record.warm.items():
        if span.bars == 0:
            history[symbol] = BarSeries.empty(
                symbol, record.interval, record.calendars[symbol], first_ordinal=span.first_ordinal
            )
            continue
        if bars is None:
            series = home.candles.load(symbol, record.interval, start=span.first_open_time, end=span.end_time)
        else:
            series = bars[symbol].span(span.first_open_time, span.end_time)
        series = replace(series, first_ordinal=span.first_ordinal)
        if series.digest() != span.digest:
            raise UsageError(
                f"the stored candles of {symbol} between {format_time(span.first_open_time)} and "
                f"{format_time(span.end_time)} are not those that run {record.run_id} was warmed from; restore "
                f"{home.root / 'candles'} or start a new run"
            )
        history[symbol] = series
    return Session(
        settings,
        home,
        record.symbols,
        record.interval,
        record.calendars,
        dict(record.instruments),
        strategy,
        model_id,
        history,
    )


def reencode(session: Session, journal: Journal, run: StoredRun, model_id: str, *, until: int) -> tuple[Strategy, int]:
    """The strategy of a run with another model, its memory filled at once from the bars that the run had seen.

    Args:
        session: of the run; its history is what the run was warmed from.
        journal: where the run is.
        run: the run.
        model_id: the other model.
        until: the number of the last event whose bars count; 0 for the warm-up alone.

    Raises:
        UsageError: there is no such model, it was trained on bars that the run had yet to see, or there are too few bars.

    Returns:
        The strategy, and the close of the newest of these bars, milliseconds.
    """
    strategy, _ = build_strategy(
        session.config, session.symbols, session.interval, session.home.models, model_id=model_id
    )
    history = extended_history(session, journal, run, until=until)
    present = max(int(series.close_time[-1]) for series in history.values() if len(series))
    _refuse_foresight(strategy, model_id, present)
    for symbol, series in history.items():
        if len(series) < strategy.required_bars:
            raise UsageError(
                f"model {model_id} needs {strategy.required_bars} bars of {symbol} to warm up, and run "
                f"{run.record.run_id} has seen {len(series)}; swap to it later"
            )
    strategy.warm(history)
    return strategy, present


def warm_again(session: Session, journal: Journal, run: StoredRun) -> OpenedBank | None:
    """Bring a strategy to where a run stopped: bars from candles and journal, memory from the journal.

    Returns:
        How the memory was opened; ``None`` where the run has none.
    """
    opened = None
    if run.bank_id is not None:
        opened = journal.open_bank(run.bank_id, session.home.snapshots)
        session.strategy.attach_bank(opened.bank)
    session.strategy.warm(extended_history(session, journal, run), remember=run.bank_id is None)
    return opened


def _refuse_foresight(strategy: Strategy, model_id: str, present: int) -> None:
    """
    Raises:
        UsageError: the model has seen bars that the run is going to decide on.
    """
    learned = strategy.learned_until
    if learned is not None and learned > present:
        raise UsageError(
            f"model {model_id} was trained on bars up to {format_time(learned)}, and the run has got to "
            f"{format_time(present)}: it would decide on what it learned from; train one with --end {format_time(present)}"
        )


def extended_history(
    session: Session, journal: Journal, run: StoredRun, *, until: int | None = None
) -> dict[str, BarSeries]:
    """All bars that the strategy of a run has seen: those it was warmed from, then those in the journal.

    Args:
        session: of the run.
        journal: where it is.
        run: the run.
        until: leave out what came after the event of this number.
    """
    return {
        symbol: _extended(series, journal.read_bars(run.record.run_id, symbol=symbol, until=until))
        for symbol, series in session.history.items()
    }


def new_run_id(kind: RunKind) -> str:
    """An id that sorts by time: ``paper-20260131-120000-1f3a``."""
    return f"{kind}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def _extended(series: BarSeries, rows: list[Any]) -> BarSeries:
    if not rows:
        return series

    def joined(name: str) -> FloatArray:
        return np.concatenate([getattr(series, name), np.array([row[name] for row in rows], dtype=np.float64)])

    times = np.array([row["open_time"] for row in rows], dtype=np.int64)
    return replace(
        series,
        open_time=np.concatenate([series.open_time, times]),
        open=joined("open"),
        high=joined("high"),
        low=joined("low"),
        close=joined("close"),
        volume=joined("volume"),
    )


def _span_of(series: BarSeries) -> WarmSpan:
    if not len(series):
        return WarmSpan(0, 0, 0, series.first_ordinal, series.digest())
    return WarmSpan(
        first_open_time=int(series.open_time[0]),
        end_time=int(series.open_time[-1]) + 1,
        bars=len(series),
        first_ordinal=series.first_ordinal,
        digest=series.digest(),
    )


def versions() -> dict[str, str]:
    """Of everything that the bits of a decision depend on."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in _VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
