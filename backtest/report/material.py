"""Everything that a report of one run is made of, read from the journal, the candle store and the ledger of trials, and from
nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import msgspec
import numpy as np

from backtest.metrics import performance
from backtest.report.exposure import Exposure, exposure_of
from backtest.report.judgement import Judgement, judge_journalled, stored_judgement, with_probe
from backtest.report.recollection import Recollection, recollect
from backtest.report.returns import DailyReturns, hold_equally, returns_by_day
from backtest.report.terminal import span_title
from backtest.significance.assessment import Account
from bot.assembly import home_named
from bot.config import Config, stored_config
from bot.engine import EngineState
from bot.errors import UsageError
from bot.journal import Journal, RunKind, StoredRun
from bot.journal.probes import ProbeRecord, probed_settings
from bot.orders import Execution
from bot.portfolio import ClosedTrade
from strategies.bars import Bar, BarSeries, Calendar, FloatArray, IntArray, interval_ms


class Kind(StrEnum):
    """What a report can be about."""

    BACKTEST = "backtest"
    PAPER = "paper trading"
    LIVE = "live trading"
    WALK = "walk-forward"


STREAMS: Final = (Kind.PAPER, Kind.LIVE)
"""What a venue's stream drives: nothing in it can know a later bar."""
_KINDS: Final = {RunKind.REPLAY: Kind.BACKTEST, RunKind.PAPER: Kind.PAPER, RunKind.LIVE: Kind.LIVE}


@dataclass(frozen=True, slots=True)
class Subject:
    """Who a report is about."""

    run_id: str
    kind: Kind
    status: str
    strategy: str
    model_id: str
    """Empty without a model, and for a walk, which has one in every window."""
    symbols: tuple[str, ...]
    interval: str
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class WindowFigures:
    """One window of a walk."""

    start: int
    """First close, milliseconds."""
    end: int
    """Last close."""
    model_id: str
    """Empty without one."""
    total_return: float
    sharpe_ratio: float | None
    max_drawdown: float
    trades: int
    hold_return: float
    rivals: tuple[float, ...]
    """Total returns of the other arms, in the order of ``Walk.rivals``."""


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """What a walk has and a run has not."""

    windows: tuple[WindowFigures, ...]
    rivals: Mapping[str, FloatArray]
    """Equity of the other arms by name, at the closes of the walk, ``[n]`` quote units."""
    figures: Mapping[str, Mapping[str, Any]]
    """``PerformanceMetrics.to_json`` of every arm, the plain one first."""


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """One run, and what follows from it."""

    about: Subject
    title: str
    settings: Config
    """Those of the run."""
    figures: dict[str, Any]
    """Of ``PerformanceMetrics.to_json``, and for a replay its whole summary."""
    calendar: Calendar
    initial_cash: float
    times: IntArray
    """Of the equity that the journal kept, ``[n]`` milliseconds."""
    equity: FloatArray
    """``[n]`` quote units."""
    daily: DailyReturns
    hold: tuple[IntArray, FloatArray]
    """Times and equity of holding the same symbols; empty where there are no candles."""
    exposure: Exposure
    trades: list[ClosedTrade]
    executions: list[Execution]
    candles: dict[str, BarSeries]
    """Those of the run's span that are still there, by symbol."""
    recollection: Recollection | None
    """``None`` where no decision explained itself."""
    probe: ProbeRecord | None
    """The last lookahead probe of the same strategy, model and settings on the same symbols."""
    judgement: Judgement
    walk: Walk | None = field(default=None)


