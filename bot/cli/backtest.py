"""``recall backtest``: history through the code that trades."""

from __future__ import annotations

from typing import Any, Final

import click
import numpy as np

from backtest.metrics import PerformanceMetrics, performance
from backtest.replay import ReplayResult, replay
from backtest.report.material import common_calendar
from backtest.report.panels import plot_panels
from backtest.report.terminal import print_summary, span_title
from backtest.significance.assessment import Account
from backtest.significance.judging import MOST_RECORDED, Depth, Run, enter_backtest, judge_run
from backtest.significance.ledger import Ledger
from backtest.significance.positions import hold_curve, positions_of
from backtest.significance.recording import RecordingStrategy
from backtest.significance.stress import slippage_of
from bot.assembly import home_of
from bot.cli.common import (
    Context,
    chosen_market,
    chosen_span,
    market_options,
    parse_interval_option,
    span_options,
    standard_options,
    stored_calendars,
    strategy_options,
    with_choices,
)
from bot.cli.help import ExampleCommand
from bot.cli.terminal import console, output, progress_bar
from bot.cli.walks import missing_judges
from bot.engine import SimulatedEngine
from bot.errors import UsageError
from bot.execution.detail import finer_bars_of
from bot.execution.fills.model import FinerBars
from bot.journal import Journal, RunKind
from bot.market.candles import CandleStore
from bot.portfolio import ClosedTrade
from bot.session import Session, earliest_start, new_run_id, open_session
from strategies.bars import BarSeries, interval_ms

_HASHES: Final = ("decisions_sha256", "trades_sha256")
"""A person compares their beginnings; --json has them whole."""


@click.command(
    cls=ExampleCommand,
    examples=(
        "recall backtest --symbols BTCUSDT --interval 60 --start 2024-01-01 --end 2026-01-01",
        "recall backtest --strategy sma_cross --set strategy.parameters.fast=10 --json",
        "recall backtest --interval 60 --detail-interval 1",
        "recall backtest --strategy my_package.my_module:MyStrategy",
        "recall backtest --strategy memory_transformer --verdict full --shuffles 19",
    ),
)
@market_options
@span_options
@strategy_options
@click.option(
    "--verdict",
    type=click.Choice(["none", "quick", "full"]),
    default="quick",
    show_default=True,
    help="Test the result against luck; full also trades with a shuffled memory and probes for lookahead.",
)
@click.option(
    "--shuffles",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="With --verdict full: runs with a shuffled memory; 19 and more give a permutation test.",
)
@click.option("--detail-interval", help="Take the order of events inside a bar from stored candles of this interval.")
@click.option("--keep-decisions", is_flag=True, help="Journal every decision, not only those with orders.")
@click.option("--plot/--no-plot", default=True, help="Write the PNG with its four panels.")
@standard_options
def backtest(
    context: Context,
    symbols: str | None,
    interval: str | None,
    start: str | None,
    end: str | None,
    strategy: str | None,
    model_id: str | None,
    memory_size: int | None,
    verdict: str,
    shuffles: int,
    detail_interval: str | None,
    keep_decisions: bool,
    plot: bool,
) -> None:
    """Replay stored candles through the very code that trades, and say whether the result can be told from luck.

    Features and memory are warmed from all stored candles before --start (up to the memory's capacity); without --start
    the replay begins as soon as there are enough of them. Every backtest is entered into the ledger of trials, trials.jsonl in
    data_dir: the more settings are tried on the same data, the more a result has to show.
    """
    config = with_choices(context, strategy=strategy, model_id=model_id, memory_size=memory_size)
    names, code = chosen_market(config, symbols, interval)
    first, last = chosen_span(start, end)
    home = home_of(config)
    calendars = stored_calendars(home.candles, names, code)
    if first is None:
        first = earliest_start(config, home, names, code)
    upcoming = _upcoming(home.candles, names, code, first, last)
    finer_bars = None if detail_interval is None else _finer_bars(home.candles, upcoming, code, detail_interval)
    session = open_session(config, home, names, code, calendars, first)
    depth = _depth(verdict)
    total = sum(len(series) for series in upcoming.values())
    recording = None
    if depth is Depth.FULL or (depth is Depth.QUICK and total <= MOST_RECORDED):
        recording = session.strategy = RecordingStrategy(session.strategy)
    journal = Journal(config.journal_url, durable=False)
    run_id = new_run_id(RunKind.REPLAY)
    console.print(f"run [bold]{run_id}[/]")
    result, engine = _run(session, run_id, upcoming, finer_bars, keep_decisions=keep_decisions)
    cash, calendar = float(config.account.initial_cash), common_calendar(calendars)
    curve = Account(result.close_times, result.equity, cash, calendar)
    exposure, returns = positions_of(result.close_times, result.equity, result.executions, upcoming, names)
    judged = Run(session, first, recording, finer_bars, upcoming, result, curve, exposure, returns)
    portfolio = engine.portfolio
    metrics = performance(
        result.close_times,
        result.equity,
        result.trades,
        initial_cash=cash,
        calendar=calendar,
        fees_paid=float(portfolio.fees_paid),
        funding_paid=float(portfolio.funding_paid),
        turnover=float(portfolio.turnover),
        slippage_paid=slippage_of(result.executions, upcoming, engine.account.costs),
        exposure=np.abs(exposure).sum(axis=1),
        benchmark=hold_curve(result, upcoming, cash),
    )
    document = _document(run_id, session, result, metrics)
    sentences = _judge(judged, run_id, Ledger(config.storage.data_dir), depth, shuffles, document)
    title = span_title(config.strategy.name, names, code, result.close_times)
    if plot and len(result.equity) > 1:
        path = config.reports_dir / f"{run_id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        plot_panels(
            path,
            result.close_times,
            result.equity,
            title,
            initial_cash=config.account.initial_cash,
            calendar=calendar,
        )
        document["plot"] = str(path)
    journal.write_replay(
        session.record(run_id, RunKind.REPLAY),
        document,
        decisions=result.decisions,
        executions=result.executions,
        trades=result.trades,
        updates=result.updates,
        fundings=result.fundings,
        equity=result.equity_points(),
        keep_decisions=keep_decisions,
        outlooks=result.outlooks,
    )
    journal.close()
    if context.as_json:
        context.answer(document)
    else:
        for sentence in sentences:
            output.print(sentence, soft_wrap=True)
        print_summary(output, title, document | {name: document[name][:16] for name in _HASHES})