def gather(journal: Journal, run: StoredRun, config: Config) -> Material:
    """Read what there is of a run.

    Args:
        journal: where it is.
        run: a replay or a paper run.
        config: says where candles are now.

    Raises:
        UsageError: the run has seen fewer than two bars, or trades nothing.
    """
    record = run.record
    if record.kind is RunKind.MEMORY:
        raise UsageError(f"{record.run_id} is a memory, which trades nothing; see it with recall memory stats")
    points = journal.read_equity(record.run_id)
    if len(points) < 2:
        raise UsageError(
            f"run {record.run_id} has seen fewer than two bars, so there is nothing to report; let it go on, "
            "or choose another of recall runs"
        )
    times = np.array([time for time, _ in points], dtype=np.int64)
    equity = np.array([value for _, value in points], dtype=np.float64)
    settings = stored_config(record.config, record.run_id)
    initial_cash = float(settings.account.initial_cash)
    calendar = common_calendar(record.calendars)
    executions = [execution for _, execution in journal.read_executions(record.run_id)]
    trades = journal.read_trades(record.run_id)
    candles = _candles(journal, run, config, int(times[0]), int(times[-1]))
    outlooks = journal.read_outlooks(record.run_id)
    exposure = exposure_of(executions, candles, times, equity)
    # Of some symbols only it would be another benchmark.
    hold = hold_equally(candles if len(candles) == len(record.symbols) else {}, initial_cash)
    held = _at(*hold, times, before=initial_cash)
    recollection = None if outlooks is None or not len(outlooks) else recollect(outlooks, candles)
    probe = journal.find_probe(probed_settings(record.config, record.symbols, record.interval, record.model_id))
    judgement = stored_judgement(run.summary or {}) or judge_journalled(
        journal,
        run,
        settings,
        config,
        Account(times, equity, initial_cash, calendar),
        held,
        executions,
        candles,
        recollection,
    )
    return Material(
        about=Subject(
            record.run_id,
            _KINDS[record.kind],
            str(run.status),
            record.strategy,
            record.model_id,
            record.symbols,
            record.interval,
            record.versions,
        ),
        title=span_title(record.strategy, record.symbols, record.interval, times),
        settings=settings,
        figures=_figures(journal, run, times, equity, executions, trades, initial_cash, calendar, exposure, held),
        calendar=calendar,
        initial_cash=initial_cash,
        times=times,
        equity=equity,
        daily=returns_by_day(
            times, equity, initial_cash, calendar, started_at=int(times[0]) - interval_ms(record.interval)
        ),
        hold=hold,
        exposure=exposure,
        trades=trades,
        executions=executions,
        candles=candles,
        probe=probe,
        recollection=recollection,
        judgement=with_probe(judgement, probe),
    )


def common_calendar(calendars: dict[str, Calendar]) -> Calendar:
    """Sessions only if all symbols have them: an account with crypto in it never sleeps."""
    return Calendar.SESSIONS if set(calendars.values()) == {Calendar.SESSIONS} else Calendar.CONTINUOUS


def _figures(
    journal: Journal,
    run: StoredRun,
    times: IntArray,
    equity: FloatArray,
    executions: list[Execution],
    trades: list[ClosedTrade],
    initial_cash: float,
    calendar: Calendar,
    exposure: Exposure,
    held: FloatArray | None,
) -> dict[str, Any]:
    """What follows from the rows of a run, and of a replay what it wrote down when it ended, from every bar that it saw."""
    stored = journal.read_state(run.record.run_id)
    funding = sum(float(trade.funding) for trade in trades)
    if stored is not None:
        funding = float(msgspec.json.decode(stored[0], type=EngineState).core.portfolio.funding_paid)
    found = performance(
        times,
        equity,
        trades,
        initial_cash=initial_cash,
        calendar=calendar,
        fees_paid=sum(float(each.fee) for each in executions),
        funding_paid=funding,
        turnover=sum(float(each.quantity * each.price) for each in executions),
        benchmark=held,
    ).to_json()
    if len(exposure.times):
        found |= {"exposure_time": exposure.share_of_time, "mean_exposure": exposure.mean}
    if run.record.kind is not RunKind.REPLAY or run.summary is None:
        return found
    return found | {name: value for name, value in run.summary.items() if value is not None or name not in found}


def _at(times: IntArray, values: FloatArray, wanted: IntArray, *, before: float = 0.0) -> FloatArray | None:
    """The last value up to each of some times, ``[n]``; ``None`` where there are no values at all."""
    if not len(values):
        return None
    return np.concatenate(([before], np.nan_to_num(values)))[np.searchsorted(times, wanted, side="right")]


def _candles(journal: Journal, run: StoredRun, config: Config, first: int, last: int) -> dict[str, BarSeries]:
    """Bars of a run's span by symbol: of a paper run those that it decided on, of a replay those of the candle store."""
    record = run.record
    found: dict[str, BarSeries] = {}
    store = home_named(config, record.candles).candles
    for symbol in record.symbols:
        rows = journal.read_bars(record.run_id, symbol=symbol)
        if rows:
            names = Bar.__struct_fields__
            bars = [Bar(*(row[name] for name in names)) for row in sorted(rows, key=lambda row: row["open_time"])]
            found[symbol] = BarSeries.of(bars, record.interval, record.calendars[symbol])
        elif store.describe(symbol, record.interval) is not None:
            series = store.load(symbol, record.interval, start=first - interval_ms(record.interval), end=last)
            if len(series):
                found[symbol] = series
    return found