def _depth(verdict: str) -> Depth:
    """How far to look: not at all, in one sentence, where the libraries are missing."""
    if verdict != Depth.NONE and missing_judges():
        console.print(
            f"[yellow]no verdict:[/] it needs {', '.join(missing_judges())}; pip install 'recall-bot[evaluate]'",
            soft_wrap=True,
        )
        return Depth.NONE
    return Depth(verdict)


def _judge(
    run: Run, run_id: str, ledger: Ledger, depth: Depth, shuffles: int, document: dict[str, Any]
) -> tuple[str, ...]:
    """Enter the run into the ledger and judge it; the verdict goes into the document, its sentences are returned."""
    trials, head = enter_backtest(run, run_id, ledger)
    if depth is Depth.NONE:
        return ()
    with console.status("judging ...") as status:
        report, certificate = judge_run(
            run, trials, head, depth, shuffles=shuffles, note=lambda what: status.update(f"{what} ...")
        )
    document["significance"], document["certificate"] = report.to_json(), certificate.to_json()
    return (*report.sentences(), *certificate.sentences())


def _upcoming(
    store: CandleStore, names: tuple[str, ...], code: str, first: int, last: int | None
) -> dict[str, BarSeries]:
    upcoming = {name: store.load(name, code, start=first, end=last) for name in names}
    if not any(len(series) for series in upcoming.values()):
        raise UsageError(
            f"there are no stored candles of {', '.join(names)} in that span; see what there is with recall data list"
        )
    return upcoming


def _finer_bars(store: CandleStore, upcoming: dict[str, BarSeries], code: str, detail: str) -> FinerBars:
    """
    Raises:
        UsageError: the interval is not finer than that of the bars, or no symbol has candles of it.
    """
    finer = parse_interval_option(detail)
    if interval_ms(finer) >= interval_ms(code):
        raise UsageError(f"--detail-interval {detail} is not finer than --interval {code}; choose a shorter one")
    found = {
        symbol: store.load(symbol, finer, start=int(series.open_time[0]), end=int(series.close_time[-1]))
        for symbol, series in upcoming.items()
        if len(series) and store.describe(symbol, finer) is not None
    }
    if not any(len(series) for series in found.values()):
        raise UsageError(
            f"there are no stored candles of {', '.join(upcoming)} at interval {finer} in that span; get them with "
            f"recall fetch --symbols {','.join(upcoming)} --interval {finer}"
        )
    return finer_bars_of(found)


def _run(
    session: Session,
    run_id: str,
    upcoming: dict[str, BarSeries],
    finer_bars: FinerBars | None,
    *,
    keep_decisions: bool,
) -> tuple[ReplayResult, SimulatedEngine]:
    trades: list[ClosedTrade] = []
    with console.status("warming features and memory from earlier candles ..."):
        session.warm()
    engine = session.engine(run_id, trades, finer_bars=finer_bars)
    total = sum(len(series) for series in upcoming.values())
    with progress_bar("replaying", total) as update:
        result = replay(engine, upcoming, trades=trades, keep_all_decisions=keep_decisions, progress=update)
    return result, engine


def _document(run_id: str, session: Session, result: ReplayResult, metrics: PerformanceMetrics) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "model_id": session.model_id or None,
        "strategy": session.config.strategy.name,
        "symbols": list(session.symbols),
        "interval": session.interval,
        "start": int(min(result.close_times)),
        "end": int(max(result.close_times)),
        **metrics.to_json(),
        "fills": len(result.executions),
        "bars": result.bars,
        "seconds": result.seconds,
        "bars_per_second": result.bars_per_second,
        "decisions_sha256": result.decisions_sha256,
        "trades_sha256": result.trades_sha256,
    }
